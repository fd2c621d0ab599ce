"""Label planes to single masks: components, unions, measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.types import LabelLayer

SPLIT_KINDS = ("organ", "lesion", "bone")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One candidate mask of a slice.

    Attributes:
        raw: raw label of the entry, or the union's name.
        box_xyxy: half-open.
        shape_hw: size of the slice.
        inside: bool, the pixels of the box; a tile of nuclei has no room for whole planes.
    """

    raw: str
    instance: int
    annotator: int
    layer: int
    n_components: int
    area_px: int
    box_xyxy: tuple[int, int, int, int]
    touches_border: bool
    shape_hw: tuple[int, int]
    inside: NDArray[np.bool_]

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """The mask at slice size, bool."""
        x0, y0, x1, y1 = self.box_xyxy
        mask = np.zeros(self.shape_hw, bool)
        mask[y0:y1, x0:x1] = self.inside
        return mask


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make of each raw label.

    Attributes:
        split: raw label (or union name) -> whether parts become masks of their own.
        unions: union name -> raw labels it joins.
        min_part_px: smaller parts are counted, not kept.
    """

    split: Mapping[str, bool]
    unions: Mapping[str, Sequence[str]]
    min_part_px: int


@dataclass(frozen=True, kw_only=True)
class PlaneMasks:
    """The candidates of one slice: ``parts`` big enough, ``small`` = raw label -> count below."""

    parts: tuple[Part, ...]
    small: Mapping[str, int]

    @property
    def candidates(self) -> int:
        """How many masks the labels of this slice give before any rule."""
        return len(self.parts) + sum(self.small.values())


def plane_masks(
    planes: Sequence[NDArray[Any]], layers: Sequence[LabelLayer], plan: Plan
) -> PlaneMasks:
    """All candidate masks of one slice, in the order of layers, values, then unions.

    Args:
        planes: one (H, W) integer plane per layer, already in stored orientation.
        layers: the layers the planes were cut from.
        plan: how to split and join.
    """
    parts: list[Part] = []
    small: dict[str, int] = {}
    for number, (plane, layer) in enumerate(zip(planes, layers, strict=True)):
        for value, window in _values(plane):
            raw, instance = layer.names[value], layer.instances.get(value, 0)
            region = plane[window] == value
            split = plan.split[raw] and not layer.instances
            found = _components(region, split)
            _collect(found, parts, small, plan, plane.shape, window, raw, instance, layer, number)
    for name, members in plan.unions.items():
        for annotator in sorted({layer.annotator for layer in layers}):
            mask, number = _union(planes, layers, members, annotator)
            if mask is None:
                continue
            layer = layers[number]
            window = _window(mask)
            found = _components(mask[window], plan.split[name])
            _collect(found, parts, small, plan, mask.shape, window, name, 0, layer, number)
    return PlaneMasks(parts=tuple(parts), small=small)


def _values(plane: NDArray[Any]) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Values present besides 0, ascending, each with the window that holds its pixels."""
    if not plane.any():
        return
    whole = _window(plane != 0)
    cropped = plane[whole]
    for value in np.unique(cropped):
        if value == 0:
            continue
        inner = _window(cropped == value)
        yield int(value), (_shift(inner[0], whole[0]), _shift(inner[1], whole[1]))


def _shift(inner: slice, outer: slice) -> slice:
    return slice(inner.start + outer.start, inner.stop + outer.start)


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _components(region: NDArray[np.bool_], split: bool) -> list[tuple[NDArray[np.bool_], int]]:
    """Cropped masks with their number of 8-connected components."""
    import cv2

    count, labelled = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    if not split or count == 2:
        return [(region, count - 1)]
    return [(labelled == i, 1) for i in range(1, count)]


def _union(
    planes: Sequence[NDArray[Any]],
    layers: Sequence[LabelLayer],
    members: Sequence[str],
    annotator: int,
) -> tuple[NDArray[np.bool_] | None, int]:
    joined = np.zeros(planes[0].shape, bool)
    first = -1
    for number, (plane, layer) in enumerate(zip(planes, layers, strict=True)):
        if layer.annotator != annotator:
            continue
        values = [value for value, raw in layer.names.items() if raw in members]
        hit = np.isin(plane, values)
        if first < 0 and hit.any():
            first = number
        joined |= hit
    return (joined if first >= 0 else None), first


def _collect(
    found: list[tuple[NDArray[np.bool_], int]],
    parts: list[Part],
    small: dict[str, int],
    plan: Plan,
    shape: tuple[int, ...],
    window: tuple[slice, slice],
    raw: str,
    instance: int,
    layer: LabelLayer,
    number: int,
) -> None:
    for cropped, count in found:
        area = int(cropped.sum())
        if area < plan.min_part_px:
            small[raw] = small.get(raw, 0) + 1
            continue
        rows, columns = _window(cropped)
        y0, y1 = rows.start + window[0].start, rows.stop + window[0].start
        x0, x1 = columns.start + window[1].start, columns.stop + window[1].start
        parts.append(
            Part(
                raw=raw,
                instance=instance,
                annotator=layer.annotator,
                layer=number,
                n_components=count,
                area_px=area,
                box_xyxy=(x0, y0, x1, y1),
                touches_border=y0 == 0 or x0 == 0 or y1 == shape[0] or x1 == shape[1],
                shape_hw=(shape[0], shape[1]),
                inside=cropped[rows, columns],
            )
        )
