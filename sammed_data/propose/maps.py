"""Label maps: classes, objects or colours; and masks that are outlines or inverted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.propose.carriers import Doubt
from sammed_data.propose.coding import Coding, Seen, is_jpeg, levels, threshold_of
from sammed_data.types import counted

_MANY_OBJECTS, _MANY_FLAT, _MAX_COLOURS = 8, 40, 64


def of_map(seen: Sequence[Seen]) -> Coding:
    """The encoding of one label file an image."""
    colours = [s for s in seen if s.look.colours]
    if colours:
        return of_colours(seen)
    options = threshold_of(seen)
    if options is not None:
        return _one_class(seen, options)
    values = sorted({v for s in seen for v in s.look.counts} - {0})
    if any(s.look.n_values > 300 for s in seen) or not values:
        values = []
    if any(is_jpeg(s.item) for s in seen):
        return Coding(
            type="index", values=tuple(map(str, values[:64])), doubt="high",
            evidence="JPEG label files of several values: their compression has changed them",
            notes=("masks saved as JPEG: class values cannot be trusted, ask for the originals",),
        )  # fmt: skip
    objects = _objects(seen)
    if objects is not None or not values:
        why = objects or "several hundred values a file"
        doubt: Doubt = "low" if len(seen) > 1 and objects else "medium"
        return Coding(type="instance_ids", values=("*",), evidence=why, doubt=doubt)
    return _classes(seen, values)


def _classes(seen: Sequence[Seen], values: Sequence[int]) -> Coding:
    spaced = seen[0].item.kind == "raster" and values[-1] > 60 and len(values) <= 12
    shown = ", ".join(map(str, values[:24])) + (", ..." if len(values) > 24 else "")
    doubt: Doubt = "low"
    notes: list[str] = []
    if spaced and 255 in values and len(values) > 1 and max(values) - min(values) < 255:
        notes.append("255 may mark pixels to ignore; name it under `ignore` if so")
        doubt = "medium"
    if values[0] < 0:
        notes.append(f"the value {values[0]} is negative; name it under `ignore` if it is no class")
        doubt = "high"
    if len(values) > 40 and seen[0].item.kind == "raster":
        doubt = "high"
    return Coding(
        type="values" if spaced else "index",
        values=tuple(map(str, values)),
        evidence=f"one map of whole values {shown}",
        doubt=doubt,
        notes=tuple(notes),
    )


def _objects(seen: Sequence[Seen]) -> str | None:
    """Words for why the values count objects; None if they rather are classes."""
    sets = [{v for v in s.look.counts if v} for s in seen if s.look.counts]
    largest = max(seen, key=lambda s: s.look.n_values)
    most = largest.look.n_values - 1
    if most < _MANY_OBJECTS or largest.look.low < 0:
        return None
    differ = len({frozenset(s) for s in sets}) > 1
    share, typical = _single(largest.array)
    flat = largest.array.shape[0] == 1
    numbered = all(not s or max(s) - len(s) <= 0.1 * len(s) + 1 for s in sets)
    small = typical < 0.05
    if share < 0.9 or not small:
        return None
    if (numbered and (flat or (differ and most > 30))) or (flat and most > _MANY_FLAT):
        return f"up to {most} values, {share:.0%} of them one connected part of small size each"
    return None


def _single(array: NDArray[Any]) -> tuple[float, float]:
    """Share of values that are one connected part; typical area as a share of the image."""
    from scipy.ndimage import find_objects, label

    values = [int(v) for v in np.unique(array) if v > 0][:40]
    boxes = find_objects(array.astype(np.int64)) if values and max(values) < 1 << 20 else []
    single, areas = 0, []
    for value in values:
        box = boxes[value - 1] if value <= len(boxes) else None
        if box is None:
            continue
        part = array[box] == value
        single += int(label(part, np.ones((3, 3, 3)))[1] == 1)
        areas.append(int(part.sum()))
    if not areas:
        return 0.0, 1.0
    return single / len(areas), float(np.median(areas)) / array.size


def _one_class(seen: Sequence[Seen], options: dict[str, Any]) -> Coding:
    doubt: Doubt = "low"
    notes: list[str] = []
    evidence = levels(seen)
    if any(s.look.lossy for s in seen):
        evidence += "; blurred edges (a lossy format), cut at 127"
        notes.append("masks are not exactly of two values: cut at 127")
    drawn = [s for s in seen if s.look.n_values > 1]
    masks = [s.array > options["threshold"] for s in drawn]
    if masks and np.mean([_is_outline(m) for m in masks]) >= 0.8:
        options = options | {"fill": True}
        doubt = "medium"
        evidence += "; thin closed lines that enclose an area, to be filled"
        notes.append("masks are outlines; what they enclose is filled")
    elif masks and np.mean([_is_inverted(m) for m in masks]) >= 0.8:
        options = options | {"inverted": True}
        doubt = "high"
        evidence += "; foreground covers the border and most of the image, taken as inverted"
        notes.append("masks look inverted (object black on white); check the overlays")
    if not masks:
        doubt = "high"
        evidence = "every mask looked at is empty"
    return Coding(type="binary", options=options, values=("1",), evidence=evidence, doubt=doubt,
                  notes=tuple(notes))  # fmt: skip


def _is_outline(mask_ZYX: NDArray[np.bool_]) -> bool:
    from scipy.ndimage import binary_fill_holes, distance_transform_cdt

    if len(mask_ZYX) > 1:
        return False
    filled = binary_fill_holes(mask_ZYX[0])
    thick = int(distance_transform_cdt(np.pad(mask_ZYX[0], 1)).max())
    return bool(filled.sum() >= 2.5 * mask_ZYX.sum() and thick <= 4)


def _is_inverted(mask_ZYX: NDArray[np.bool_]) -> bool:
    plane = mask_ZYX[len(mask_ZYX) // 2]
    border = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    return bool(border.mean() > 0.9 and plane.mean() > 0.5)


def of_colours(seen: Sequence[Seen]) -> Coding:
    """The encoding of coloured label files."""
    codes: set[int] = set()
    for s in seen:
        if s.array.ndim == 3:  # grey: three equal channels
            codes |= {v << 16 | v << 8 | v for v in s.look.counts}
            continue
        flat = s.array.reshape(-1, 3).astype(np.int64) @ [1 << 16, 1 << 8, 1]
        codes |= {int(v) for v in np.unique(flat)[: 4 * _MAX_COLOURS]}
    named = [f"{c >> 16},{c >> 8 & 255},{c & 255}" for c in sorted(codes - {0})]
    pure = {c for c in codes if all(v in (0, 255) for v in (c >> 16, c >> 8 & 255, c & 255))}
    near = all(
        min(v, 255 - v) <= 48 for c in codes for v in (c >> 16, c >> 8 & 255, c & 255)
    )  # fmt: skip
    lossy = any(is_jpeg(s.item) for s in seen)
    if near and len(codes) > len(pure) and len(codes) > 8:
        rounded = sorted({_rounded(c) for c in codes} - {"0,0,0"})
        return Coding(
            type="rgb", options={"round_colours": True}, values=tuple(rounded), doubt="medium",
            evidence=f"{len(codes)} colours near the {len(rounded)} pure ones, rounded",
            notes=("colours are blurred: each channel counts as 0 or 255",),
        )  # fmt: skip
    if len(codes) > _MAX_COLOURS or lossy:
        why = "a lossy format has changed them" if lossy else "maybe one an object"
        return Coding(type="rgb", values=tuple(named[:_MAX_COLOURS]), doubt="high",
                      evidence=f"{len(codes)} or more colours: {why}")  # fmt: skip
    doubt: Doubt = "low" if 1 < len(named) <= 12 else "medium"  # one colour may be an object's
    return Coding(type="rgb", values=tuple(named), doubt=doubt,
                  evidence=f"{counted(len(named), 'colour')} beside black")  # fmt: skip


def _rounded(code: int) -> str:
    parts = (code >> 16, code >> 8 & 255, code & 255)
    return ",".join("255" if v > 127 else "0" for v in parts)
