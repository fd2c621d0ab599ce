from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sammed_data.catalog import CatalogEntry
from sammed_data.encodings import ENCODINGS, pair_on_grid, read_labels
from sammed_data.raw_labels import values_in
from sammed_data.readers.registry import read_volume
from sammed_data.types import (
    Case,
    CatalogError,
    GeometryError,
    LabelFile,
    LabelVolume,
    ReadError,
    Volume,
)
from tests.data.anatomy import (
    SHAPE,
    answer_geometry,
    answer_image,
    answer_labels,
    contours,
    seg_dataset,
    series,
    write_nifti,
    write_rtstruct,
    write_series,
)

LIKE = Volume(array=answer_image(), geometry=answer_geometry())
RASTER = Volume(array=np.zeros((1, 13, 17), np.uint8))


def _entry(encoding, labels, grid="same", **rule) -> CatalogEntry:
    return CatalogEntry.model_validate(
        {
            "id": "fake_set",
            "name": "Fake",
            "modality": "CT",
            "dims": "3D",
            "layout": {"images": [{"pattern": "i/{c}.nii"}], "labels": [{"pattern": "l/{c}.nii"}]},
            "label_encoding": {"type": encoding, **rule},
            "labels": labels,
            "grid": grid,
            "license": "CC0-1.0",
            "homepage": "https://example.org",
        }
    )


def _case(root: Path, *files: LabelFile, image: Path | None = None) -> Case:
    return Case(
        dataset="fake_set",
        case_id="c1",
        patient_key=None,
        image_path=image or root / "i.png",
        labels=files,
        root=root,
    )


def _file(path: Path, array, structure=None, annotator=1) -> LabelFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".nii":
        write_nifti(path, array)
    else:
        Image.fromarray(array).save(path)
    return LabelFile(path=path, structure=structure, annotator=annotator)


def _masks(labels: LabelVolume) -> dict:
    """(raw label, instance, annotator) -> mask, as later rooms would take them out."""
    return {
        (name, layer.instances.get(value), layer.annotator): layer.array_ZYX == value
        for layer in labels.layers
        for value, name in layer.names.items()
    }


def _disc(cy, cx, radius=3):
    y, x = np.indices((13, 17))
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


@pytest.mark.parametrize("encoding", ["index", "values"])
def test_index_values_ignore_and_unlabelled(tmp_path, encoding):
    array = answer_labels().astype(np.int32)
    array[array == 5] = 70001
    array[0, 0, :4] = 255
    array[0, 1, :3] = 9
    file = _file(tmp_path / "l.nii", array)
    entry = _entry(encoding, {1: "liver", 70001: "spleen"}, ignore=["255"], unlabelled_ok=["9"])
    got = read_labels(_case(tmp_path, file), entry, LIKE)
    masks = _masks(got)
    assert set(masks) == {("1", None, 1), ("70001", None, 1)}
    np.testing.assert_array_equal(masks["1", None, 1], answer_labels() == 1)
    np.testing.assert_array_equal(masks["70001", None, 1], answer_labels() == 5)
    np.testing.assert_array_equal(got.ignore_ZYX, array == 255)
    assert set(np.unique(got.layers[0].array_ZYX)) == {0, 1, 70001}


def test_unknown_values_are_named_with_file_and_known_ones(tmp_path):
    file = _file(tmp_path / "labels/l.nii", answer_labels())
    with pytest.raises(ReadError) as caught:
        read_labels(_case(tmp_path, file), _entry("index", {1: "liver", 2: "spleen"}), LIKE)
    assert str(caught.value).startswith("labels/l.nii: expected the raw labels of fake_set (1, 2)")
    assert "found 5;" in str(caught.value)


def test_zero_is_a_class_where_the_entry_lists_it(tmp_path):
    file = _file(tmp_path / "l.nii", answer_labels())
    entry = _entry("index", {0: "fluid", 1: "liver"}, ignore=["5"])
    got = read_labels(_case(tmp_path, file), entry, LIKE)
    masks = _masks(got)
    np.testing.assert_array_equal(masks["0", None, 1], answer_labels() == 0)
    np.testing.assert_array_equal(masks["1", None, 1], answer_labels() == 1)
    np.testing.assert_array_equal(got.ignore_ZYX, answer_labels() == 5)


