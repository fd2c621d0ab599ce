"""Prompts from the command line, from a CSV or JSON file, or from a coarse mask."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_app.predict.scan import AXES, Scan, Window, stem_of
from sammed_app.predict.types import Asked
from sammed_data.geometry import same_grid
from sammed_data.intensity import check_policy
from sammed_data.readers.registry import read_label_map
from sammed_data.types import GeometryError, ReadError, UsageError

COLUMNS = ("image", "axis", "slice", "object", "box", "point", "label")
MIN_PART_PX = 4


def numbers(text: str, option: str, count: tuple[int, ...]) -> list[float]:
    """Numbers parted by commas.

    Raises:
        UsageError: other words, or another count.
    """
    try:
        found = [float(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        found = []
    if len(found) not in count or not np.isfinite(found).all():
        wanted = " or ".join(str(n) for n in count)
        raise UsageError(f"expected {wanted} numbers parted by commas in {option}, found {text!r}")
    return found


def window_of(text: str, modality: str, option: str) -> Window:
    """``low,high``, or the name of a policy.

    Raises:
        UsageError: neither.
    """
    if text[:1].isalpha():
        return Window(policy=check_policy(text), modality=modality)
    low, high = numbers(text, option, (2,))
    if high <= low:
        raise UsageError(f"expected low,high with low < high in {option}, found {text!r}")
    return Window(bounds=(low, high), modality=modality)


def from_options(
    boxes: Sequence[str], points: Sequence[str], names: Sequence[str], index: int | None
) -> list[Asked]:
    """``--box`` and ``--point``: each box is an object; points belong to one object.

    Raises:
        UsageError: nothing or too much is asked, or a box without area.
    """
    clicks = tuple(_click(numbers(p, "--point", (2, 3)), p) for p in points)
    if len(boxes) > 1 and clicks:
        raise UsageError(
            f"expected points with one box at most, found {len(boxes)} boxes: say which points "
            "belong to which box in a file (--prompts)"
        )
    n_objects = max(len(boxes), bool(clicks))
    if len(names) > n_objects:
        raise UsageError(f"expected at most {n_objects} --object names, found {len(names)}")
    names = [*names, *(f"object {k + 1}" for k in range(len(names), n_objects))]
    if not boxes:
        return [Asked(object=names[0], index=index, points=clicks)] if clicks else []
    return [
        Asked(object=name, index=index, box_xyxy=_box(text, "--box"), points=clicks)
        for name, text in zip(names, boxes, strict=True)
    ]


def _click(values: list[float], text: str) -> tuple[float, float, int]:
    label = values[2] if len(values) == 3 else 1
    if label not in (0, 1):
        raise UsageError(f"expected label 1 (object) or 0 (background), found {text!r}")
    return values[0], values[1], int(label)


def _box(text: str, where: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = numbers(text, where, (4,))
    if x1 <= x0 or y1 <= y0:
        raise UsageError(f"expected a box x0,y0,x1,y1 with an area in {where}, found {text!r}")
    return x0, y0, x1, y1


def from_file(path: Path) -> list[Asked]:
    """Prompts of a CSV (columns ``COLUMNS``) or JSON file (a list of objects with these keys).

    Lines of one image, axis, slice and object are one prompt: a box at most, any points.

    Raises:
        UsageError: missing, or not such a file; the line is named.
    """
    if not path.is_file():
        raise UsageError(f"expected a file of prompts at {path}, found none: check --prompts")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = json.loads(text) if path.suffix.lower() == ".json" else _csv_rows(path, text)
    except (ValueError, csv.Error) as err:
        raise UsageError(f"expected CSV or JSON of prompts in {path}, found: {err}") from err
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"expected a list of objects in {path}, found {type(rows).__name__}")
    asked: dict[tuple[str, str, int | None, str], Asked] = {}
    for number, row in enumerate(rows, start=1):
        one = _row(row, f"prompt {number} of {path}")
        key = (one.image, one.axis, one.index, one.object)
        asked[key] = _joined(asked[key], one, f"prompt {number} of {path}") if key in asked else one
    return list(asked.values())


def _csv_rows(path: Path, text: str) -> list[dict[str, str]]:
    lines = csv.DictReader(text.splitlines(), restkey="more columns")
    missing = {"box", "point"}.isdisjoint(lines.fieldnames or ())
    if missing:
        raise UsageError(
            f"expected the columns {', '.join(COLUMNS)} (box or point at least) in {path}, found "
            f"{', '.join(lines.fieldnames or ()) or 'none'}"
        )
    return list(lines)


def _row(row: dict[str, Any], where: str) -> Asked:
    unknown = sorted(str(k) for k in row.keys() - set(COLUMNS))
    if unknown:
        raise UsageError(
            f"expected the keys {', '.join(COLUMNS)} in {where}, found {', '.join(unknown)}; "
            "quote fields that hold commas"
        )
    said = {key: _text(value) for key, value in row.items()}
    axis, index = said.get("axis", ""), said.get("slice", "")
    if axis and axis not in AXES:
        raise UsageError(f"expected an axis of {', '.join(AXES)} in {where}, found {axis!r}")
    if index and not index.isdecimal():
        raise UsageError(f"expected a slice number from 0 in {where}, found {index!r}")
    points: tuple[tuple[float, float, int], ...] = ()
    if said.get("point"):
        values = numbers(said["point"], f"point of {where}", (2, 3))
        label = said.get("label") or "1"
        values = values if len(values) == 3 else [*values, *numbers(label, where, (1,))]
        points = (_click(values, said["point"]),)
    box = _box(said["box"], f"box of {where}") if said.get("box") else None
    if box is None and not points:
        raise UsageError(f"expected a box or a point in {where}, found neither")
    return Asked(
        image=said.get("image", ""),
        axis=axis,
        index=int(index) if index else None,
        object=said.get("object") or "object 1",
        box_xyxy=box,
        points=points,
    )


def _text(value: Any) -> str:
    """A field in CSV's spelling; JSON may give numbers and lists."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return str(value).strip()


