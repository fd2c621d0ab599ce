from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from sammed_data.geometry import (
    canonicalize,
    planes_as_colours,
    resample_image_to,
    same_grid,
    to_lps,
)
from sammed_data.types import Geometry, GeometryError, Volume
from tests.data.anatomy import SHAPE, answer_geometry, answer_image, stored


def _moved(shift_mm, scale=1.0):
    affine = answer_geometry().affine_lps.copy()
    affine[:3, :3] *= scale
    affine[:3, 3] += shift_mm
    return Geometry(affine_lps=affine, shape_zyx=SHAPE)


@pytest.mark.parametrize("order", permutations(range(3)))
def test_every_stored_orientation_becomes_the_same_grid(order):
    for flips in product([False, True], repeat=3):
        array, affine = stored(answer_image(), order=order, flips=flips)
        z, y, x = array.shape
        got, geometry = canonicalize(array, Geometry(affine_lps=affine, shape_zyx=(z, y, x)))
        np.testing.assert_array_equal(got, answer_image())
        np.testing.assert_allclose(geometry.affine_lps, answer_geometry().affine_lps, atol=1e-9)
        assert geometry.shape_zyx == SHAPE


def test_colours_follow_their_voxels():
    rgb = np.stack([answer_image()] * 3, axis=-1) + np.arange(3, dtype=np.int16)
    array, affine = stored(rgb, order=(2, 0, 1, 3)), stored(answer_image())[1]
    z, y, x = array[0].shape[:3]
    got, _ = canonicalize(array[0], Geometry(affine_lps=affine, shape_zyx=(z, y, x)))
    np.testing.assert_array_equal(got, rgb)


def test_ras_index_order_becomes_lps():
    array, geometry = to_lps(np.zeros((4, 5, 6)), np.diag([2.0, 3, 4, 1]))
    assert array.shape == geometry.shape_zyx == (6, 5, 4)
    np.testing.assert_allclose(geometry.affine_lps[:3, :3], [[0, 0, -2], [0, -3, 0], [4, 0, 0]])


def test_an_affine_without_volume_is_refused():
    flat = Geometry(affine_lps=np.diag([1.0, 0, 1, 1]), shape_zyx=(2, 3, 4))
    with pytest.raises(GeometryError, match="three independent finite axes"):
        canonicalize(np.zeros((2, 3, 4)), flat)


def test_same_grid_allows_one_percent_of_the_smallest_side():
    here = answer_geometry()
    assert same_grid(here, _moved((0.009, 0, 0)))
    assert not same_grid(here, _moved((0.011, 0, 0)))
    assert not same_grid(here, _moved(0, scale=1.001))  # 33 mm away the corners tell
    assert not same_grid(here, Geometry(affine_lps=here.affine_lps, shape_zyx=(10, 11, 13)))
    assert same_grid(None, None)
    assert not same_grid(here, None)


def test_resampling_moves_a_ramp_exactly():
    z, y, x = np.indices(SHAPE).astype(np.float32)
    image = Volume(array=10 * z + 4 * y + x, geometry=answer_geometry())
    step = answer_geometry().affine_lps[:3, :3] @ (0.5, 0.5, 0.5)
    target = Geometry(affine_lps=_moved(step).affine_lps, shape_zyx=(9, 10, 11))
    got = resample_image_to(image, target)
    np.testing.assert_allclose(got.array, image.array[:9, :10, :11] + 7.5, atol=1e-4)
    rgb = Volume(array=np.stack([z, y, x], axis=-1).astype(np.uint8), geometry=answer_geometry())
    np.testing.assert_array_equal(resample_image_to(rgb, answer_geometry()).array, rgb.array)
    assert "resampled" in got.warnings[-1]


def test_a_raster_image_cannot_be_resampled():
    with pytest.raises(GeometryError, match="remove `grid: resample_image`"):
        resample_image_to(Volume(array=np.zeros((1, 4, 5))), answer_geometry())


def test_three_planes_of_one_picture_are_its_colours():
    affine = np.array([[0, 0, 0.5, 3], [0, 0.75, 0, -2], [1, 0, 0, 0], [0, 0, 0, 1]], float)
    planes = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    image = Volume(array=planes, geometry=Geometry(affine_lps=affine, shape_zyx=(3, 4, 5)))
    label = Geometry(affine_lps=affine, shape_zyx=(1, 4, 5))
    got = planes_as_colours(image, label)
    assert got.geometry is label
    assert got.array.shape == (1, 4, 5, 3)
    assert got.array[0, 2, 1].tolist() == planes[:, 2, 1].tolist()
    other = affine.copy()
    other[0, 3] += 0.1
    elsewhere = Geometry(affine_lps=other, shape_zyx=(1, 4, 5))
    assert planes_as_colours(image, elsewhere) is image
    assert planes_as_colours(image, None) is image
