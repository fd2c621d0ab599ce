"""Label planes to single masks: components, unions, measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sammed_data.runs import Region, regions
from sammed_data.slices import straight
from sammed_data.stages import stage
from sammed_data.types import LabelLayer

SPLIT_KINDS = ("organ", "lesion", "bone")
_MOST_16 = 1 << 17
_BATCH_PX = 1 << 21

Place = TypeVar("Place")
# Half-open box, its pixels (see `Part`), their number, components.
_Piece = tuple[tuple[int, int, int, int], NDArray[np.uint8], int, int | None]


class Part(NamedTuple):
    """One candidate mask of a slice; a tuple is made in a third of the time of a frozen dataclass.

    Attributes:
        raw: raw label of the entry, or the union's name.
        box_xyxy: half-open.
        shape_hw: size of the slice.
        inside: the pixels of the box, not 0 where they belong to it, led by the ``x0 % 8`` blank
            columns that its first byte of bits has; a tile of nuclei has no room for whole planes.
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
    inside: NDArray[np.uint8]

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """The mask at slice size, bool."""
        x0, y0, x1, y1 = self.box_xyxy
        mask = np.zeros(self.shape_hw, bool)
        mask[y0:y1, x0 - x0 % 8 : x1] = self.inside != 0
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

    parts: tuple[Part, ...]
    small: Mapping[str, int]

    @property
    def candidates(self) -> int:
        """How many masks the labels of this slice give before any rule."""
        return len(self.parts) + sum(self.small.values())


def batches(places: Sequence[Place], n_pixels: int) -> Iterator[Sequence[Place]]:
    """Slices to look at together: a few, since each call costs as much as a slice's own work.

    Args:
        places: anything that stands for a slice.
        n_pixels: of one slice, over all layers.
    """
    size = max(1, _BATCH_PX // max(1, n_pixels))
    for first in range(0, len(places), size):
        yield places[first : first + size]


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
    parts: list[Part] = []
    small: dict[str, int] = {}
    for number, (plane, layer) in enumerate(zip(planes, layers, strict=True)):
        if known[number]:
            _of_layer(plane, known[number], parts, small, plan, layer, number)
    for name, members in plan.unions.items():
        for annotator in sorted({layer.annotator for layer in layers}):
            mask, number = _union(planes, layers, members, annotator)
            if mask is not None:
                one = replace(layers[number], names={1: name}, instances={})
                known_here = regions([mask], components=plan.components)[0]
                _of_layer(mask, known_here, parts, small, plan, one, number)
    return PlaneMasks(parts=tuple(parts), small=small)


def _of_layer(
    plane: NDArray[Any],
    known: Sequence[Region],
    parts: list[Part],
    small: dict[str, int],
    plan: Plan,
    layer: LabelLayer,
    number: int,
) -> None:
    """The masks of one layer of one slice."""
    lefts, tops, rights, bottoms = zip(*(region.box_xyxy for region in known), strict=True)
    left, top = min(lefts), min(tops)
    left -= left % 8  # as the bytes of packed bits lie
    cropped = straight(plane[top : max(bottoms), left : max(rights)])
    height, width = plane.shape
    for value, box, area, count in known:
        raw, instance = layer.names[value], layer.instances.get(value, 0)
        split = count != 1 and plan.split[raw] and not layer.instances
        if area < plan.min_part_px and not split:
            small[raw] = small.get(raw, 0) + 1
            continue
        x0, y0, x1, y1 = box
        pixels = cropped[y0 - top : y1 - top, x0 - x0 % 8 - left : x1 - left]
        inside = (pixels == value).view(np.uint8)
        pieces = _pieces(box, inside) if split else ((box, inside, area, count),)
        for (x0, y0, x1, y1), inside, area, count in pieces:
            if area < plan.min_part_px:
                small[raw] = small.get(raw, 0) + 1
                continue
            parts.append(
                Part(
                    raw,
                    instance,
                    layer.annotator,
                    number,
                    count,
                    area,
                    (x0, y0, x1, y1),
                    y0 == 0 or x0 == 0 or y1 == height or x1 == width,
                    (height, width),
                    inside,
                )
            )


def _pieces(box: tuple[int, int, int, int], region: NDArray[np.uint8]) -> Iterator[_Piece]:
    """The 8-connected components of a region, in OpenCV's order."""
    import cv2

    # Half of the memory, where there cannot be too many parts for 16 bits.
    kind = cv2.CV_16U if region.size <= _MOST_16 else cv2.CV_32S
    count, numbers = cv2.connectedComponents(region, connectivity=8, ltype=kind)
    left, top = box[0] - box[0] % 8, box[1]
    for number in range(1, count):
        one = (numbers == number).view(np.uint8)
        x, y, width, height = cv2.boundingRect(one)
        inside = one[y : y + height, x - x % 8 : x + width]
        found = left + x, top + y, left + x + width, top + y + height
        yield found, inside, cv2.countNonZero(inside), 1


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
