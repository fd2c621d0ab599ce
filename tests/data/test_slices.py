"""Orientation on a marked volume: what the radiologist sees must lie where the text says."""

from __future__ import annotations

import numpy as np
import pytest

from sammed_data.slices import cut, in_memory_order, place, slices_with_labels, straight
from sammed_data.types import Geometry, Volume

SHAPE = (5, 7, 11)  # Z, Y, X
SPACING = (4.0, 2.0, 0.5)


def _volume():
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (row, step) in enumerate(zip((2, 1, 0), SPACING, strict=True)):
        affine[row, axis] = step
    affine[:3, 3] = (-10.0, 20.0, 100.0)
    z, y, x = np.indices(SHAPE)
    array = (z * 10000 + y * 100 + x).astype(np.int32)
    return Volume(array=array, geometry=Geometry(affine_lps=affine, shape_zyx=SHAPE), bits=16)


def test_axial_rows_run_to_posterior_and_columns_to_left():
    plane = cut(_volume().array, "axial", 3)
    assert plane.shape == (7, 11)
    assert (plane[0, 0], plane[-1, 0], plane[0, -1]) == (30000, 30600, 30010)


def test_coronal_rows_run_to_inferior_and_columns_to_left():
    plane = cut(_volume().array, "coronal", 2)
    assert plane.shape == (5, 11)
    assert (plane[0, 0], plane[-1, 0], plane[0, -1]) == (40200, 200, 40210)


def test_sagittal_rows_run_to_inferior_and_columns_to_posterior():
    plane = cut(_volume().array, "sagittal", 8)
    assert plane.shape == (5, 7)
    assert (plane[0, 0], plane[-1, 0], plane[0, -1]) == (40008, 8, 40608)


def test_stored_orientation_keeps_z_ascending():
    assert cut(_volume().array, "coronal", 2, "stored")[0, 0] == 200


def test_colour_keeps_its_channels():
    array = np.zeros((1, 6, 9, 3), np.uint8)
    assert cut(array, "native", 0).shape == (6, 9, 3)


@pytest.mark.parametrize(
    ("axis", "position", "between", "pixel"),
    [
        ("axial", 100.0 + 2 * 4.0, 4.0, (2.0, 0.5)),
        ("coronal", 20.0 + 2 * 2.0, 2.0, (4.0, 0.5)),
        ("sagittal", -10.0 + 2 * 0.5, 0.5, (4.0, 2.0)),
    ],
)
def test_place_in_the_patient(axis, position, between, pixel):
    found = place(_volume(), axis, 2)
    assert (found.position_mm, found.spacing_mm, found.spacing_yx_mm) == (position, between, pixel)


def test_unknown_spacing_stays_unknown():
    found = place(Volume(array=np.zeros((1, 4, 6), np.uint8)), "native", 0)
    assert (found.spacing_yx_mm, found.position_mm, found.spacing_mm) == (None, None, None)


def test_blank_slices_are_counted_not_listed():
    first, second = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    first[1, 2:4, 3] = 1
    second[4, 6, 10] = 2
    found = {
        axis: ([s.index for s in places], blank)
        for axis, places, blank in slices_with_labels(
            _volume(), [first, second], ("axial", "coronal", "sagittal")
        )
    }
    assert found == {"axial": ([1, 4], 3), "coronal": ([2, 3, 6], 4), "sagittal": ([3, 10], 9)}


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, bool])
@pytest.mark.parametrize("turn", [np.s_[:], np.s_[::-1], np.s_[:, ::-1], np.s_[::-1, ::-1]])
def test_turned_planes_become_straight(kind, turn):
    plane = (np.arange(7 * 11).reshape(7, 11) % 5).astype(kind)[turn]
    found = straight(plane)
    assert found.flags.c_contiguous
    assert found.dtype == kind
    assert np.array_equal(found, plane)


def test_memory_order_holds_the_same_elements():
    array = np.arange(5 * 7 * 11).reshape(SHAPE).transpose(2, 0, 1)[::-1, :, ::-1]
    found = in_memory_order(array)
    assert found.flags.c_contiguous
    assert np.shares_memory(found, array)
    assert np.array_equal(np.sort(found.ravel()), np.arange(5 * 7 * 11))
