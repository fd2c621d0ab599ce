"""Label planes to single masks: components, unions, measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sammed_data.runs import Region, regions
from sammed_data.stages import stage
from sammed_data.types import LabelLayer

SPLIT_KINDS = ("organ", "lesion", "bone")
_MOST_16 = 1 << 17


class Part(NamedTuple):
    """One candidate mask of a slice; a tuple is made in a third of the time of a frozen dataclass.

    Attributes:
        raw: raw label of the entry, or the union's name.
        box_xyxy: half-open.
        shape_hw: size of the slice.
        bits: as in :class:`Region`; a tile of nuclei has no room for whole planes.
    """

    raw: str
    instance: int
    annotator: int
    layer: int
    n_components: int | None
    area_px: int
    box_xyxy: tuple[int, int, int, int]
    touches_border: bool
    shape_hw: tuple[int, int]
    bits: NDArray[np.uint8]

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """The mask at slice size, bool."""
        x0, y0, x1, y1 = self.box_xyxy
        mask = np.zeros(self.shape_hw, bool)
        left = x0 - x0 % 8
        mask[y0:y1, left:x1] = np.unpackbits(self.bits, axis=1, count=x1 - left)
        return mask


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make of each raw label.

    Attributes:
        split: raw label (or union name) -> whether parts become masks of their own.
        unions: union name -> raw labels it joins.
        min_part_px: smaller parts are counted, not kept.
        components: False where they are not even counted.
    """

    split: Mapping[str, bool]
    unions: Mapping[str, Sequence[str]]
    min_part_px: int
    components: bool = True


@dataclass(frozen=True, kw_only=True)
class PlaneMasks:
    """The candidates of one slice: ``parts`` big enough, ``small`` = raw label -> count below."""

    parts: list[Part]
    small: dict[str, int]

    @property
    def candidates(self) -> int:
        """How many masks the labels of this slice give before any rule."""
        return len(self.parts) + sum(self.small.values())


@stage("components")
def plane_masks(
    slices: Sequence[Sequence[NDArray[Any]]],
    layers: Sequence[LabelLayer],
    plan: Plan,
    indices: Sequence[int] | None = None,
) -> list[PlaneMasks]:
    """All candidate masks of each slice, in the order of layers, values, then unions.

    Args:
        slices: for each, one (H, W) integer plane per layer in stored orientation, maybe a flipped
            view; those of a layer are of one shape and dtype.
        layers: the layers the planes were cut from.
        plan: how to split and join.
        indices: where the planes are those of the layers as they are: their numbers.
    """
    known = [
        _regions_of([planes[number] for planes in slices], layer, indices, plan.components)
        for number, layer in enumerate(layers)
    ]
    return [
        _masks_of(planes, [each[place] for each in known], layers, plan)
        for place, planes in enumerate(slices)
    ]


def _regions_of(
    planes: Sequence[NDArray[Any]],
    layer: LabelLayer,
    indices: Sequence[int] | None,
    components: bool,
) -> list[list[Region]]:
    if not layer.names:
        return [[] for _ in planes]
    known = layer.plane_runs
    runs = [known[index] for index in indices] if indices and known is not None else None
    return regions(planes, runs, components=components)


def _masks_of(
    planes: Sequence[NDArray[Any]],
    known: Sequence[Sequence[Region]],
    layers: Sequence[LabelLayer],
    plan: Plan,
) -> PlaneMasks:
    found = PlaneMasks(parts=[], small={})
    for number, (plane, layer) in enumerate(zip(planes, layers, strict=True)):
        _of_layer(known[number], found, plan, layer, number, plane.shape)
    for name, members in plan.unions.items():
        for annotator in sorted({layer.annotator for layer in layers}):
            mask, number = _union(planes, layers, members, annotator)
            if mask is not None:
                one = replace(layers[number], names={1: name}, instances={})
                known_here = regions([mask], components=plan.components)[0]
                _of_layer(known_here, found, plan, one, number, mask.shape)
    return found


def _of_layer(
    known: Sequence[Region],
    found: PlaneMasks,
    plan: Plan,
    layer: LabelLayer,
    number: int,
    shape_hw: tuple[int, ...],
) -> None:
    """Adds the masks of one layer of one slice."""
    height, width = shape_hw
    parts, small = found.parts, found.small
    for region in known:
        raw, instance = layer.names[region.value], layer.instances.get(region.value, 0)
        split = region.n_components != 1 and plan.split[raw] and not layer.instances
        if region.area_px < plan.min_part_px and not split:
            small[raw] = small.get(raw, 0) + 1
            continue
        for _, box, area, count, bits in _pieces(region) if split else (region,):
            if area < plan.min_part_px:
                small[raw] = small.get(raw, 0) + 1
                continue
            x0, y0, x1, y1 = box
            parts.append(
                Part(
                    raw,
                    instance,
                    layer.annotator,
                    number,
                    count,
                    area,
                    box,
                    y0 == 0 or x0 == 0 or y1 == height or x1 == width,
                    (height, width),
                    bits,
                )
            )


def _pieces(region: Region) -> Iterator[Region]:
    """The 8-connected components of a region, in OpenCV's order."""
    import cv2

    (x0, y0, x1, _), lead = region.box_xyxy, region.box_xyxy[0] % 8
    inside = np.unpackbits(region.bits, axis=1, count=lead + x1 - x0)
    # Half of the memory, where there cannot be too many parts for 16 bits.
    kind = cv2.CV_16U if inside.size <= _MOST_16 else cv2.CV_32S
    count, numbers = cv2.connectedComponents(inside, connectivity=8, ltype=kind)
    for number in range(1, count):
        one = (numbers == number).view(np.uint8)
        x, y, width, height = cv2.boundingRect(one)
        pixels = one[y : y + height, x - x % 8 : x + width]
        left, top = x0 - lead + x, y0 + y
        yield Region(
            value=region.value,
            box_xyxy=(left, top, left + width, top + height),
            area_px=cv2.countNonZero(pixels),
            n_components=1,
            bits=np.packbits(pixels, axis=1),
        )


def _union(
    planes: Sequence[NDArray[Any]],
    layers: Sequence[LabelLayer],
    members: Sequence[str],
    annotator: int,
) -> tuple[NDArray[np.uint8] | None, int]:
    joined = np.zeros(planes[0].shape, np.uint8)
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
