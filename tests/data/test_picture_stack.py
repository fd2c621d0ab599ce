from __future__ import annotations

import numpy as np
import pytest

from sammed_data.catalog import CatalogEntry
from sammed_data.raw_labels import foreground
from sammed_data.readers.dicom import read
from sammed_data.readers.picture_stack import read_picture_stack
from sammed_data.types import Case, GeometryError
from tests import fake_files


@pytest.fixture
def stacked(tmp_path):
    """A series whose n-th slice is n everywhere, and pictures that say the same."""
    array = np.broadcast_to(np.arange(1, 12)[:, None, None], (11, 14, 9)).astype(np.int16)
    fake_files.write_series(tmp_path / "ct", array)
    fake_files.write_stack(tmp_path / "masks", array)
    return tmp_path


def _number_from_the_top(series):
    """Give the highest slice instance number 1."""
    import pydicom

    files = sorted(series.iterdir())
    for path in files:
        data = pydicom.dcmread(path)
        data.InstanceNumber = len(files) + 1 - int(data.InstanceNumber)
        data.save_as(path)


def test_the_nth_picture_lies_on_the_nth_slice(stacked):
    image = read(stacked / "ct")
    masks, geometry = read_picture_stack(stacked / "masks", stacked / "ct")
    assert np.array_equal(masks, image.array)
    assert geometry.affine_lps == pytest.approx(image.geometry.affine_lps)


def test_numbers_that_run_downwards_turn_the_stack(stacked):
    _number_from_the_top(stacked / "ct")
    image = read(stacked / "ct")
    masks, geometry = read_picture_stack(stacked / "masks", stacked / "ct")
    assert geometry.affine_lps == pytest.approx(image.geometry.affine_lps)
    assert np.array_equal(masks, image.array[::-1])


def test_a_missing_picture_is_an_error(stacked):
    (stacked / "masks" / "mask_004.png").unlink()
    with pytest.raises(GeometryError, match=r"each of the 11 slices of ct, found 10"):
        read_picture_stack(stacked / "masks", stacked / "ct")


def test_fill_makes_an_outline_a_region(tmp_path):
    entry = CatalogEntry.model_validate(
        {
            "id": "rings", "name": "Rings", "modality": "ultrasound", "dims": "2D",
            "layout": {"images": [{"pattern": "{c}.png"}], "labels": [{"pattern": "{c}_m.png"}]},
            "label_encoding": {"type": "binary", "threshold": 127, "fill": True},
            "labels": {1: "fetal_head"}, "license": "CC0-1.0", "homepage": "https://example.org",
        }
    )  # fmt: skip
    ring = np.zeros((1, 12, 15), np.uint8)
    ring[0, 2:9, 3:13] = 255
    ring[0, 3:8, 4:12] = 0
    case = Case(
        dataset="rings",
        case_id="a",
        patient_key=None,
        image_path=tmp_path,
        labels=(),
        root=tmp_path,
    )
    mask, ignore = foreground(case, tmp_path / "a_m.png", ring, entry)
    assert ignore is None
    assert mask.sum() == 7 * 10
