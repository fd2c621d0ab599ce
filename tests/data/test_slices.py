"""Orientation on a marked volume: what the radiologist sees must lie where the text says."""

from __future__ import annotations

import numpy as np
import pytest

from sammed_data.build import build
from sammed_data.corpus import Corpus
from sammed_data.phantom import write_phantoms
from sammed_data.plan import BuildOptions
from sammed_data.runs import of_volume
from sammed_data.slices import Cutter, cut, in_memory_order, place, slices_with_labels, straight
from sammed_data.types import Geometry, LabelLayer, Volume

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
    layers = [
        LabelLayer(array_ZYX=array, names={1: "a", 2: "b"}, runs=runs)
        for array, runs in ((first, None), (second, of_volume(second)))
    ]
    found = {
        axis: ([s.index for s in places], blank)
        for axis, places, blank in slices_with_labels(
            _volume(), layers, ("axial", "coronal", "sagittal")
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


def test_isotropic_planes_keep_millimetres_and_labels():
    volume = _volume()
    maps = (volume.array % 7).astype(np.uint8)
    where = place(volume, "sagittal", 8)  # 4 mm rows, 2 mm columns
    cutter, plain = Cutter(isotropic=True), cut(maps, "sagittal", 8)
    labels = cutter.labels(maps, where)
    assert (labels.shape, labels.dtype) == ((10, 7), np.uint8)
    np.testing.assert_array_equal(labels, np.repeat(plain, 2, axis=0))
    values = cutter.values(volume.array, where)
    rows = cut(volume.array, "sagittal", 8).astype(np.float32)
    np.testing.assert_allclose(values[1:-1:2], 0.75 * rows[:-1] + 0.25 * rows[1:])
    assert cutter.spacing_yx_mm(where, (5, 7), (10, 7)) == (2.0, 2.0)
    native = place(Volume(array=volume.array[:1], bits=16), "native", 0)
    assert not cutter.resamples(native)  # no spacing is known: nothing to go by
    np.testing.assert_array_equal(cutter.values(volume.array, native), volume.array[0])


def test_an_isotropic_corpus_says_so_and_keeps_areas_in_mm(tmp_path):
    write_phantoms(tmp_path, n_patients=4, seed=3, only=("phantom_mr",))
    rows = {}
    for name, isotropic in (("plain", False), ("square", True)):
        options = BuildOptions(isotropic=isotropic, axes=("coronal",))
        build(tmp_path / "catalogs", tmp_path / "data", tmp_path / name, options=options)
        rows[name] = {r.sample_id: r for r in Corpus(tmp_path / name).index()}
        assert Corpus(tmp_path / name).manifest["options"]["isotropic"] is isotropic

    def area_mm2(row):
        pixels = sum(m.area_px for m in row.masks if m.structure == "heart_ventricle_left")
        return pixels * row.meta["spacing_y_mm"] * row.meta["spacing_x_mm"]

    both = [k for k in rows["plain"] if k in rows["square"] and area_mm2(rows["plain"][k])]
    assert both
    for name in both:
        plain, square = rows["plain"][name], rows["square"][name]
        assert square.meta["spacing_y_mm"] == pytest.approx(square.meta["spacing_x_mm"], rel=0.05)
        assert "resampled to square pixels" in square.meta["notes"]
        assert square.height > plain.height
        assert area_mm2(square) == pytest.approx(area_mm2(plain), rel=0.12)
