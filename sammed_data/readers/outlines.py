"""Outlines and run lengths -> pixels: what all polygon formats share.

Coordinates are (x, y) with a pixel's centre at its integer index. A ring is filled by the even-odd
rule at pixel centres, as RTSTRUCT contours are; what lies outside the picture is cut off.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.limits import check_size
from sammed_data.readers.rtstruct import even_odd
from sammed_data.types import GeometryError, ReadError

Ring = NDArray[np.float64]

_FAR = 1e7  # px; beyond it float rounding would move edges
_MAX_CROSSINGS = 5_000_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One drawn object.

    Attributes:
        names: what the source calls its class, the likeliest first.
        rings: (N, 2) outlines; the object is all that any of them encloses.
        holes: outlines of what does not belong to it.
        runs: lengths of background, object, background ... counted down the columns of the whole
            picture, instead of rings.
    """

    names: tuple[str, ...]
    rings: tuple[Ring, ...] = ()
    holes: tuple[Ring, ...] = ()
    runs: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """All shapes of one image as an annotation file states them.

    Attributes:
        size_wh: width and height the file claims, None where it claims none.
        without_area: kind -> how many marks have no outline (a point, a line).
        boxes: how many objects have only a box around them.
    """

    shapes: tuple[Shape, ...]
    size_wh: tuple[int, int] | None = None
    without_area: Mapping[str, int]
    boxes: int = 0


def ring_of(path: Path, values: Iterable[Any], pixel_center: float) -> Ring:
    """(N, 2) ring from pairs; ReadError where they are not finite numbers of a sane size."""
    try:
        ring = np.array([(x, y) for x, y in values], dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as err:
        raise ReadError(
            f"{path}: expected points of two numbers, but {err}; mend or remove the outline"
        ) from err
    if not (np.abs(ring) <= _FAR).all():
        raise ReadError(
            f"{path}: expected points within {_FAR:g} pixels, found {np.abs(ring).max():g}; "
            "mend or remove the outline"
        )
    return ring - pixel_center


def number(path: Path, text: Any, what: str, *, low: int = 0, high: int = 1 << 31) -> int:
    """A whole number of a file; ReadError where it is none or out of range."""
    if not isinstance(text, bool) and isinstance(text, int | float | str):
        word = str(text).strip()
        if re.fullmatch(r"-?\d{1,12}(\.0+)?", word) and low <= int(float(word)) <= high:
            return int(float(word))
    raise ReadError(
        f"{path}: expected a whole number from {low} to {high} as {what}, found {text!r:.40}; "
        "mend the file"
    )


def picture_of(
    shapes: Iterable[Shape],
    marks: Counter[str],
    size_wh: tuple[int, int] | None = None,
    boxes: int = 0,
) -> Picture:
    """A picture; outlines of fewer than three points enclose nothing and are counted as marks."""
    kept = []
    for shape in shapes:
        if shape.runs is None and all(len(r) < 3 for r in shape.rings):
            marks["outline of fewer than three points"] += 1
        else:
            kept.append(shape)
    return Picture(shapes=tuple(kept), size_wh=size_wh, without_area=dict(marks), boxes=boxes)


def runs_of(mask_HW: NDArray[np.bool_]) -> tuple[int, ...]:
    """Lengths of background, object, background ... down the columns."""
    flat = np.concatenate([[False], mask_HW.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return tuple(int(n) for n in np.diff(np.concatenate([[0], edges, [mask_HW.size]])))


def check_picture(path: Path, picture: Picture, shape_hw: tuple[int, int]) -> None:
    """Refuse an annotation that was drawn on another picture, or that is only boxes.

    Raises:
        GeometryError: the size that the file states is not that of the image.
        ReadError: objects with a box and no outline.
    """
    height, width = shape_hw
    if picture.size_wh is not None and picture.size_wh != (width, height):
        raise GeometryError(
            f"{path}: expected outlines drawn on an image of {width} x {height} pixels, the file "
            f"states {picture.size_wh[0]} x {picture.size_wh[1]}; use the image they were drawn on"
        )
    if picture.boxes:
        raise ReadError(
            f"{path}: expected outlines, found {picture.boxes} objects with only a box; a box is "
            "no mask: remove these annotations or draw the objects"
        )


def fill(path: Path, shape: Shape, shape_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Sorted flat (H, W) indices of a shape's pixels.

    Raises:
        ReadError: run lengths that do not fit the picture, or an outline of absurd complexity.
    """
    if shape.runs is not None:
        return _from_runs(path, shape.runs, shape_hw)
    inside = [_fill_ring(path, ring, shape_hw) for ring in shape.rings]
    if not inside:
        return np.empty(0, np.int64)
    found = inside[0] if len(inside) == 1 else np.unique(np.concatenate(inside))
    for hole in shape.holes:
        found = np.setdiff1d(found, _fill_ring(path, hole, shape_hw), assume_unique=True)
    return found


def _fill_ring(path: Path, ring: Ring, shape_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Flat indices inside one ring; only its own box is looked at."""
    if len(ring) < 3:
        return np.empty(0, np.int64)
    limit = np.array(shape_hw[::-1])
    low = np.clip(np.floor(ring.min(axis=0)), 0, limit).astype(np.int64)
    high = np.clip(np.ceil(ring.max(axis=0)) + 1, 0, limit).astype(np.int64)
    columns, rows = (int(n) for n in high - low)
    if columns <= 0 or rows <= 0:
        return np.empty(0, np.int64)
    ys = np.clip(ring[:, 1] - low[1], 0, rows)
    if np.abs(ys - np.roll(ys, -1)).sum() > _MAX_CROSSINGS:
        raise ReadError(
            f"{path}: expected a drawn outline, found one of {len(ring)} points that crosses the "
            f"rows of the image more than {_MAX_CROSSINGS:,} times; remove it"
        )
    inside = even_odd([(ring - low)[:, ::-1]], rows, columns)
    row, column = np.nonzero(inside)
    return np.asarray((row + low[1]) * shape_hw[1] + column + low[0], dtype=np.int64)


def _from_runs(path: Path, runs: Sequence[int], shape_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Pixels of run lengths down the columns; they must add up to the picture."""
    height, width = shape_hw
    lengths = np.asarray(runs, dtype=np.int64)
    if (lengths < 0).any() or int(lengths.sum()) != height * width:
        raise ReadError(
            f"{path}: expected run lengths that add up to {width} x {height} pixels, found "
            f"{int(lengths.sum()):,}; fetch the file again"
        )
    check_size(path, (height, width), 1)
    values = (np.arange(len(lengths)) % 2).astype(bool)
    mask = np.repeat(values, lengths).reshape(width, height).T
    return np.flatnonzero(mask)