def test_index_keys_must_be_numbers(tmp_path):
    file = _file(tmp_path / "l.nii", answer_labels())
    with pytest.raises(CatalogError, match="found 'liver'"):
        read_labels(_case(tmp_path, file), _entry("index", {"liver": "liver"}), LIKE)


@pytest.mark.parametrize("high", [1, 255])
def test_binary_of_two_observers(tmp_path, high):
    one, two = _disc(5, 6), _disc(6, 7)
    files = [
        _file(tmp_path / "a.png", np.uint8(one) * high, annotator=1),
        _file(tmp_path / "b.png", np.uint8(two) * high, annotator=2),
    ]
    masks = _masks(read_labels(_case(tmp_path, *files), _entry("binary", {"1": "vessel"}), RASTER))
    np.testing.assert_array_equal(masks["1", None, 1][0], one)
    np.testing.assert_array_equal(masks["1", None, 2][0], two)


def test_binary_jpeg_needs_a_threshold(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.repeat(np.uint8(_disc(6, 8, 5))[..., None], 3, -1) * 255).save(path)
    case = _case(tmp_path, LabelFile(path=path))
    with pytest.raises(ReadError, match="a mask of 0 and one other value.*state `threshold`"):
        read_labels(case, _entry("binary", {"polyp": "polyp"}), RASTER)
    got = read_labels(case, _entry("binary", {"polyp": "polyp"}, threshold=127), RASTER)
    np.testing.assert_array_equal(_masks(got)["polyp", None, 1][0], _disc(6, 8, 5))


def test_binary_inverted_and_ignored(tmp_path):
    array = np.where(_disc(5, 6), 0, 255).astype(np.uint8)
    array[0] = 128
    entry = _entry("binary", {"1": "lesion"}, threshold=100, inverted=True, ignore=["128"])
    got = read_labels(_case(tmp_path, _file(tmp_path / "a.png", array)), entry, RASTER)
    np.testing.assert_array_equal(_masks(got)["1", None, 1][0], _disc(5, 6))
    np.testing.assert_array_equal(got.ignore_ZYX[0], array == 128)


def test_a_colour_mask_is_no_binary_mask(tmp_path):
    array = np.zeros((13, 17, 3), np.uint8)
    array[2:5, 3:9, 0] = 255
    case = _case(tmp_path, _file(tmp_path / "a.png", array))
    with pytest.raises(ReadError, match="a.png: expected a mask of one channel"):
        read_labels(case, _entry("binary", {"1": "lesion"}), RASTER)


def test_file_per_class_overlaps_and_empty_files(tmp_path):
    masks = {"liver": _disc(5, 6), "tumour": _disc(5, 7, 2), "spleen": np.zeros((13, 17), bool)}
    files = [
        _file(tmp_path / f"{name}.png", np.uint8(mask) * 255, structure=name)
        for name, mask in masks.items()
    ]
    entry = _entry("file_per_class", {k: k for k in masks})
    got = _masks(read_labels(_case(tmp_path, *files), entry, RASTER))
    assert set(got) == {(name, None, 1) for name in masks}
    for name, mask in masks.items():
        np.testing.assert_array_equal(got[name, None, 1][0], mask)


def test_file_per_class_names_an_unknown_structure(tmp_path):
    file = _file(tmp_path / "livr.png", np.uint8(_disc(5, 6)), structure="livr")
    with pytest.raises(ReadError, match=r"livr.png: .* found 'livr'; did you mean 'liver'\?"):
        read_labels(
            _case(tmp_path, file), _entry("file_per_class", {"liver": "l", "x": "y"}), RASTER
        )
    entry = _entry("file_per_class", {"liver": "liver"}, unlabelled_ok=["livr"])
    assert _masks(read_labels(_case(tmp_path, file), entry, RASTER)) == {}
    entry = _entry("file_per_class", {"liver": "liver"}, ignore=["livr"])
    got = read_labels(_case(tmp_path, file), entry, RASTER)
    np.testing.assert_array_equal(got.ignore_ZYX[0], _disc(5, 6))


