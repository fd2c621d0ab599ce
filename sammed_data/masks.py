"""Label planes to single masks: components, unions, measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sammed_data.slices import straight
from sammed_data.stages import stage
from sammed_data.types import LabelLayer

SPLIT_KINDS = ("organ", "lesion", "bone")
# Values that are the numbers of bits in a 16-bit word.
_FEW = 16
_MOST_16 = 1 << 17

# (x, y, width, height), as OpenCV has it; a box with its pixels (not 0, see `Part`) and components.
_Box = tuple[int, int, int, int]
_Piece = tuple[_Box, NDArray[np.uint8], int]


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
    n_components: int
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


@stage("components")
def plane_masks(
    planes: Sequence[NDArray[Any]], layers: Sequence[LabelLayer], plan: Plan
) -> PlaneMasks:
    """All candidate masks of one slice, in the order of layers, values, then unions.

    Args:
        planes: one (H, W) integer plane per layer in stored orientation, maybe a flipped view.
        layers: the layers the planes were cut from.
        plan: how to split and join.
    """
    parts: list[Part] = []
    small: dict[str, int] = {}
    for number, (plane, layer) in enumerate(zip(planes, layers, strict=True)):
        for value, box, region in _regions(plane, layer.names):
            raw, instance = layer.names[value], layer.instances.get(value, 0)
            found = _components(box, region, plan.split[raw] and not layer.instances)
            _collect(found, parts, small, plan, plane.shape, raw, instance, layer, number)
    for name, members in plan.unions.items():
        for annotator in sorted({layer.annotator for layer in layers}):
            mask, number = _union(planes, layers, members, annotator)
            if mask is None:
                continue
            box, region = _tight(mask)
            found = _components(box, region, plan.split[name])
            layer = layers[number]
            _collect(found, parts, small, plan, mask.shape, name, 0, layer, number)
    return PlaneMasks(parts=tuple(parts), small=small)


def _regions(
    plane: NDArray[Any], names: Mapping[int, str]
) -> Iterator[tuple[int, _Box, NDArray[np.uint8]]]:
    """Values present besides 0, ascending, each with its box and its pixels there (not 0)."""
    left, top, cropped = _cropped(plane)
    if not cropped.size or not names:
        return
    if plane.dtype == np.uint8 and max(names) < _FEW:
        found = _boxes_of_few(cropped, sorted(names))
    else:
        found = _boxes_of_many(cropped)
    for value, (x, y, w, h) in found:
        region = cropped[y : y + h, x - x % 8 : x + w] == value
        yield value, (left + x, top + y, w, h), region.view(np.uint8)


def _cropped(plane: NDArray[Any]) -> tuple[int, int, NDArray[Any]]:
    """Left and top of the box of what is not 0, and its pixels in order; flipped planes are
    looked at as they lie in memory, and only the box is turned.
    """  # noqa: D205 - one sentence
    rows_back, columns_back = (stride < 0 for stride in plane.strides)
    ahead = plane[:: -1 if rows_back else 1, :: -1 if columns_back else 1]
    byte = ahead if plane.dtype == np.uint8 else (ahead != 0).view(np.uint8)
    (left, top, width, height), _ = _tight(byte)
    left = plane.shape[1] - left - width if columns_back else left
    top = plane.shape[0] - top - height if rows_back else top
    width += left % 8
    left -= left % 8  # as the bytes of packed bits lie
    return left, top, straight(plane[top : top + height, left : left + width])


def _boxes_of_few(cropped: NDArray[np.uint8], values: Sequence[int]) -> Iterator[tuple[int, _Box]]:
    """One bit a value, joined along rows and columns: a quarter of the time of a pass for each."""
    bits = (1 << np.array(values)).astype(np.uint16)
    coded = np.left_shift(np.uint16(1), cropped.astype(np.uint16))  # 4 x as fast as a table
    rows = np.bitwise_or.reduce(coded, axis=1) & bits[:, None] != 0
    columns = np.bitwise_or.reduce(coded, axis=0) & bits[:, None] != 0
    (y0, y1), (x0, x1) = _ends(rows), _ends(columns)
    for number in np.flatnonzero(rows.any(axis=1)).tolist():
        x, y = x0[number], y0[number]
        yield values[number], (x, y, x1[number] - x, y1[number] - y)


def _ends(hit_VN: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """First hit and one past the last, of every row."""
    last = hit_VN.shape[1] - hit_VN[:, ::-1].argmax(axis=1)
    return hit_VN.argmax(axis=1).tolist(), last.tolist()


def _boxes_of_many(cropped: NDArray[Any]) -> Iterator[tuple[int, _Box]]:
    """One pass for the boxes of all values."""
    from scipy.ndimage import find_objects

    values, dense = np.arange(1, 256), cropped
    if cropped.dtype != np.uint8:
        values, dense = np.unique(cropped, return_inverse=True)
        dense = dense.reshape(cropped.shape) + 1
    for value, place in zip(values.tolist(), find_objects(dense), strict=False):
        if value and place is not None:
            y, x = place
            yield value, (x.start, y.start, x.stop - x.start, y.stop - y.start)


def _tight(mask_HW: NDArray[Any]) -> tuple[_Box, NDArray[Any]]:
    """(x, y, width, height) of what is not 0, and those pixels; width 0 where all is 0."""
    import cv2

    x, y, w, h = cv2.boundingRect(mask_HW)
    return (x, y, w, h), mask_HW[y : y + h, x - x % 8 : x + w]


def _components(box: _Box, region: NDArray[np.uint8], split: bool) -> list[_Piece]:
    """Pieces with their number of 8-connected components."""
    import cv2

    # Half of the memory, where there cannot be too many parts for 16 bits.
    kind = cv2.CV_16U if region.size <= _MOST_16 else cv2.CV_32S
    count, numbers = cv2.connectedComponents(region, connectivity=8, ltype=kind)
    if not split or count == 2:
        return [(box, region, count - 1)]
    left, top = box[0] - box[0] % 8, box[1]
    found = []
    for number in range(1, count):
        (x, y, width, height), inside = _tight((numbers == number).view(np.uint8))
        found.append(((left + x, top + y, width, height), inside, 1))
    return found


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


def _collect(
    found: list[_Piece],
    parts: list[Part],
    small: dict[str, int],
    plan: Plan,
    shape: tuple[int, ...],
    raw: str,
    instance: int,
    layer: LabelLayer,
    number: int,
) -> None:
    import cv2

    for (x0, y0, width, height), inside, count in found:
        area = cv2.countNonZero(inside)
        if area < plan.min_part_px:
            small[raw] = small.get(raw, 0) + 1
            continue
        x1, y1 = x0 + width, y0 + height
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
                inside=inside,
            )
        )