def _joined(a: Asked, b: Asked, where: str) -> Asked:
    if a.box_xyxy and b.box_xyxy:
        raise UsageError(
            f"expected one box of an object on a slice, found a second in {where}: give it "
            "another object name"
        )
    return Asked(
        image=a.image,
        axis=a.axis,
        index=a.index,
        object=a.object,
        box_xyxy=a.box_xyxy or b.box_xyxy,
        points=a.points + b.points,
    )


def of_image(asked: Iterable[Asked], scan: Scan) -> list[Asked]:
    """Those prompts that are about an image: by path, file name, or name without ending."""
    names = {"", str(scan.path), scan.path.name, scan.name}
    return [one for one in asked if one.image in names]


def from_coarse(coarse: Path, scan: Scan, axis: str, form: str) -> tuple[list[Asked], int]:
    """A prompt for each component of each value of a coarse mask, slice by slice.

    Args:
        coarse: label map on the grid of the image, or a folder that holds one of the same name.
        scan: the image.
        axis: of the slices.
        form: ``box`` (tight) or ``point`` (the pixel farthest from the border).

    Returns:
        The prompts, and how many components under 4 px were left out.

    Raises:
        UsageError: no mask of that name.
        GeometryError: another grid.
        ReadError: no object in it.
    """
    path = _coarse_of(coarse, scan)
    labels, geometry = read_label_map(path)
    labels = labels.max(axis=-1) if labels.ndim == 4 else labels
    if labels.shape != scan.shape_zyx or not same_grid(geometry, scan.volume.geometry):
        found = geometry.describe() if geometry else f"{labels.shape} pixels without a position"
        wanted = scan.volume.geometry.describe() if scan.volume.geometry else str(scan.shape_zyx)
        raise GeometryError(f"{path}: expected the grid of {scan.path}, {wanted}, found {found}")
    asked: list[Asked] = []
    small = 0
    for index in range(scan.count(axis)):
        plane = scan.view(labels, axis, index)
        for value in np.unique(plane[plane != 0]).tolist():
            for box, inner in _components(plane == value):
                if inner is None:
                    small += 1
                    continue
                asked.append(
                    Asked(
                        object=f"label {value}",
                        axis=axis,
                        index=index,
                        box_xyxy=box if form == "box" else None,
                        points=() if form == "box" else ((*inner, 1),),
                    )
                )
    if not asked:
        raise ReadError(f"{path}: expected an object of {MIN_PART_PX} px or more, found none")
    return asked, small


def _coarse_of(coarse: Path, scan: Scan) -> Path:
    if not coarse.exists():
        raise UsageError(f"expected a coarse mask at {coarse}, found none: check --prompts-from")
    if coarse.is_file():
        return coarse
    near = [p for p in sorted(coarse.iterdir()) if p.is_file() and stem_of(p) == scan.name]
    if len(near) != 1:
        raise UsageError(f"expected one mask named {scan.name}.* in {coarse}, found {len(near)}")
    return near[0]


_Box = tuple[float, float, float, float]


def _components(mask_HW: NDArray[np.bool_]) -> list[tuple[_Box, tuple[float, float] | None]]:
    """Tight box and innermost pixel of each 8-connected part; None where it is too small."""
    import cv2

    count, numbered, table, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask_HW, np.uint8), connectivity=8
    )
    found: list[tuple[_Box, tuple[float, float] | None]] = []
    for part in range(1, count):
        x, y, w, h, area = (int(v) for v in table[part])
        box = (float(x), float(y), float(x + w), float(y + h))
        if area < MIN_PART_PX:
            found.append((box, None))
            continue
        inside = np.pad(numbered[y : y + h, x : x + w] == part, 1).astype(np.uint8)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        found.append((box, (float(x + column - 1), float(y + row - 1))))
    return found
