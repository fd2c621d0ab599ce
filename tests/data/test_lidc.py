"""LIDC: pixels strictly inside the edge maps, readers, agreement, slices by UID."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest

from sammed_data.catalog import load_catalogs
from sammed_data.encodings import read_labels
from sammed_data.readers.registry import read_volume
from sammed_data.types import Case, GeometryError, LabelFile, ReadError
from tests import fake_files
from tests.fake_polygons import _slices, add_roi, edge_map

ENTRY = load_catalogs(None)["lidc_idri"]
SHAPE = (4, 22, 38)
BOX = (5, 6, 12, 11)  # x0 y0 x1 y1


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lidc") / "series"
    array = np.random.default_rng(1).integers(-500, 500, SHAPE).astype(np.int16)
    fake_files.write_series(folder, array)
    return folder


def _session(root: ET.Element) -> ET.Element:
    return ET.SubElement(root, "readingSession")


def _nodule(session: ET.Element) -> ET.Element:
    return ET.SubElement(session, "unblindedReadNodule")


def _read(series, root: ET.Element, readers: str = "each", name: str = "x.xml"):
    path = series.parent / name
    ET.ElementTree(root).write(path)
    case = Case(dataset="lidc_idri", case_id="1", patient_key=None, image_path=series,
                labels=(LabelFile(path=path),), root=series.parent)  # fmt: skip
    encoding = ENTRY.label_encoding.model_copy(update={"readers": readers})
    entry = ENTRY.model_copy(update={"label_encoding": encoding})
    return read_labels(case, entry, read_volume(series))


def _root() -> ET.Element:
    return ET.Element("LidcReadMessage", xmlns="http://www.nih.gov")


def test_an_edge_map_and_a_hole_belong_to_the_outside(series):
    """Outline pixels lie outside of what they enclose, on both sides of the rule."""
    slices, root = _slices(series), _root()
    nodule = _nodule(_session(root))
    add_roi(nodule, slices[2], edge_map(BOX))
    add_roi(nodule, slices[2], edge_map((7, 8, 9, 10)), "FALSE")
    add_roi(nodule, slices[1], edge_map((20, 3, 21, 4)))
    labels = _read(series, root)
    expected = np.zeros(SHAPE, bool)
    expected[2, 6:11, 5:12] = True
    expected[2, 8:10, 7:9] = False
    expected[1, 3, 20] = True
    assert np.array_equal(labels.layers[0].array_ZYX > 0, expected)
    assert dict(labels.layers[0].instances) == {1: 1}


def test_readers_are_observers_or_agree(series):
    slices, root = _slices(series), _root()
    shifts = (0, 0, 2, 3)  # of the box in x; one reader saw nothing else
    for shift in shifts:
        nodule = _nodule(_session(root))
        add_roi(nodule, slices[1], edge_map((BOX[0] + shift, BOX[1], BOX[2] + shift, BOX[3])))
    point = _nodule(root.findall("readingSession")[3])
    add_roi(point, slices[0], [(3, 3)])

    each = _read(series, root)
    assert [layer.annotator for layer in each.layers] == [1, 2, 3, 4]
    for layer, shift in zip(each.layers, shifts, strict=True):
        assert np.flatnonzero(layer.array_ZYX[1].any(axis=0)).tolist() == list(
            range(5 + shift, 12 + shift)
        )
    assert each.without_area == {"nodule with a point only": 1}

    agreed = _read(series, root, "majority")
    assert [layer.annotator for layer in agreed.layers] == [1]
    # Columns 5, 6 have two votes, 7 three, 8 to 11 four, 12 and 13 two, 14 one.
    assert np.flatnonzero(agreed.layers[0].array_ZYX[1].any(axis=0)).tolist() == list(range(5, 14))


def test_what_readers_agree_on_is_one_object_a_connected_part(series):
    slices, root = _slices(series), _root()
    for _ in range(2):
        session = _session(root)
        for k in (1, 2):
            add_roi(_nodule(session), slices[k], edge_map((5, 6, 9, 9)))
        add_roi(_nodule(session), slices[2], edge_map((20, 6, 25, 9)))
    layer = _read(series, root, "majority").layers[0]
    assert sorted(layer.instances.values()) == [1, 2]
    assert layer.array_ZYX[1, 7, 6] == layer.array_ZYX[2, 7, 6] != layer.array_ZYX[2, 7, 21]


def test_slices_of_another_series_are_refused(series):
    root = _root()
    add_roi(_nodule(_session(root)), ("1.2.3", -27.5), edge_map(BOX))
    with pytest.raises(GeometryError, match="found one on another image"):
        _read(series, root)


def test_without_uids_the_position_counts(series, tmp_path):
    path = tmp_path / "series.nii.gz"
    fake_files.write_volume(path, np.zeros(SHAPE, np.int16))
    root = _root()
    add_roi(_nodule(_session(root)), ("", -27.5), edge_map(BOX))
    layer = _read(path, root).layers[0]
    assert np.flatnonzero(layer.array_ZYX.any(axis=(1, 2))).tolist() == [1]
    for z, words in (("-26", "found one at z = -26 mm"), ("999", "found one at z = 999 mm")):
        root = _root()
        add_roi(_nodule(_session(root)), ("", z), edge_map(BOX))
        with pytest.raises(GeometryError, match=words):
            _read(path, root)
    for z in ("x", "nan", "inf"):
        root = _root()
        add_roi(_nodule(_session(root)), ("", z), edge_map(BOX))
        with pytest.raises((ReadError, GeometryError)):
            _read(path, root)


def test_files_of_radiographs_are_named(series):
    with pytest.raises(ReadError, match="<LidcReadMessage> as the outermost element, found <Idri"):
        _read(series, ET.Element("IdriReadMessage"))


def test_series_stored_the_other_way_round_are_refused(tmp_path):
    import pydicom

    folder = tmp_path / "series"
    fake_files.write_series(folder, np.zeros(SHAPE, np.int16))
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        data.save_as(file)
    root = _root()
    add_roi(_nodule(_session(root)), _slices(folder)[1], edge_map(BOX))
    with pytest.raises(GeometryError, match="stored from front to back"):
        _read(folder, root)