def test_file_per_instance_numbers_objects_by_path(tmp_path):
    discs = {"c": _disc(4, 4), "a": _disc(5, 6), "b": _disc(9, 13)}
    files = [_file(tmp_path / f"{n}.png", np.uint8(m) * 255) for n, m in discs.items()]
    entry = _entry("file_per_instance", {"nucleus": "nucleus"}, threshold=127)
    labels = read_labels(_case(tmp_path, *files), entry, RASTER)
    got = _masks(labels)
    for number, name in enumerate("abc", start=1):
        np.testing.assert_array_equal(got["nucleus", number, 1][0], discs[name])
    assert len(labels.layers) == 2  # a and b are apart, c overlaps a


def test_instance_ids(tmp_path):
    array = np.zeros((13, 17), np.uint16)
    array[1:4, 2:6], array[6:9, 2:6], array[10, 10] = 3, 900, 65535
    case = _case(tmp_path, _file(tmp_path / "m.tif", array))
    entry = _entry("instance_ids", {"*": "nucleus"}, ignore=["65535"])
    got = read_labels(case, entry, RASTER)
    masks = _masks(got)
    assert set(masks) == {("*", 3, 1), ("*", 900, 1)}
    np.testing.assert_array_equal(masks["*", 900, 1][0], array == 900)
    np.testing.assert_array_equal(got.ignore_ZYX[0], array == 65535)
    with pytest.raises(CatalogError, match="expected one label"):
        read_labels(case, _entry("instance_ids", {"a": "a", "b": "b"}), RASTER)


def test_rgb_colours(tmp_path):
    array = np.zeros((13, 17, 3), np.uint8)
    array[1:4, 2:6], array[6:9, 2:6], array[12] = (255, 0, 0), (0, 17, 255), (9, 9, 9)
    case = _case(tmp_path, _file(tmp_path / "m.png", array))
    labels = {"255,0,0": "a", "0, 17, 255": "b", "1,2,3": "c"}
    got = read_labels(case, _entry("rgb", labels, ignore=["9,9,9"]), RASTER)
    masks = _masks(got)
    assert set(masks) == {("255,0,0", None, 1), ("0, 17, 255", None, 1)}
    np.testing.assert_array_equal(masks["0, 17, 255", None, 1][0], array[..., 2] == 255)
    np.testing.assert_array_equal(got.ignore_ZYX[0], array[..., 0] == 9)
    with pytest.raises(ReadError, match=r"found 9,9,9; add"):
        read_labels(case, _entry("rgb", labels), RASTER)
    with pytest.raises(CatalogError, match="colours 'r,g,b'"):
        read_labels(case, _entry("rgb", {"300,0,0": "a"}), RASTER)


def test_dicom_seg_keys_are_label_or_number(tmp_path):
    axial = {"order": (0, 1, 2), "flips": (False, False, False)}
    slices = list(series(answer_image(), **axial))
    liver, other = answer_labels() == 1, np.roll(answer_labels() == 1, 1, axis=2)
    path = tmp_path / "seg" / "1-1.dcm"
    path.parent.mkdir()
    seg_dataset(slices, {"Liver": liver, "strange name": other}).save_as(path)
    case = _case(tmp_path, LabelFile(path=path.parent))
    got = _masks(read_labels(case, _entry("dicom_seg", {"Liver": "liver", "2": "x"}), LIKE))
    np.testing.assert_array_equal(got["Liver", None, 1], liver)
    np.testing.assert_array_equal(got["2", None, 1], other)
    with pytest.raises(ReadError, match="found 'strange name'"):
        read_labels(case, _entry("dicom_seg", {"Liver": "liver"}), LIKE)
    with pytest.raises(GeometryError, match="image with a position in space"):
        read_labels(case, _entry("dicom_seg", {"Liver": "liver"}), RASTER)


