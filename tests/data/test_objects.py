"""Encodings of objects and runs, with pixels worked out by hand on pictures of 4 x 6."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from sammed_data.catalog import CatalogEntry
from sammed_data.discover import discover
from sammed_data.encodings import pair_on_grid, read_labels
from sammed_data.encodings.run_lengths import decode
from sammed_data.entry_parts import RunLengths
from sammed_data.readers.registry import read_image
from sammed_data.tables import Line
from sammed_data.types import CatalogError, GeometryError, LabelVolume, ReadError

IMAGE = np.arange(24, dtype=np.uint8).reshape(4, 6)
IDS = np.array([
    [1, 1, 0, 0, 5, 5],
    [1, 0, 0, 0, 0, 5],
    [0, 0, 7, 7, 0, 0],
    [0, 0, 7, 7, 0, 9],
])  # fmt: skip


def _entry(kind, labels, *, images="i/{case}.png", masks="l/{case}.png", **keys) -> CatalogEntry:
    def rule(pattern, key):
        return [{"pattern": pattern, **keys.pop(key, {})}] if isinstance(pattern, str) else pattern

    return CatalogEntry.model_validate(
        {
            "id": "fake_set", "name": "Fake", "modality": "microscopy", "dims": "2D",
            "layout": {"images": rule(images, "image"), "labels": rule(masks, "label")},
            "grid": keys.pop("grid", "same"),
            "label_encoding": {"type": kind, **keys}, "labels": labels,
            "license": "CC0-1.0", "homepage": "https://example.org",
        }
    )  # fmt: skip


def _png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def _read(entry: CatalogEntry, root: Path, number: int = 0) -> LabelVolume:
    if not (root / "i").exists() and entry.layout.images[0].pattern == "i/{case}.png":
        _png(root / "i/a.png", IMAGE)
    found = discover(entry, root)
    assert found.problems == ()
    return read_labels(found.cases[number], entry, read_image(found.cases[number]))


def _objects(labels: LabelVolume) -> list[tuple[str, int, list[int]]]:
    """(raw label, area, first pixel) of every object, in reading order."""
    out = []
    for layer in labels.layers:
        for value, name in layer.names.items():
            mask = layer.array_ZYX[0] == value
            if mask.any():
                assert not layer.instances or value in layer.instances
                out.append((name, int(mask.sum()), np.argwhere(mask)[0].tolist()))
    return sorted(out, key=lambda o: o[2])


def _coloured(ids: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> np.ndarray:
    out = np.zeros((*ids.shape, 3), np.uint8)
    for value, colour in colours.items():
        out[ids == value] = colour
    return out


def test_a_colour_is_one_object_however_many_pieces(tmp_path):
    colours = {1: (9, 0, 0), 5: (0, 9, 0), 7: (0, 0, 9), 9: (0, 9, 0)}
    _png(tmp_path / "l/a.png", _coloured(IDS, colours))
    got = _read(_entry("rgb_instances", {"*": "tooth"}), tmp_path)
    assert _objects(got) == [("*", 3, [0, 0]), ("*", 4, [0, 4]), ("*", 4, [2, 2])]
    _png(tmp_path / "l/a.png", IDS * 0)
    assert _objects(_read(_entry("rgb_instances", {"*": "tooth"}), tmp_path)) == []
    _png(tmp_path / "l/a.png", IDS * 0 + 3)
    assert _objects(_read(_entry("rgb_instances", {"*": "tooth"}), tmp_path)) == [("*", 24, [0, 0])]


def test_a_connected_area_of_a_colour_is_one_object(tmp_path):
    picture = _coloured(IDS, {1: (2, 0, 0), 5: (2, 0, 0), 7: (2, 0, 0), 9: (7, 7, 7)})
    picture[1, 1] = (1, 0, 0)  # touches the first object, in another colour
    picture[3, 4] = (2, 0, 0)  # touches 7
    rgba = np.dstack([picture, np.full((4, 6), 255, np.uint8)])
    _png(tmp_path / "l/a.png", rgba)
    entry = _entry("instance_colors", {"*": "nucleus"}, ignore=["7,7,7"])
    got = _read(entry, tmp_path)
    assert _objects(got) == [
        ("*", 3, [0, 0]), ("*", 3, [0, 4]), ("*", 1, [1, 1]), ("*", 5, [2, 2]),
    ]  # fmt: skip
    assert np.argwhere(got.ignore_ZYX).tolist() == [[0, 3, 5]]


def test_ranges_of_ids_say_the_class(tmp_path):
    _png(tmp_path / "l/a.png", IDS)
    entry = _entry("instance_ids", {"1-4": "sacrum", "5-8": "hip_left"}, ignore=["9"])
    got = _read(entry, tmp_path)
    assert _objects(got) == [("1-4", 3, [0, 0]), ("5-8", 3, [0, 4]), ("5-8", 4, [2, 2])]
    assert got.layers[0].instances == {1: 1, 5: 5, 7: 7}
    assert int(got.ignore_ZYX.sum()) == 1
    with pytest.raises(ReadError, match=r"l/a.png: expected the raw labels .*found 9"):
        _read(_entry("instance_ids", {"1-4": "sacrum", "5-8": "hip_left"}), tmp_path)


def test_ranges_of_grey_values_are_one_class(tmp_path):
    _png(tmp_path / "l/a.png", IDS)
    entry = _entry("values", {"1-5": "liver", "7": "spleen"}, unlabelled_ok=["8-9"])
    got = _read(entry, tmp_path)
    assert got.layers[0].names == {1: "1-5", 7: "7"}
    assert _objects(got) == [("1-5", 6, [0, 0]), ("7", 4, [2, 2])]
    overlapping = _entry("values", {"1-9": "liver", "7": "spleen"})
    assert _objects(_read(overlapping, tmp_path)) == [("1-9", 7, [0, 0]), ("7", 4, [2, 2])]


def test_recomposed_organs_share_raw_values(tmp_path):
    _png(tmp_path / "l/a.png", IDS)
    entry = _entry(
        "index",
        {"brain": "brain", "lobe": "temporal_lobe_left", "9": "brainstem", "absent": "eye_left"},
        recompose={"brain": [1, 5, 7], "lobe": [5], "absent": [33]},
    )
    got = _read(entry, tmp_path)
    assert _objects(got) == [("brain", 10, [0, 0]), ("lobe", 3, [0, 4]), ("9", 1, [3, 5])]
    assert {n for layer in got.layers for n in layer.names.values()} == set(entry.labels)
    with pytest.raises(ReadError, match="found 9"):
        _read(_entry("index", {"brain": "brain"}, recompose={"brain": [1, 5, 7]}), tmp_path)
    with pytest.raises(ValueError, match="'brian' is not in labels; did you mean 'brain'"):
        _entry("index", {"brain": "brain"}, recompose={"brian": [1]})


def test_inner_values_are_parts_of_one_object(tmp_path):
    first = np.where(IDS == 1, 20, np.where(IDS == 5, 40, 0))
    _png(tmp_path / "l/a_1.png", first)
    _png(tmp_path / "l/a_2.png", np.where(IDS == 7, 23, np.where(IDS == 5, 40, 0)))
    labels = {"40": "plasma_cell_nucleus", "1-39": "plasma_cell_cytoplasm"}
    entry = _entry("file_per_instance", labels, masks="l/{case}_{instance}.png", inner_values=True)
    got = _read(entry, tmp_path)
    numbers = {
        (layer.names[v], layer.instances[v]): int((layer.array_ZYX == v).sum())
        for layer in got.layers
        for v in layer.names
    }
    assert numbers == {("40", 1): 3, ("1-39", 1): 3, ("40", 2): 3, ("1-39", 2): 4}
    _png(tmp_path / "l/a_2.png", IDS * 30)
    with pytest.raises(ReadError, match="a_2.png: .* found 150, 210;"):
        _read(entry, tmp_path)


def test_types_come_from_a_second_map(tmp_path):
    kinds = np.where(IDS > 0, 2, 0)
    kinds[0, 0] = 4  # one pixel of three: the object stays a 2
    kinds[IDS == 7] = 6
    (tmp_path / "l").mkdir()
    scipy.io.savemat(
        tmp_path / "l/a.mat", {"inst_map": IDS * 1.0, "type_map": kinds * 1.0, "x": "text"}
    )
    labels = {"2": "nucleus_inflammatory", "6": "nucleus_muscle"}
    names = {"instances": "inst_map", "types": "type_map"}
    entry = _entry("typed_instances", labels, masks="l/{case}.mat", variables=names)
    assert _objects(_read(entry, tmp_path)) == [
        ("2", 3, [0, 0]), ("2", 3, [0, 4]), ("6", 4, [2, 2]), ("2", 1, [3, 5]),
    ]  # fmt: skip
    quiet = _entry(
        "typed_instances", {"2": "nucleus_other"}, masks="l/{case}.mat", variables=names,
        unlabelled_ok=["6"],
    )  # fmt: skip
    assert [o[0] for o in _objects(_read(quiet, tmp_path))] == ["2", "2", "2"]
    strict = _entry(
        "typed_instances", {"2": "nucleus_other"}, masks="l/{case}.mat", variables=names
    )
    with pytest.raises(ReadError, match="found 6"):
        _read(strict, tmp_path)
    with pytest.raises(ValueError, match="needs `variables"):
        _entry("typed_instances", labels)


def test_channels_are_classes_and_may_overlap(tmp_path):
    array = np.zeros((2, 4, 6, 3))
    array[1, ..., 0] = IDS
    array[1, ..., 1][IDS == 7] = 3
    array[..., 2] = 1
    (tmp_path / "i").mkdir()
    np.save(tmp_path / "i/images.npy", np.stack([IMAGE, IMAGE + 100]))
    np.save(tmp_path / "masks.npy", array)
    keys = {
        "images": "i/images.npy", "masks": "masks.npy", "image": {"axes": "NYX"},
        "label": {"axes": "NYXC"},
    }  # fmt: skip
    labels = {"0": "nucleus_neoplastic", "1": "nucleus_dead"}
    entry = _entry("channel_instances", labels, unlabelled_ok=["2"], **keys)
    found = discover(entry, tmp_path)
    assert [c.case_id for c in found.cases] == ["i/images-00000", "i/images-00001"]
    image = read_image(found.cases[1])
    np.testing.assert_array_equal(image.array[0], IMAGE + 100)
    assert _objects(_read(entry, tmp_path, 0)) == []
    assert sorted(_objects(_read(entry, tmp_path, 1))) == [
        ("0", 1, [3, 5]), ("0", 3, [0, 0]), ("0", 3, [0, 4]), ("0", 4, [2, 2]), ("1", 4, [2, 2]),
    ]  # fmt: skip
    with pytest.raises(ReadError, match="found channel 2"):
        _read(_entry("channel_instances", labels, **keys), tmp_path)
    more = {**labels, "3": "nucleus_other"}
    with pytest.raises(ReadError, match="expected a channel 3"):
        _read(_entry("channel_instances", more, unlabelled_ok=["2"], **keys), tmp_path)


def _csv_entry(labels, **more):
    table = {
        "pattern": "info*.csv", "id": "{case}", "id_column": "public_id",
        "value_column": "label_id", "class_column": "code",
    }  # fmt: skip
    return _entry("instance_csv", labels, table=table, **more)


def test_the_class_of_an_object_stands_in_a_table(tmp_path):
    _png(tmp_path / "l/a.png", IDS)
    (tmp_path / "info_1.csv").write_text("public_id,label_id,code\na,0,0\na,1,2\na,5,-1\nb,7,4\n")
    (tmp_path / "info_2.csv").write_text("code, label_id ,public_id\n3,7,a\n3,9,a\n")
    labels = {"2": "rib_fracture_buckle", "3": "rib_fracture_segmental"}
    got = _read(_csv_entry(labels, ignore=["-1"]), tmp_path)
    assert _objects(got) == [("2", 3, [0, 0]), ("3", 4, [2, 2]), ("3", 1, [3, 5])]
    np.testing.assert_array_equal(got.ignore_ZYX[0], IDS == 5)
    with pytest.raises(ReadError, match=r"info_1.csv: expected the raw labels .* found -1"):
        _read(_csv_entry(labels), tmp_path)
    (tmp_path / "info_2.csv").write_text("code,label_id,public_id\n3,7,a\n")
    with pytest.raises(ReadError, match=r"l/a.png: expected objects that .* lists, found 9"):
        _read(_csv_entry(labels, ignore=["-1"]), tmp_path)
    (tmp_path / "info_2.csv").write_text("code,label_id,public_id\n3,seven,a\n")
    with pytest.raises(ReadError, match=r"info_2.csv, line 2: .* found 'seven'"):
        _read(_csv_entry(labels, ignore=["-1"]), tmp_path)
    (tmp_path / "info_2.csv").write_text("code,label,public_id\n3,7,a\n")
    with pytest.raises(ReadError, match=r"column 'label_id', found code, label, public_id"):
        _read(_csv_entry(labels), tmp_path)


def test_an_image_without_a_line_is_refused(tmp_path):
    _png(tmp_path / "l/a.png", IDS)
    (tmp_path / "info.csv").write_text("public_id,label_id,code\nA1,1,2\n")
    with pytest.raises(ReadError, match="a line of the image 'a' in the column 'public_id'"):
        _read(_csv_entry({"2": "rib_fracture_buckle"}), tmp_path)
    (tmp_path / "info.csv").unlink()
    with pytest.raises(ReadError, match=r"the table 'info\*.csv' below the dataset's root"):
        _read(_csv_entry({"2": "rib_fracture_buckle"}), tmp_path)


def test_the_class_of_an_image_stands_in_a_table(tmp_path):
    for name in "abc":
        _png(tmp_path / f"i/{name}.png", IMAGE)
        _png(tmp_path / f"l/{name}.png", (IDS == 7) * 255)
    (tmp_path / "train_cls.txt").write_text("a.JPG  3\nb.JPG\t5\n")
    (tmp_path / "val_cls.txt").write_text("c.JPG 8\n")
    table = {
        "pattern": "*_cls.txt", "separator": " ", "id": "{case}.JPG", "id_column": 0,
        "class_column": 1,
    }  # fmt: skip
    entry = _entry("binary", {"3": "ovarian_tumor"}, table=table, unlabelled_ok=["5"])
    assert _objects(_read(entry, tmp_path, 0)) == [("3", 4, [2, 2])]
    assert _objects(_read(entry, tmp_path, 1)) == []
    with pytest.raises(ReadError, match=r"train_cls.txt: expected the raw labels .* found 8"):
        _read(entry, tmp_path, 2)
    (tmp_path / "val_cls.txt").write_text("c.JPG 3\nc.JPG 5\n")
    with pytest.raises(ReadError, match=r"val_cls.txt, line 1: expected one class .* found 3, 5"):
        _read(entry, tmp_path, 2)


ROWS = RunLengths(order="row", offsets="absolute", first=1)
COLUMNS = RunLengths(order="column", offsets="relative", first=0)
LINE = Line(path=Path("train.csv"), number=12, cells=())


def test_absolute_runs_along_rows_count_from_one():
    # 4 x 6, row-major from 1: 6..8 = (0,5) (1,0) (1,1); 24 = (3,5)
    assert decode("6 3 24 1", ROWS, (4, 6), LINE).tolist() == [5, 6, 7, 23]
    assert decode("", ROWS, (4, 6), LINE).tolist() == []


def test_relative_runs_down_columns_count_from_zero():
    # 4 x 6, column-major from 0: 2..4 = (2,0) (3,0) (0,1); then 3 further on 8..9 = (0,2) (1,2)
    assert decode("2 3 3 2", COLUMNS, (4, 6), LINE).tolist() == [12, 18, 1, 2, 8]
    assert decode("-1", COLUMNS, (4, 6), LINE).tolist() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("6 3 24", "3 numbers"),
        ("6 three", "invalid literal.*'three'"),
        ("0 3", "a run of 3 from 0 in 4 x 6"),
        ("23 3", "a run of 3 from 23"),
        ("4 0", "runs of 0 pixels"),
        ("1 20 1 20", "runs of 40 pixels"),
        ("99999999999999999999999 1", "too large|too big"),
    ],
)
def test_malformed_runs_name_line_and_value(text, words):
    with pytest.raises(ReadError, match=rf"train.csv, line 12: .*{words}") as caught:
        decode(text, ROWS, (4, 6), LINE)
    assert repr(text) in str(caught.value)


def test_one_csv_serves_all_images(tmp_path):
    for name in ("case1_day2_slice_0001", "case1_day2_slice_0002"):
        _png(tmp_path / f"i/{name}.png", IMAGE)
    (tmp_path / "train.csv").write_text(
        "id,class,segmentation\n"
        "case1_day2_slice_0001,stomach,1 2\n"
        "case1_day2_slice_0001,large_bowel,\n"
        "case1_day2_slice_0002,stomach,3 1 9 2\n"
        "case1_day2_slice_0002,stomach,24 1\n"
    )
    table = {
        "pattern": "train.csv", "id": "case{case}_slice_{slice}", "id_column": "id",
        "class_column": "class", "rle_column": "segmentation",
    }  # fmt: skip
    entry = _entry(
        "rle_csv", {"stomach": "stomach", "large_bowel": "colon"},
        images="i/case{case}_slice_{slice}.png", masks="train.csv", table=table,
        runs={"order": "row"},
    )  # fmt: skip
    first, second = _read(entry, tmp_path, 0), _read(entry, tmp_path, 1)
    assert _objects(first) == [("stomach", 2, [0, 0])]
    assert set(first.layers[0].names.values()) == {"stomach", "large_bowel"}
    assert _objects(second) == [("stomach", 4, [0, 2])]
    (tmp_path / "train.csv").write_text(
        "id,class,segmentation\n"
        "case1_day2_slice_0001,liver,1 2\n"
        "case1_day2_slice_0002,stomach,1 x\n"
    )
    with pytest.raises(ReadError, match=r"train.csv: expected the raw labels .* found liver"):
        _read(entry, tmp_path, 0)
    with pytest.raises(ReadError, match=r"train.csv, line 3: .*'1 x'"):
        _read(entry, tmp_path, 1)
    with pytest.raises(ValueError, match="needs `table` with `rle_column`, and `runs`"):
        _entry("rle_csv", {"stomach": "stomach"}, table=table)


def test_both_halves_of_a_picture(tmp_path):
    label = _coloured(IDS, {1: (250, 3, 0), 5: (0, 255, 9), 7: (130, 0, 0), 9: (9, 9, 9)})
    _png(tmp_path / "both/a.png", np.concatenate([np.dstack([IMAGE] * 3), label], axis=1))
    keys = {"images": "both/{case}.png", "masks": "both/{case}.png"}
    entry = _entry(
        "rgb", {"255,0,0": "macular_hole", "0,255,0": "retina"}, round_colours=True,
        image={"half": "left"}, label={"half": "right"}, **keys,
    )  # fmt: skip
    assert _objects(_read(entry, tmp_path)) == [("255,0,0", 7, [0, 0]), ("0,255,0", 3, [0, 4])]
    case = discover(entry, tmp_path).cases[0]
    np.testing.assert_array_equal(read_image(case).array[0, ..., 0], IMAGE)
    _png(tmp_path / "both/a.png", np.zeros((4, 7, 3)))
    with pytest.raises(ReadError, match="7 columns, an odd number"):
        read_image(case)


def test_layers_lie_between_the_first_and_the_last_boundary(tmp_path):
    rows = np.full((3, 6, 2), np.nan)
    rows[:, 2, 1], rows[:, 3, 1] = [2, 3, 4], [1, 1.5, 1.6]  # MATLAB rows, from 1
    images = np.stack([IMAGE, IMAGE], axis=-1)
    scipy.io.savemat(tmp_path / "S1.mat", {"images": images, "layers": rows})
    entry = _entry(
        "file_per_class", {"layers": "retinal_layers"}, images="S{case}.mat", masks="S{case}.mat",
        image={"variable": "images", "axes": "YXZ"},
        label={"variable": "layers", "axes": "BXZ", "structure": "layers"},
    )  # fmt: skip
    got = _read(entry, tmp_path)
    assert np.argwhere(got.layers[0].array_ZYX).tolist() == [[1, 0, 3], [1, 1, 2], [1, 2, 2]]
    rows[:, 0, 0] = [3, 2, 1]
    scipy.io.savemat(tmp_path / "S1.mat", {"images": images, "layers": rows})
    with pytest.raises(ReadError, match="found 3 and 1 in slice 0, column 0"):
        _read(entry, tmp_path)
    scipy.io.savemat(tmp_path / "S1.mat", {"images": images, "layers": rows[:, :5]})
    with pytest.raises(GeometryError, match="2 slices and 6 columns"):
        _read(entry, tmp_path)


def test_pictures_of_one_shape_may_differ_in_size(tmp_path):
    raw = np.arange(96).reshape(8, 12)
    (tmp_path / "i").mkdir()
    (tmp_path / "i/a.IMG").write_bytes(raw.astype(">u2").tobytes())
    _png(tmp_path / "l/a.png", IDS == 7)
    spec = {"raw": {"rows": 8, "columns": 12, "dtype": ">uint16", "bits": 12}}
    keys = {"images": "i/{case}.IMG", "image": spec}
    entry = _entry("binary", {"1": "heart"}, grid="resize_image", **keys)
    case = discover(entry, tmp_path).cases[0]
    image = read_image(case)
    labels = read_labels(case, entry, image)
    assert image.bits == 12
    paired = pair_on_grid(image, labels, entry).array
    assert paired.shape == (1, 4, 6)
    assert paired[0, 0, 0] == 7  # the mean of 0, 1, 12 and 13 is 6.5
    with pytest.raises(GeometryError, match="on one grid"):
        pair_on_grid(image, labels, _entry("binary", {"1": "heart"}))
    _png(tmp_path / "l/a.png", np.zeros((4, 9)))
    with pytest.raises(GeometryError, match="one shape, scaled"):
        pair_on_grid(image, read_labels(case, entry, image), entry)
    dark = _entry(
        "binary", {"1": "heart"}, images="i/{case}.IMG",
        image={"raw": {**spec["raw"], "white_is_zero": True}},
    )  # fmt: skip
    inverted = read_image(discover(dark, tmp_path).cases[0]).array
    np.testing.assert_array_equal(inverted[0], 4095 - raw)
    (tmp_path / "i/a.IMG").write_bytes(bytes(190))
    with pytest.raises(ReadError, match=r"expected 192 bytes \(8 x 12 of >u2\), found 190"):
        read_image(case)
    (tmp_path / "i/a.IMG").write_bytes(raw.astype("<u2").tobytes())
    with pytest.raises(ReadError, match=r"values up to 4095 \(12 bits\)"):
        read_image(case)


def test_frames_are_named_in_a_table(tmp_path):
    import nibabel as nib

    image = np.arange(6 * 4 * 2 * 5).reshape(6, 4, 2, 5).astype(np.int16)
    label = np.zeros((6, 4, 2, 5), np.uint8)
    label[1, 2, 1, 3], label[4, 0, 0, 0] = 1, 1
    affine = np.diag([-0.5, -0.75, 2.5, 1])
    for name, array in (("A1/A1_sa.nii.gz", image), ("A1/A1_sa_gt.nii.gz", label)):
        (tmp_path / "A1").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), tmp_path / name)
    (tmp_path / "info.csv").write_text("External code,ES,ED\nA1,0,3\n")
    frames = {
        "pattern": "*.csv", "id": "{case}", "id_column": "External code",
        "frame_columns": ["ED", "ES"],
    }  # fmt: skip
    entry = _entry(
        "index", {"1": "heart_ventricle_left"}, images="{case}/{case}_sa.nii.gz",
        masks="{case}/{case}_sa_gt.nii.gz", image={"frames": frames}, label={"channel": "image"},
    )  # fmt: skip
    found = discover(entry, tmp_path)
    assert [(c.case_id, c.channel) for c in found.cases] == [("A1-ED", 3), ("A1-ES", 0)]
    assert [c.tables for c in found.cases] == [(tmp_path / "info.csv",)] * 2
    for case, place in zip(found.cases, ([1, 2, 1], [0, 0, 4]), strict=True):
        volume = read_image(case)
        np.testing.assert_array_equal(volume.array, image[..., case.channel].transpose(2, 1, 0))
        labels = read_labels(case, entry, volume)
        assert np.argwhere(labels.layers[0].array_ZYX).tolist() == [place]
    (tmp_path / "info.csv").write_text("External code,ES,ED\nA1,last,3\n")
    problems = discover(entry, tmp_path).problems
    assert [p.rule for p in problems] == ["unreadable"]
    assert "info.csv, line 2: expected frame numbers from 0, found 'last' in 'ES'" in (
        problems[0].reason
    )


def test_a_listing_from_afar_counts_an_array_as_one_image(tmp_path):
    entry = _entry(
        "binary", {"1": "nucleus"}, images="i/images.npy", masks="masks.npy",
        image={"axes": "NYX"}, label={"axes": "NYX"},
    )  # fmt: skip
    listing = [("i/images.npy", False), ("masks.npy", False)]
    found = discover(entry, tmp_path / "nowhere", listing)
    assert found.problems == ()
    assert [c.case_id for c in found.cases] == ["i/images"]


def test_an_array_that_cannot_be_opened_is_one_rejection(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "i/images.npy").write_bytes(b"nothing")
    np.save(tmp_path / "masks.npy", np.zeros((2, 4, 6)))
    entry = _entry(
        "binary", {"1": "nucleus"}, images="i/images.npy", masks="masks.npy",
        image={"axes": "NYX"}, label={"axes": "NYX"},
    )  # fmt: skip
    found = discover(entry, tmp_path)
    assert found.cases == ()
    assert [(p.rule, p.case_id) for p in found.problems] == [("unreadable", "i/images.npy")]
    assert str(tmp_path) not in found.problems[0].reason


def test_series_and_array_go_by_instance_number(tmp_path):
    from tests import fake_files

    volume = np.random.default_rng(1).integers(0, 900, (3, 4, 6)).astype(np.int16)
    fake_files.write_series(tmp_path / "CT/PAT001", volume)
    mask = np.zeros((4, 6, 3))
    mask[1, 5, 2] = 1
    (tmp_path / "GT").mkdir()
    scipy.io.savemat(tmp_path / "GT/PAT001.mat", {"Mask": mask})
    entry = _entry(
        "binary", {"1": "pulmonary_embolism"}, images="CT/{case}/", masks="GT/{case}.mat",
        label={"axes": "YXZ"},
    )  # fmt: skip
    labels = _read(entry, tmp_path)
    image = read_image(discover(entry, tmp_path).cases[0])
    assert pair_on_grid(image, labels, entry) is image
    assert np.argwhere(labels.layers[0].array_ZYX).tolist() == [[2, 1, 5]]
    scipy.io.savemat(tmp_path / "GT/PAT001.mat", {"Mask": np.zeros((4, 6, 2))})
    with pytest.raises(GeometryError, match="expected 3 slices, as many as PAT001 has, found 2"):
        _read(entry, tmp_path)


def test_keys_that_are_no_numbers_are_refused(tmp_path):
    _png(tmp_path / "l/a.png", IDS)
    with pytest.raises(CatalogError, match="found '1-x'"):
        _read(_entry("values", {"1-x": "liver"}), tmp_path)


def test_values_are_found_however_the_map_lies_in_memory():
    from sammed_data.raw_labels import values_in

    stored = np.zeros((2, 6, 8, 4), np.int8)
    stored[1, 2, 3] = (-3, 5, 7, 9)
    stored[0, 0, 0, 1] = 100
    for array in (stored[..., 1], stored[..., 1][:, ::-1, ::-1], stored[:, :3, :5, 2]):
        assert values_in(array) == np.unique(array).tolist()
    assert values_in(stored) == np.unique(stored).tolist()
    assert values_in(stored[:0]) == []
