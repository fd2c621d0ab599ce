"""Polygons in XML and text: Aperio, CVAT for images, DDTI, and points a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from sammed_data.readers.limits import check_size
from sammed_data.readers.outlines import (
    Picture,
    Ring,
    Shape,
    number,
    picture_of,
    ring_of,
    runs_of,
)
from sammed_data.readers.safe_text import json_of, parse_xml, read_text_bytes
from sammed_data.types import ReadError, nearest

_APERIO_AREAS = {"0": "freehand", "1": "rectangle"}
_APERIO_MARKS = {"3": "arrow", "4": "ruler", "5": "pin"}


def root_of(path: Path, *names: str) -> Element:
    """The parsed file; ReadError where its outermost element has another name."""
    root = parse_xml(path)
    if root.tag not in names:
        raise ReadError(
            f"{path}: expected <{names[0]}> as the outermost element, found <{root.tag}>; "
            f"{nearest(root.tag, names)} Check `format` of the entry's label_encoding"
        )
    return root


def aperio(path: Path, center: float) -> dict[str, Picture]:
    """Aperio ImageScope: the class is the group's name or the name of an attribute of the group.

    A region marked NegativeROA is a hole of the other regions of its group.
    """
    shapes: list[Shape] = []
    marks: Counter[str] = Counter()
    for group in root_of(path, "Annotations").iter("Annotation"):
        names = [group.get("Name", "")]
        for attribute in group.iterfind("Attributes/Attribute"):
            names += [attribute.get("Name", ""), attribute.get("Value", "")]
        named = tuple(dict.fromkeys(n.strip() for n in names if n.strip()))
        rings: list[Ring] = []
        holes: list[Ring] = []
        for region in group.iterfind("Regions/Region"):
            kind = region.get("Type", "0")
            if kind in _APERIO_MARKS:
                marks[_APERIO_MARKS[kind]] += 1
                continue
            if kind not in _APERIO_AREAS:
                raise ReadError(
                    f"{path}: expected regions drawn freehand or as rectangles, found Type "
                    f"{kind!r} (2 is an ellipse); draw it as a polygon"
                )
            ring = ring_of(
                path, ((v.get("X"), v.get("Y")) for v in region.iterfind("Vertices/Vertex")), center
            )
            (holes if region.get("NegativeROA", "0") == "1" else rings).append(ring)
        shapes += [Shape(names=named, rings=(r,), holes=tuple(holes)) for r in rings]
    return {"": picture_of(shapes, marks)}


def cvat(path: Path, center: float) -> dict[str, Picture]:
    """CVAT for images 1.1: one file for all images, found by their names."""
    root = root_of(path, "annotations")
    if root.find("track") is not None:
        raise ReadError(
            f"{path}: expected 'CVAT for images 1.1', found tracks of a video; export it again"
        )
    pictures: dict[str, Picture] = {}
    for image in root.iterfind("image"):
        name = image.get("name", "").replace("\\", "/")
        size = tuple(
            number(path, image.get(side), f"{side} of image {name!r}", low=1)
            for side in ("width", "height")
        )
        shapes: list[Shape] = []
        marks: Counter[str] = Counter()
        boxes = 0
        for item in image:
            label = (item.get("label", ""),)
            if item.tag == "polygon":
                points = (p.split(",") for p in item.get("points", "").split(";"))
                shapes.append(Shape(names=label, rings=(ring_of(path, points, center),)))
            elif item.tag == "mask":
                shapes.append(Shape(names=label, runs=_cvat_runs(path, item, size)))
            elif item.tag == "ellipse":
                raise ReadError(
                    f"{path}: expected polygons and masks, found an ellipse in image {name!r}; "
                    "convert it to a polygon"
                )
            elif item.tag == "box":
                boxes += 1
            else:
                marks[item.tag] += 1
        if name in pictures:
            raise ReadError(f"{path}: expected each image once, found {name!r} twice")
        pictures[name] = picture_of(shapes, marks, (size[0], size[1]), boxes)
    return pictures


def _cvat_runs(path: Path, item: Element, size_wh: tuple[int, ...]) -> tuple[int, ...]:
    """Run lengths along the rows of a box -> down the columns of the whole picture."""
    width, height = size_wh
    left, top, w, h = (
        number(path, item.get(k), f"{k} of a mask", high=max(size_wh))
        for k in ("left", "top", "width", "height")
    )
    runs = [number(path, r, "a run length") for r in item.get("rle", "").split(",") if r.strip()]
    if sum(runs) != w * h or left + w > width or top + h > height:
        raise ReadError(
            f"{path}: expected run lengths that fill a box of {w} x {h} inside {width} x {height} "
            f"pixels, found {sum(runs):,} from ({left}, {top}); export it again"
        )
    check_size(path, (height, width), 1)
    mask = np.zeros((height, width), bool)
    values = (np.arange(len(runs)) % 2).astype(bool)
    mask[top : top + h, left : left + w] = np.repeat(values, runs).reshape(h, w)
    return runs_of(mask)


def ddti(path: Path, center: float) -> dict[str, Picture]:
    """DDTI: <mark> elements of an <image> number and a JSON list of freehand outlines in <svg>."""
    found: dict[str, list[Shape]] = {}
    marks: dict[str, Counter[str]] = {}
    for mark in root_of(path, "case").iter("mark"):
        key = (mark.findtext("image") or "").strip()
        shapes = found.setdefault(key, [])
        text = (mark.findtext("svg") or "").strip()
        items = json_of(path, text) if text else []
        for item in items if isinstance(items, list) else [items]:
            points = item.get("points") if isinstance(item, dict) else None
            if not isinstance(points, list) or not all(isinstance(p, dict) for p in points):
                raise ReadError(
                    f"{path}: expected a list of outlines with points in <svg> of image {key!r}, "
                    "found another structure; fetch it again"
                )
            if item.get("regionType", "freehand") not in ("freehand", "polygon"):
                marks.setdefault(key, Counter())[str(item["regionType"])[:20]] += 1
                continue
            ring = ring_of(path, ((p.get("x"), p.get("y")) for p in points), center)
            shapes.append(Shape(names=("nodule",), rings=(ring,)))
    return {k: picture_of(s, marks.get(k, Counter())) for k, s in found.items()}


def points(path: Path, center: float) -> dict[str, Picture]:
    """One outline a file, 'x y' a line; the class is in the file's name."""
    try:
        lines = read_text_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as err:
        raise ReadError(f"{path}: expected lines 'x y', but {err}; fetch it again") from err
    pairs = [line.replace(",", " ").split() for line in lines if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        wrong = next(n for n, p in enumerate(pairs, start=1) if len(p) != 2)
        raise ReadError(f"{path}: expected lines 'x y', found another on line {wrong}; mend it")
    shape = Shape(names=(), rings=(ring_of(path, pairs, center),))
    return {"": picture_of([shape] if pairs else [], Counter())}


XML_FORMATS: dict[str, Callable[[Path, float], dict[str, Picture]]] = {
    "aperio": aperio,
    "cvat": cvat,
    "ddti": ddti,
    "points": points,
}
