"""Polygon formats: pixels computed by hand, mistakes as sentences, hostile files."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest

from sammed_data.catalog import CatalogEntry
from sammed_data.encodings import polygons, read_labels
from sammed_data.readers import outlines, safe_text
from sammed_data.readers.outlines import Shape, fill, runs_of
from sammed_data.readers.outlines_json import unpack_counts
from sammed_data.types import (
    Case,
    CatalogError,
    GeometryError,
    LabelFile,
    ReadError,
    SammedError,
    Volume,
)
from tests import fake_polygons

HEIGHT, WIDTH = 7, 9
HERE = Path("x")


def _entry(form: str, labels: dict, **encoding) -> CatalogEntry:
    return CatalogEntry(
        id="mine", name="Mine", modality="ultrasound", dims="2D", license="CC0-1.0",
        homepage="https://example.org", labels=labels,
        layout={"images": [{"pattern": "{n}_{k}.png"}], "labels": [{"pattern": "{n}.xml"}]},
        label_encoding={"type": "polygons", "format": form, **encoding},
    )  # fmt: skip


def _read(path: Path, entry: CatalogEntry, image: str = "a_2.png", structure: str | None = None):
    case = Case(
        dataset="mine", case_id="1", patient_key=None, image_path=path.parent / image,
        labels=(LabelFile(path=path, structure=structure),), root=path.parent,
        fields={"n": "a", "k": "2"},
    )  # fmt: skip
    like = Volume(array=np.zeros((1, HEIGHT, WIDTH), np.uint8))
    polygons._parse.cache_clear()
    return read_labels(case, entry, like)


def _pixels(labels, name: str) -> set[tuple[int, int]]:
    """(x, y) of every pixel of a raw label."""
    found = set()
    for layer in labels.layers:
        values = [v for v, n in layer.names.items() if n == name]
        ys, xs = np.nonzero(np.isin(layer.array_ZYX[0], values))
        found |= {(int(x), int(y)) for x, y in zip(xs, ys, strict=True)}
    return found


def _square(x0: int, y0: int, x1: int, y1: int) -> set[tuple[int, int]]:
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


def _aperio(path: Path, *groups: tuple[str, list]) -> Path:
    text = ""
    for name, regions in groups:
        drawn = "".join(
            f'<Region Type="{kind}" NegativeROA="{hole}"><Vertices>'
            + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in points)
            + "</Vertices></Region>"
            for kind, hole, points in regions
        )
        text += (
            f'<Annotation Name=""><Attributes><Attribute Name="{name}" Value=""/></Attributes>'
            f"<Regions>{drawn}</Regions></Annotation>"
        )
    path.write_text(f"<?xml version='1.0'?><Annotations>{text}</Annotations>")
    return path


TRIANGLE = [(0.5, 0.5), (4.5, 0.5), (0.5, 4.5)]  # centres with x, y >= 1 and x + y < 5


def test_aperio_classes_holes_objects_and_ignored_regions(tmp_path):
    path = _aperio(
        tmp_path / "a.xml",
        (
            "Epithelial",
            [(0, 0, TRIANGLE), (0, 1, [(0.6, 0.6), (1.4, 0.6), (1.4, 1.4), (0.6, 1.4)])],
        ),
        ("Ambiguous", [(0, 0, [(5.5, 2.5), (7.5, 2.5), (7.5, 4.5), (5.5, 4.5)])]),
        (
            "Lymphocyte",
            [(1, 0, [(3.5, 4.5), (6.5, 4.5), (6.5, 6.5), (3.5, 6.5)]), (4, 0, [(1, 1)])],
        ),
    )
    entry = _entry("aperio", {"Epithelial": "a", "Lymphocyte": "b"}, ignore=["Ambiguous"])
    labels = _read(path, entry)
    triangle = {(x, y) for x in range(1, 5) for y in range(1, 5) if x + y < 5}
    assert _pixels(labels, "Epithelial") == triangle - {(1, 1)}
    assert _pixels(labels, "Lymphocyte") == _square(4, 5, 7, 7)
    ys, xs = np.nonzero(labels.ignore_ZYX[0])
    assert set(zip(xs.tolist(), ys.tolist(), strict=True)) == _square(6, 3, 8, 5)
    assert labels.without_area == {"ruler": 1}
    assert sorted(i for layer in labels.layers for i in layer.instances.values()) == [1, 2]


def test_objects_may_overlap_and_stay_two(tmp_path):
    box = [(0.5, 0.5), (3.5, 0.5), (3.5, 3.5), (0.5, 3.5)]
    path = _aperio(tmp_path / "a.xml", ("n", [(0, 0, box), (0, 0, [(x + 1, y) for x, y in box])]))
    labels = _read(path, _entry("aperio", {"*": "nucleus"}))
    assert [int((layer.array_ZYX > 0).sum()) for layer in labels.layers] == [9, 9]


def test_an_unknown_class_names_its_neighbour(tmp_path):
    path = _aperio(tmp_path / "a.xml", ("Epithelail", [(0, 0, TRIANGLE)]))
    with pytest.raises(ReadError, match=r"a.xml.*'Epithelail' \(did you mean 'Epithelial'\?\)"):
        _read(path, _entry("aperio", {"Epithelial": "a"}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<Annotations><Annotation>", "expected whole XML"),
        ("<case/>", "expected <Annotations> as the outermost element, found <case>"),
        ("", "empty file"),
        ("\0\1\2", "expected whole XML"),
        ("<a>" * 200 + "</a>" * 200, "at most 100 levels"),
    ],
)
def test_damaged_xml_is_a_sentence(tmp_path, text, words):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(ReadError, match=words):
        _read(path, _entry("aperio", {"*": "nucleus"}))


def test_entities_are_refused_before_they_are_defined(tmp_path):
    levels = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10))
    laughs = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "lol">{levels}]><a>&l9;</a>'
    outside = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><Annotations>&x;</Annotations>'
    for text in (laughs, outside):
        path = tmp_path / "a.xml"
        path.write_text(text)
        with pytest.raises(ReadError, match="found <!DOCTYPE>"):
            _read(path, _entry("aperio", {"*": "nucleus"}))


def test_a_text_above_the_limit_is_not_read(tmp_path, monkeypatch):
    path = _aperio(tmp_path / "a.xml", ("n", [(0, 0, TRIANGLE)]))
    monkeypatch.setattr(safe_text, "MAX_TEXT_BYTES", 50)
    with pytest.raises(ReadError, match="expected at most 50 bytes of annotation, found 293"):
        _read(path, _entry("aperio", {"*": "nucleus"}))


@pytest.mark.parametrize("value", ["nan", "inf", "1e300", "x", ""])
def test_points_are_numbers_of_a_sane_size(tmp_path, value):
    path = _aperio(tmp_path / "a.xml", ("n", [(0, 0, [*TRIANGLE, (value, 1)])]))
    with pytest.raises(ReadError, match="expected points"):
        _read(path, _entry("aperio", {"*": "nucleus"}))


def test_what_lies_outside_is_cut_off_and_crossings_are_even_odd(tmp_path):
    ring = np.array([(-50.0, -50), (2.5, -50), (2.5, 1.5), (-50, 1.5)])
    inside = fill(HERE, Shape(names=(), rings=(ring,)), (HEIGHT, WIDTH))
    assert inside.tolist() == [0, 1, 2, 9, 10, 11]
    away = ring + 100
    assert fill(HERE, Shape(names=(), rings=(away,)), (HEIGHT, WIDTH)).size == 0
    # One line around two squares that share (2, 2) .. (3, 3): the shared pixel is outside.
    twice = np.array(
        [(0.5, 0.5), (3.5, 0.5), (3.5, 3.5), (1.5, 3.5), (1.5, 1.5), (5.5, 1.5), (5.5, 2.5),
         (0.5, 2.5)]
    )  # fmt: skip
    got = fill(HERE, Shape(names=(), rings=(twice,)), (HEIGHT, WIDTH))
    from skimage.measure import points_in_poly

    grid = np.array([(x, y) for y in range(HEIGHT) for x in range(WIDTH)])
    assert got.tolist() == np.flatnonzero(points_in_poly(grid, twice)).tolist()
    assert 2 * WIDTH + 2 not in got


def test_a_zigzag_of_millions_of_crossings_is_refused(monkeypatch):
    monkeypatch.setattr(outlines, "_MAX_CROSSINGS", 1000)
    ring = np.array([(float(k % 7), float(6 * (k % 2))) for k in range(500)])
    with pytest.raises(ReadError, match="crosses the rows of the image more than 1,000 times"):
        fill(HERE, Shape(names=(), rings=(ring,)), (HEIGHT, WIDTH))


def test_points_a_line_take_their_class_from_the_file_name(tmp_path):
    path = tmp_path / "cup.txt"
    path.write_text("0.5 0.5\n\n4.5, 0.5\r\n0.5\t4.5\n")
    entry = _entry("points", {"cup": "optic_cup", "disc": "optic_disc"})
    assert len(_pixels(_read(path, entry, structure="cup"), "cup")) == 6
    path.write_text("1 2\n3 4 5\n")
    with pytest.raises(ReadError, match="found another on line 2"):
        _read(path, entry, structure="cup")
    path.write_text("1 2\n3 4\n")
    assert _read(path, entry, structure="cup").without_area == {
        "outline of fewer than three points": 1
    }


def _ddti(path: Path, *marks: tuple[str, str]) -> Path:
    text = "".join(f"<mark><image>{k}</image><svg>{svg}</svg></mark>" for k, svg in marks)
    path.write_text(f"<case><number>1</number><age>44</age>{text}</case>")
    return path


def test_ddti_marks_name_their_image(tmp_path):
    points = json.dumps([{"points": [{"x": x, "y": y} for x, y in TRIANGLE], "annotation": {},
                          "regionType": "freehand"}])  # fmt: skip
    path = _ddti(tmp_path / "a.xml", ("1", "[]"), ("2", points))
    entry = _entry("ddti", {"*": "thyroid_nodule"}, image_name="{k}")
    assert len(_pixels(_read(path, entry), "*")) == 6
    _ddti(path, ("1", points), ("2", ""))
    assert _pixels(_read(path, entry), "*") == set()
    _ddti(path, ("1", points))
    with pytest.raises(ReadError, match="expected the image '2' in a.xml, found 1 others"):
        _read(path, entry)
    for wrong in ("[1]", '[{"points": 3}]', '{"a": 1}', "[" * 100_000, "[{"):
        _ddti(path, ("2", wrong))
        with pytest.raises(ReadError, match="a.xml: expected"):
            _read(path, entry)


def test_an_image_name_of_unknown_fields_is_a_catalogue_error(tmp_path):
    path = _ddti(tmp_path / "a.xml", ("2", "[]"))
    with pytest.raises(CatalogError, match="expected fields of the image pattern"):
        _read(path, _entry("ddti", {"*": "thyroid_nodule"}, image_name="{no}"))


def _labelme(path: Path, *shapes: dict, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    data = {"version": "5.4.1", "imagePath": "..\\a_2.png", "imageData": "x" * 99,
            "imageWidth": size[0], "imageHeight": size[1], "shapes": list(shapes)}  # fmt: skip
    path.write_text(json.dumps(data))
    return path


def _drawn(label: str, *points, kind: str = "polygon", **more) -> dict:
    return {"label": label, "points": list(points), "shape_type": kind, **more}


BOX = ((1, 1), (4, 1), (4, 3), (1, 3))


def test_labelme_counts_from_the_corner_and_joins_groups(tmp_path):
    other = ((6, 4), (8, 4), (8, 6), (6, 6))
    path = _labelme(
        tmp_path / "a.json",
        _drawn("liver", *BOX, group_id=5),
        _drawn("liver", *other, group_id=5),
        _drawn("liver", (2, 2), kind="point"),
    )
    labels = _read(path, _entry("labelme", {"liver": "liver"}))
    assert _pixels(labels, "liver") == _square(1, 1, 4, 3) | _square(6, 4, 8, 6)
    assert [dict(layer.instances) for layer in labels.layers] == [{1: 1}]
    assert labels.without_area == {"point": 1}
    shifted = _read(path, _entry("labelme", {"liver": "liver"}, pixel_center=0))
    assert (1, 1) in _pixels(shifted, "liver")  # a centre on the edge: lower edges belong


def test_labelme_circles_and_masks(tmp_path):
    from PIL import Image

    stream = io.BytesIO()
    inner = np.array([[1, 0, 1], [0, 1, 1]], np.uint8) * 255
    Image.fromarray(inner).save(stream, format="PNG")
    mask = base64.b64encode(stream.getvalue()).decode()
    path = _labelme(
        tmp_path / "a.json",
        _drawn("ring", (4.5, 3.5), (4.5, 4.8), kind="circle"),
        _drawn("mask", (6, 4), (8, 5), kind="mask", mask=mask),
    )
    labels = _read(path, _entry("labelme", {"ring": "a", "mask": "b"}))
    assert _pixels(labels, "ring") == {(4, 3), (3, 3), (5, 3), (4, 2), (4, 4)}
    assert _pixels(labels, "mask") == {(6, 4), (8, 4), (7, 5), (8, 5)}


def test_json_of_another_image_is_refused(tmp_path):
    path = _labelme(tmp_path / "a.json", _drawn("liver", *BOX), size=(HEIGHT, WIDTH))
    with pytest.raises(GeometryError, match="on an image of 9 x 7 pixels, the file states 7 x 9"):
        _read(path, _entry("labelme", {"liver": "liver"}))


def test_boxes_are_no_masks(tmp_path):
    path = _labelme(tmp_path / "a.json", _drawn("liver", (1, 1), (3, 3), kind="rectangle"))
    with pytest.raises(ReadError, match="found 1 objects with only a box"):
        _read(path, _entry("labelme", {"liver": "liver"}))


def _coco(path: Path, *annotations: dict, images: list[dict] | None = None) -> Path:
    listed = images or [
        {"id": 3, "file_name": "set/a_2.png", "width": WIDTH, "height": HEIGHT},
        {"id": 4, "file_name": "set/b_2.png", "width": 50, "height": 40},
    ]
    notes = [{"id": k, "image_id": 3, "category_id": 1, **a} for k, a in enumerate(annotations)]
    names = [{"id": 1, "name": "polyp"}, {"id": 2, "name": "tool"}]
    path.write_text(json.dumps({"images": listed, "annotations": notes, "categories": names}))
    return path


COCO = {"polyp": "polyp", "2": "instrument"}


def test_coco_polygons_plain_and_packed_runs(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:6, 3:5] = True
    path = _coco(
        tmp_path / "a.json",
        {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3], [6, 4, 8, 4, 8, 6, 6, 6]]},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": list(runs_of(mask))}, "iscrowd": 1,
         "category_id": 2},
        # eye(7, 9) as pycocotools 2.0 packs it
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "017000000000007"}, "category_id": 2},
        {"segmentation": [[1, 1, 2, 2]]},
    )  # fmt: skip
    labels = _read(path, _entry("coco", COCO))
    assert _pixels(labels, "polyp") == _square(1, 1, 4, 3) | _square(6, 4, 8, 6)
    assert _pixels(labels, "2") == _square(3, 2, 5, 6) | {(k, k) for k in range(7)}
    assert labels.without_area == {"outline of fewer than three points": 1}


def test_packed_runs_equal_those_of_pycocotools():
    """A 20 x 30 box in 40 x 60, packed by pycocotools 2.0."""
    mask = np.zeros((40, 60), bool)
    mask[5:25, 10:40] = True
    assert unpack_counts(HERE, "e<d0d0" + "0" * 57 + "kh0") == runs_of(mask)
    for wrong in ("e<d", "!!", "oooooooooooo", "0O"):
        with pytest.raises(ReadError, match="packed run lengths"):
            unpack_counts(HERE, wrong)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"bbox": [1, 1, 3, 3]}, "found 1 objects with only a box"),
        ({"bbox": [1, 1, 3, 3], "segmentation": []}, "found 1 objects with only a box"),
        ({"segmentation": [[1, 1, 2]]}, "found an odd one"),
        ({"segmentation": [[1, 1, 2, None, 3, 3]]}, "found nan"),
        ({"segmentation": {"size": [9, 7], "counts": [63]}}, "found a size of 7 x 9"),
        ({"segmentation": {"size": [7, 9], "counts": [5, 5]}}, "add up to 9 x 7 pixels, found 10"),
        ({"segmentation": {"size": [7, 9], "counts": [5, -5]}}, "as a run length, found -5"),
        ({"segmentation": {"size": [7, 9], "counts": [10**30]}}, "as a run length"),
        ({"segmentation": {"counts": 3}}, "expected a segmentation of polygons"),
        ({"segmentation": [[1, 1, 2, 2, 3, 1]], "category_id": 9}, "one of category 9"),
        ({"segmentation": [[1, 1, 2, 2, 3, 1]], "image_id": 9}, "one of image 9"),
        ({"segmentation": [[1, 1, 2, 2, 3, 1]], "category_id": 2.5}, "as category_id"),
    ],
)
def test_coco_mistakes(tmp_path, annotation, words):
    with pytest.raises(ReadError, match=words):
        _read(_coco(tmp_path / "a.json", annotation), _entry("coco", COCO))


def test_coco_images_are_found_by_the_longest_common_path(tmp_path):
    drawn = {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}
    size = {"width": WIDTH, "height": HEIGHT}
    images = [{"id": 3, "file_name": "left/a_2.png", **size},
              {"id": 4, "file_name": "right/a_2.png", **size}]  # fmt: skip
    path = _coco(tmp_path / "a.json", drawn, images=images)
    (tmp_path / "left").mkdir()
    entry = _entry("coco", COCO)
    assert len(_pixels(_read(path, entry, "left/a_2.png"), "polyp")) == 6
    assert _pixels(_read(path, entry, "right/a_2.png"), "polyp") == set()
    with pytest.raises(ReadError, match="found 'left/a_2.png' and 'right/a_2.png'"):
        _read(path, entry)
    with pytest.raises(ReadError, match=r"expected the image 'a_7.png'.*did you mean"):
        _read(path, entry, "a_7.png")


def test_one_json_for_all_images_is_parsed_once(tmp_path, monkeypatch):
    path = _coco(tmp_path / "a.json", {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]})
    calls = []
    reader = polygons._FORMATS["coco"]
    monkeypatch.setitem(polygons._FORMATS, "coco", lambda *a: calls.append(1) or reader(*a))
    entry = _entry("coco", COCO)
    polygons._parse.cache_clear()
    for _ in range(3):
        polygons._parsed(path, entry)
    assert len(calls) == 1
    _coco(path)
    polygons._parsed(path, entry)
    assert len(calls) == 2


def _cvat(path: Path, inner: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.write_text(
        "<annotations><version>1.1</version><meta/>"
        f'<image id="0" name="a_2.png" width="{size[0]}" height="{size[1]}">{inner}</image>'
        "</annotations>"
    )
    return path


def test_cvat_polygons_and_masks(tmp_path):
    path = _cvat(
        tmp_path / "a.xml",
        '<polygon label="polyp" points="1.00,1.00;4.00,1.00;4.00,3.00;1.00,3.00" z_order="0"/>'
        '<mask label="2" rle="1, 2, 3" left="6" top="4" width="3" height="2"/>'
        '<points label="polyp" points="1,1"/><tag label="polyp"/>',
    )
    labels = _read(path, _entry("cvat", COCO))
    assert _pixels(labels, "polyp") == _square(1, 1, 4, 3)
    assert _pixels(labels, "2") == {(7, 4), (8, 4)}
    assert labels.without_area == {"points": 1, "tag": 1}


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ('<box label="polyp" xtl="1" ytl="1" xbr="3" ybr="3"/>', "with only a box"),
        ('<ellipse label="polyp" cx="1" cy="1" rx="3" ry="3"/>', "found an ellipse"),
        ('<mask label="2" rle="1,2" left="6" top="4" width="3" height="2"/>', "found 3 from"),
        ('<mask label="2" rle="1,2,3" left="8" top="4" width="3" height="2"/>', "inside 9 x 7"),
        (
            '<mask label="2" rle="1,2,3" left="x" top="4" width="3" height="2"/>',
            "as left of a mask",
        ),
        ('<polygon label="polyp" points="1;2"/>', "expected points of two numbers"),
        ('<polygon label="cat" points="1,1;3,1;3,3"/>', "found 'cat'"),
    ],
)
def test_cvat_mistakes(tmp_path, inner, words):
    with pytest.raises(ReadError, match=words):
        _read(_cvat(tmp_path / "a.xml", inner), _entry("cvat", COCO))


def test_cvat_of_a_video_and_of_another_size(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<annotations><track/></annotations>")
    with pytest.raises(ReadError, match="found tracks of a video"):
        _read(path, _entry("cvat", COCO))
    with pytest.raises(GeometryError, match="states 90 x 7"):
        _read(_cvat(path, "", (90, 7)), _entry("cvat", COCO))


def test_a_format_is_needed_and_only_here():
    with pytest.raises(ValueError, match="the encoding polygons, and no other, needs `format`"):
        _entry("coco", {"1": "liver"}, type="binary")


def test_a_volume_has_no_outlines(tmp_path):
    path = _labelme(tmp_path / "a.json", _drawn("liver", *BOX))
    case = Case(dataset="mine", case_id="1", patient_key=None, image_path=tmp_path / "a.nii",
                labels=(LabelFile(path=path),), root=tmp_path)  # fmt: skip
    with pytest.raises(GeometryError, match="found 4 slices"):
        read_labels(
            case, _entry("labelme", {"liver": "a"}), Volume(array=np.zeros((4, 7, 9), np.uint8))
        )


@pytest.mark.parametrize("form", sorted(polygons._FORMATS))
def test_damaged_files_are_sentences(tmp_path, form):
    """Bytes changed, cut out and put in, by a fixed seed: pixels or a SammedError, no other."""
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    mask[0, 1:3, 1:4] = True
    good = tmp_path / "good"
    fake_polygons.write_polygons(form, good, tmp_path / "a.png", {"n": mask}, "1")
    source, path = good.read_bytes(), tmp_path / "bad"
    random = np.random.default_rng(7)
    pieces = (b"9" * 30, b"-1", b"null", b"1e999", b"[", b"{}", b"<a>", b'"', b"\0\0")
    read = 0
    for _ in range(60):
        data = bytearray(source)
        for _ in range(int(random.integers(1, 4))):
            at = int(random.integers(len(data)))
            kind = int(random.integers(3))
            if kind == 0:
                data[at] = int(random.integers(256))
            elif kind == 1:
                del data[at : at + int(random.integers(1, 20))]
            else:
                data[at:at] = pieces[int(random.integers(len(pieces)))]
        path.write_bytes(data)
        try:
            pictures = polygons._FORMATS[form](path, 0.0)
            for shape in (s for p in pictures.values() for s in p.shapes):
                assert fill(path, shape, (HEIGHT, WIDTH)).size <= HEIGHT * WIDTH
            read += 1
        except SammedError:
            continue
    assert read < 60
