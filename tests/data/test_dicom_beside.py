"""What exports put beside a series: localizers, screenshots and copies are left out and said."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest

from sammed_data.ontology import load_ontology
from sammed_data.propose.inspect import Inspector
from sammed_data.readers.registry import read_volume
from sammed_data.types import GeometryError, ReadError
from tests.data import init_folders as folders
from tests.data.anatomy import answer_image, write_series

AXIAL = {"order": (0, 1, 2), "flips": (False, False, False)}


@pytest.fixture
def folder(tmp_path):
    return write_series(tmp_path / "ct", answer_image(), **AXIAL)


def beside(folder, name="zz.dcm", **changes):
    """A changed copy of one slice; None removes an element."""
    ds = pydicom.dcmread(sorted(folder.iterdir())[3])
    for key, value in changes.items():
        if value is None:
            delattr(ds, key)
        else:
            setattr(ds, key, value)
    ds.save_as(folder / name)


def scout(folder, **more):
    beside(
        folder, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Rows=5,
        PixelData=bytes(5 * 12 * 2), ImageOrientationPatient=["0", "1", "0", "0", "0", "-1"],
        **more,
    )  # fmt: skip


NO_PLACE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
LEFT_OUT = {
    "localizer of the series": (scout, "1 localizer beside the slices"),
    "localizer of its own series": (
        lambda f: scout(f, SeriesInstanceUID="1.77"), "1 localizer beside the slices"),
    "screenshot": (
        lambda f: beside(f, SeriesInstanceUID="1.78", Modality="OT", **NO_PLACE),
        "1 picture of another series"),
    "copy": (lambda f: shutil.copy(sorted(f.iterdir())[3], f / "zz copy.dcm"),
             "1 second copy of a slice"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_lies_beside_the_slices_is_left_out_and_said(folder, kind):
    put, said = LEFT_OUT[kind]
    put(folder)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, answer_image())
    (note,) = volume.warnings
    assert f"left out: {said}" in note


def test_another_slice_at_the_same_place_is_no_copy(folder):
    beside(folder, PixelData=bytes(len(pydicom.dcmread(next(folder.iterdir())).PixelData)))
    with pytest.raises(GeometryError, match=r"found two at .*and zz\.dcm"):
        read_volume(folder)


def test_a_slice_without_a_place_is_missed_and_two_series_are_two(folder):
    beside(folder, **NO_PLACE)  # of the series itself: something is wrong with it
    with pytest.raises(GeometryError):
        read_volume(folder)
    (folder / "zz.dcm").unlink()
    beside(folder, SeriesInstanceUID="1.79")  # may be a volume of one slice
    with pytest.raises(ReadError, match="found 2"):
        read_volume(folder)


def test_init_takes_the_series_and_says_what_it_leaves_out(tmp_path):
    folders.rtstructs(tmp_path)
    series = sorted(p.parent for p in tmp_path.rglob("*.dcm") if len(list(p.parent.iterdir())) > 3)
    scout(series[0], SeriesInstanceUID="1.77")
    beside(series[0], "z2.dcm", SeriesInstanceUID="1.78", Modality="OT", **NO_PLACE)
    inspector = Inspector(tmp_path, load_ontology(None))
    place = series[0].relative_to(tmp_path).as_posix()
    assert f"{place}/" in [i.path for i in inspector.found.items]
    assert (place, "2 localizers or screenshots beside the slices of a series, left out") in (
        inspector.unreadable
    )
