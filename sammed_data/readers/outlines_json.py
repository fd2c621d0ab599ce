"""Polygons in JSON: LabelMe (a file an image) and COCO (one file for all images)."""

from __future__ import annotations

import base64
import binascii
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

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
from sammed_data.readers.safe_text import parse_json
from sammed_data.types import ReadError

_CIRCLE_POINTS = 256
_POINTLESS = ("point", "points", "line", "linestrip")


def _part(path: Path, owner: Any, key: str, kind: type) -> Any:
    """A value of a mapping; ReadError where it is missing or of another kind."""
    value = owner.get(key) if isinstance(owner, Mapping) else None
    if not isinstance(value, kind):
        raise ReadError(
            f"{path}: expected {key!r} as a {kind.__name__}, found {type(value).__name__}; check "
            "`format` of the entry's label_encoding"
        )
    return value


def labelme(path: Path, center: float) -> dict[str, Picture]:
    """LabelMe: shapes of one image; those of one label and group are one object."""
    data = parse_json(path)
    size_wh = _claimed(path, data, "imageWidth", "imageHeight")
    groups: dict[tuple[str, Any], list[Shape]] = {}
    marks: Counter[str] = Counter()
    boxes = 0
    for position, item in enumerate(_part(path, data, "shapes", list)):
        label = _part(path, item, "label", str)
        kind = str(item.get("shape_type") or "polygon")
        group = item.get("group_id")
        key = (label, f"shape {position}" if group is None else f"group {group}")
        if kind == "rectangle":
            boxes += 1
        elif kind in _POINTLESS:
            marks[kind] += 1
        else:
            groups.setdefault(key, []).append(
                _labelme_shape(path, item, kind, label, size_wh, center)
            )
    shapes = [s for members in groups.values() for s in _joined(members)]
    return {"": picture_of(shapes, marks, size_wh, boxes)}


def _joined(members: list[Shape]) -> Iterator[Shape]:
    """Outlines of one group as one shape; masks stay by themselves."""
    rings = tuple(r for s in members for r in s.rings)
    if rings:
        yield Shape(names=members[0].names, rings=rings)
    yield from (s for s in members if s.runs is not None)


def _labelme_shape(
    path: Path, item: Any, kind: str, label: str, size_wh: tuple[int, int] | None, center: float
) -> Shape:
    points = ring_of(path, _part(path, item, "points", list), center)
    if kind == "polygon":
        return Shape(names=(label,), rings=(points,))
    if kind == "circle" and len(points) == 2:
        return Shape(names=(label,), rings=(_circle(points),))
    if kind == "mask" and len(points) == 2 and size_wh is not None:
        return Shape(names=(label,), runs=_labelme_runs(path, item, points + center, size_wh))
    raise ReadError(
        f"{path}: expected polygon, circle or mask, found the shape_type {kind!r} of "
        f"{len(points)} points; draw it as a polygon"
    )


