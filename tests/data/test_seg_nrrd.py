"""`.seg.nrrd` of 3D Slicer: names, layers, cropped boxes, old files, hostile headers."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from sammed_data.catalog import CatalogEntry
from sammed_data.encodings import pair_on_grid, read_labels
from sammed_data.readers import segments
from sammed_data.readers.registry import read_volume
from sammed_data.types import Case, LabelFile, ReadError
from tests import fake_files

SHAPE = (4, 6, 9)
SPACING = fake_files.SPACING_ZYX


def _entry(labels: dict, **encoding) -> CatalogEntry:
    return CatalogEntry(
        id="mine", name="Mine", modality="CT", dims="3D", license="CC0-1.0",
        homepage="https://example.org", labels=labels,
        layout={"images": [{"pattern": "{c}.nii.gz"}], "labels": [{"pattern": "{c}.seg.nrrd"}]},
        label_encoding={"type": "seg_nrrd", **encoding},
    )  # fmt: skip


def _write(
    path: Path, layers: list[np.ndarray], keys: list[str], start: tuple[int, int, int] = (0, 0, 0)
) -> Path:
    """As Slicer writes: one layer 3D, several as a `list` axis in front; ``start`` = (z, y, x)."""
    z, y, x = layers[0].shape
    several = len(layers) > 1
    origin = [fake_files.ORIGIN_XYZ[k] + SPACING[2 - k] * start[2 - k] for k in range(3)]
    steps = [f"({SPACING[2]},0,0)", f"(0,{SPACING[1]},0)", f"(0,0,{SPACING[0]})"]
    head = [
        "NRRD0004", "# made by hand", "type: unsigned char", f"dimension: {3 + several}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, ([len(layers)] if several else []) + [x, y, z])),
        "space directions: " + " ".join((["none"] if several else []) + steps),
        "kinds: " + " ".join((["list"] if several else []) + ["domain"] * 3),
        "encoding: gzip", "space origin: (" + ",".join(map(str, origin)) + ")", *keys, "", "",
    ]  # fmt: skip
    data = np.stack(layers, axis=-1).astype(np.uint8).tobytes()
    path.write_bytes("\n".join(head).encode() + gzip.compress(data))
    return path


def _segment(number: int, name: str, layer: int | None = 0, value: int = 1) -> list[str]:
    found = [f"Segment{number}_Name:={name}", f"Segment{number}_Extent:=0 8 0 5 0 3"]
    if layer is not None:
        found += [f"Segment{number}_Layer:={layer}", f"Segment{number}_LabelValue:={value}"]
    return found


def _case(tmp_path, path: Path) -> tuple[Case, object]:
    image = tmp_path / "a.nii.gz"
    array = np.random.default_rng(2).integers(0, 99, SHAPE).astype(np.int16)
    fake_files.write_volume(image, array)
    case = Case(dataset="mine", case_id="a", patient_key=None, image_path=image,
                labels=(LabelFile(path=path),), root=tmp_path)  # fmt: skip
    return case, read_volume(image)


def _mask(labels, name: str) -> np.ndarray:
    found = np.zeros(labels.shape_zyx, bool)
    for layer in labels.layers:
        found |= np.isin(layer.array_ZYX, [v for v, n in layer.names.items() if n == name])
    return found


def test_segments_of_two_layers_overlap(tmp_path):
    first, second = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    first[1:3, 2:5, 3:7] = 1
    first[3, 0, 0] = 4
    second[2, 3:6, 4:9] = 1
    keys = [*_segment(0, "Liver", 0, 1), *_segment(1, "Cyst", 0, 4), *_segment(2, "Tumour", 1, 1)]
    path = _write(tmp_path / "a.seg.nrrd", [first, second], keys)
    case, like = _case(tmp_path, path)
    entry = _entry({"Liver": "liver", "Tumour": "liver_tumor"}, ignore=["Cyst"])
    labels = read_labels(case, entry, like)
    assert pair_on_grid(like, labels, entry) is like
    assert np.array_equal(_mask(labels, "Liver"), first == 1)
    assert np.array_equal(_mask(labels, "Tumour"), second == 1)
    assert np.array_equal(labels.ignore_ZYX, first == 4)
    assert int(labels.layers[0].array_ZYX.max()) == 1


def test_a_single_layer_and_segments_without_voxels(tmp_path):
    layer = np.zeros(SHAPE, np.uint8)
    layer[1, 2:4, 3:8] = 2
    keys = [*_segment(0, "Liver", 0, 1), *_segment(7, "Spleen", 0, 2)]
    case, like = _case(tmp_path, _write(tmp_path / "a.seg.nrrd", [layer], keys))
    labels = read_labels(case, _entry({"Liver": "liver", "Spleen": "spleen"}), like)
    assert np.array_equal(_mask(labels, "Spleen"), layer == 2)
    assert not _mask(labels, "Liver").any()


def test_old_files_have_a_segment_a_layer(tmp_path):
    one, two = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    one[0, 1, 2] = two[3, 4, 5:8] = 1
    keys = [*_segment(0, "Liver", None), *_segment(1, "Spleen", None)]
    case, like = _case(tmp_path, _write(tmp_path / "a.seg.nrrd", [one, two], keys))
    labels = read_labels(case, _entry({"Liver": "liver", "Spleen": "spleen"}), like)
    assert np.array_equal(_mask(labels, "Spleen"), two == 1)


def test_a_box_around_the_segments_is_put_back_into_the_image(tmp_path):
    small = np.ones((2, 3, 4), np.uint8)
    keys = _segment(0, "Liver")
    path = _write(tmp_path / "a.seg.nrrd", [small], keys, start=(1, 2, 3))
    case, like = _case(tmp_path, path)
    entry = _entry({"Liver": "liver"})
    labels = read_labels(case, entry, like)
    expected = np.zeros(SHAPE, bool)
    expected[1:3, 2:5, 3:7] = True
    assert np.array_equal(_mask(labels, "Liver"), expected)
    assert pair_on_grid(like, labels, entry) is like
    for start in ((3, 2, 3), (1, 2, 3.4)):  # beyond the edge, and between the voxels
        _write(path, [small], keys, start=start)
        labels = read_labels(case, entry, like)
        with pytest.raises(ValueError, match="expected image and labels on one grid"):
            pair_on_grid(like, labels, entry)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (_segment(0, "Livr"), r"found 'Livr' \(did you mean 'Liver'\?\); add them to `labels`"),
        ([], "expected 1 to 10,000 segments in the header"),
        (_segment(0, "Liver", 3), "expected layers 0 to 0, found segment 'Liver' in layer 3"),
        (_segment(0, "Liver", 0, 7), r"label values of its segments in layer 0 \(7\), found 1"),
        ([*_segment(0, "Liver"), *_segment(1, "Cyst")], "two segments that share theirs"),
        (["Segment0_Name:=Liver", "Segment0_LabelValue:=one"], "a whole number as a label value"),
        (["Segment0_Name:=Liver", "Segment0_Layer:=-1"], "a whole number as a layer"),
    ],
)
def test_mistakes_are_sentences(tmp_path, keys, words):
    layer = np.zeros(SHAPE, np.uint8)
    layer[1, 2, 3] = 1
    case, like = _case(tmp_path, _write(tmp_path / "a.seg.nrrd", [layer], keys))
    with pytest.raises(ReadError, match=words):
        read_labels(case, _entry({"Liver": "liver"}), like)


def test_hostile_headers(tmp_path, monkeypatch):
    path = tmp_path / "a.seg.nrrd"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ReadError, match="expected a NRRD file, found other content"):
        segments.read(path)
    path.write_bytes(b"NRRD0004\n" + b"Segment0_Name:=a\n" * 100)
    monkeypatch.setattr(segments, "_MAX_HEADER_BYTES", 500)
    with pytest.raises(ReadError, match="found no end of it"):
        segments.read(path)
    monkeypatch.undo()
    head = _write(path, [np.ones(SHAPE, np.uint8)], _segment(0, "a")).read_bytes()
    path.write_bytes(head.replace(b"sizes: 9 6 4", b"sizes: 99999 99999 99999"))
    with pytest.raises(ReadError, match="expected at most 4,000,000,000 decoded bytes"):
        segments.read(path)
    path.write_bytes(head[:-20])
    with pytest.raises(ReadError, match="expected a whole NRRD"):
        segments.read(path)