def test_rtstruct_through_the_door(tmp_path):
    folder = write_series(tmp_path / "ct", answer_image())
    rois = {"GTV": contours(answer_labels() == 5, answer_geometry()), "Iso": [], "Body": []}
    path = write_rtstruct(tmp_path / "rs.dcm", rois, frame="5.5")
    image = read_volume(folder)
    case = _case(tmp_path, LabelFile(path=path), image=folder)
    entry = _entry("rtstruct", {"GTV": "tumour"}, unlabelled_ok=["Iso", "Body"])
    got = read_labels(case, entry, image)
    np.testing.assert_array_equal(_masks(got)["GTV", None, 1], answer_labels() == 5)
    assert pair_on_grid(image, got, entry) is image
    assert "another frame of reference" in got.warnings[0]
    with pytest.raises(ReadError, match=r"rs.dcm: .*\(GTV\), found 'Body', 'Iso'"):
        read_labels(case, _entry("rtstruct", {"GTV": "tumour"}), image)


def test_label_files_of_a_case_share_a_grid(tmp_path):
    files = [
        _file(tmp_path / "a.png", np.uint8(_disc(5, 6)), structure="a"),
        _file(tmp_path / "b.png", np.zeros((13, 16), np.uint8), structure="b"),
    ]
    with pytest.raises(GeometryError, match=r"b.png: expected the grid of a.png, 1 x 13 x 17"):
        read_labels(_case(tmp_path, *files), _entry("file_per_class", {"a": "a", "b": "b"}), RASTER)


def test_a_case_without_labels_is_refused(tmp_path):
    with pytest.raises(ReadError, match="expected at least one label file"):
        read_labels(_case(tmp_path), _entry("index", {1: "a"}), LIKE)


def test_pairing_on_another_grid(tmp_path):
    file = _file(tmp_path / "l.nii", answer_labels())
    entry = _entry("index", {1: "liver", 5: "spleen"})
    labels = read_labels(_case(tmp_path, file), entry, LIKE)
    assert pair_on_grid(LIKE, labels, entry) is LIKE
    small = Volume(array=answer_image()[:7], geometry=_crop(7))
    with pytest.raises(GeometryError) as caught:
        pair_on_grid(small, labels, entry)
    assert "image 7 x 11 x 12 voxels" in str(caught.value)
    assert "labels 10 x 11 x 12 voxels" in str(caught.value)
    resampling = _entry("index", {1: "liver", 5: "spleen"}, grid="resample_image")
    got = pair_on_grid(small, labels, resampling)
    assert got.array.shape == SHAPE
    np.testing.assert_allclose(got.array[:7], answer_image()[:7], atol=1e-3)
    assert (got.array[7:] == answer_image()[:7].min()).all()
    with pytest.raises(GeometryError, match="1 x 13 x 17 pixels"):
        pair_on_grid(RASTER, labels, resampling.model_copy(update={"grid": "same"}))


def _crop(n):
    from sammed_data.types import Geometry

    return Geometry(affine_lps=answer_geometry().affine_lps, shape_zyx=(n, 11, 12))


def test_values_in_small_and_large_ranges():
    assert values_in(np.array([[[3, -5, 3]]], np.int16)) == [-5, 3]
    assert values_in(np.array([[[3, 10**9, 3]]])) == [3, 10**9]


def test_every_encoding_of_the_catalogue_has_a_function():
    from typing import get_args

    from sammed_data.catalog import Encoding

    assert set(ENCODINGS) == set(get_args(Encoding))


# Real files


def test_sample_jpeg_masks_are_binary_at_127(samples):
    for path in sorted((samples / "Kvasir-SEG/masks").glob("*.jpg")):
        case = _case(samples, LabelFile(path=path))
        got = read_labels(case, _entry("binary", {"1": "polyp"}, threshold=127), RASTER)
        share = got.layers[0].array_ZYX.mean()
        assert 0.005 < share < 0.7


def test_sample_class_files_pack_into_one_layer(samples):
    folder = next((samples / "totalsegmentator").rglob("example_seg_fast"))
    files = [
        LabelFile(path=p, structure=p.name.removesuffix(".nii.gz"))
        for p in sorted(folder.glob("*.nii.gz"))
    ]
    entry = _entry("file_per_class", {f.structure: f.structure for f in files})
    got = read_labels(_case(samples, *files), entry, LIKE)
    assert len(got.layers) == 1
    assert len(got.layers[0].names) == 117
    assert len(np.unique(got.layers[0].array_ZYX)) == 41