def _circle(points: Ring) -> Ring:
    """A circle from its centre and a point on it."""
    radius = float(np.hypot(*(points[1] - points[0])))
    angles = np.arange(_CIRCLE_POINTS) * (2 * np.pi / _CIRCLE_POINTS)
    return np.asarray(points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _labelme_runs(
    path: Path, item: Any, corners: Ring, size_wh: tuple[int, int]
) -> tuple[int, ...]:
    """A PNG in base64 that fills the box between two corner pixels, both included."""
    from PIL import Image, UnidentifiedImageError

    width, height = size_wh
    left, top = (int(v) for v in np.rint(corners[0]))
    try:
        raw = base64.b64decode(_part(path, item, "mask", str), validate=True)
        with Image.open(io.BytesIO(raw)) as image:
            check_size(path, image.size, 1)
            inner = np.asarray(image.convert("L")) > 0
    except (binascii.Error, UnidentifiedImageError, OSError, SyntaxError, ValueError) as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(f"{path}: expected a PNG as the mask of a shape, but {err}") from err
    if left < 0 or top < 0 or left + inner.shape[1] > width or top + inner.shape[0] > height:
        raise ReadError(f"{path}: expected a mask inside the image, found one beyond its edge")
    check_size(path, (height, width), 1)
    mask = np.zeros((height, width), bool)
    mask[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return runs_of(mask)


def coco(path: Path, center: float) -> dict[str, Picture]:
    """COCO: polygons, run lengths (plain and packed); images are found by `file_name`."""
    data = parse_json(path)
    names = {}
    for item in _part(path, data, "categories", list):
        key = number(path, item.get("id") if isinstance(item, dict) else None, "a category id")
        names[key] = (str(item.get("name", key)), str(key))
    images: dict[int, tuple[str, tuple[int, int] | None]] = {}
    for item in _part(path, data, "images", list):
        name = _part(path, item, "file_name", str).replace("\\", "/")
        key = number(path, item.get("id"), f"id of image {name!r}", high=10**12)
        if key in images:
            raise ReadError(
                f"{path}: expected each image id once, found {key} twice; mend the file"
            )
        images[key] = name, _claimed(path, item, "width", "height")
    shapes: dict[int, list[Shape]] = {key: [] for key in images}
    boxes: Counter[int] = Counter()
    for item in _part(path, data, "annotations", list):
        key = number(path, item.get("image_id") if isinstance(item, dict) else None,
                     "image_id of an annotation", high=10**12)  # fmt: skip
        category = number(path, item.get("category_id"), "category_id of an annotation")
        if key not in images or category not in names:
            wrong = f"image {key}" if key not in images else f"category {category}"
            raise ReadError(
                f"{path}: expected annotations of listed images and categories, found one of "
                f"{wrong}, which is not listed; mend the file"
            )
        drawn = item.get("segmentation")
        if not drawn:
            boxes[key] += 1
        else:
            shapes[key].append(_coco_shape(path, drawn, names[category], images[key][1], center))
    pictures: dict[str, Picture] = {}
    for key, (name, size_wh) in images.items():
        if name in pictures:
            raise ReadError(f"{path}: expected each file_name once, found {name!r} twice")
        pictures[name] = picture_of(shapes[key], Counter(), size_wh, boxes[key])
    return pictures


def _coco_shape(
    path: Path,
    drawn: Any,
    names: tuple[str, ...],
    size_wh: tuple[int, int] | None,
    center: float,
) -> Shape:
    if isinstance(drawn, list):
        rings = [_coco_ring(path, flat, center) for flat in drawn]
        return Shape(names=names, rings=tuple(rings))
    counts = drawn.get("counts") if isinstance(drawn, dict) else None
    size = drawn.get("size") if isinstance(drawn, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, str | list):
        raise ReadError(
            f"{path}: expected a segmentation of polygons, or of size and counts, found another "
            "structure; export it again"
        )
    if size_wh is not None and list(size_wh) != size[::-1]:
        raise ReadError(
            f"{path}: expected run lengths of the image's size {size_wh[0]} x {size_wh[1]}, found "
            f"a size of {size[1]} x {size[0]}; export it again"
        )
    if isinstance(counts, str):
        return Shape(names=names, runs=unpack_counts(path, counts))
    return Shape(names=names, runs=tuple(number(path, n, "a run length") for n in counts))


def _coco_ring(path: Path, flat: Any, center: float) -> Ring:
    if not isinstance(flat, list) or len(flat) % 2:
        raise ReadError(
            f"{path}: expected polygons as lists x, y, x, y ..., found an odd one; export it again"
        )
    return ring_of(path, zip(flat[::2], flat[1::2], strict=True), center)


def unpack_counts(path: Path, text: str) -> tuple[int, ...]:
    """Packed run lengths of COCO: five bits a character, differences to the last but one.

    Raises:
        ReadError: characters that cannot stand there, or a number that does not end.
    """
    counts: list[int] = []
    value = shift = 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ReadError(f"{path}: expected packed run lengths, found other text; export again")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift or any(n < 0 for n in counts):
        raise ReadError(f"{path}: expected packed run lengths, found a cut or mixed text")
    return tuple(counts)


def _claimed(path: Path, owner: Any, width: str, height: str) -> tuple[int, int] | None:
    """The size a file states, None where it states none."""
    if not isinstance(owner, Mapping) or owner.get(width) is None or owner.get(height) is None:
        return None
    return number(path, owner[width], width, low=1), number(path, owner[height], height, low=1)


JSON_FORMATS: dict[str, Callable[[Path, float], dict[str, Picture]]] = {
    "coco": coco,
    "labelme": labelme,
}
