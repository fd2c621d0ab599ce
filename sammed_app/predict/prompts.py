"""Prompts from the command line, and from a CSV or JSON file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sammed_app.predict.scan import AXES, Scan, Window
from sammed_app.predict.types import Asked
from sammed_data.intensity import check_policy
from sammed_data.types import UsageError

COLUMNS = ("image", "axis", "slice", "object", "box", "point", "label")


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
