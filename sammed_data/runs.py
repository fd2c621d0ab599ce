"""Boxes, areas and components of every value of label planes, from their runs along rows.

Whatever a pass over pixels would tell, the few places where a row changes its value tell as well:
all values of several slices cost about as much as OpenCV's components of one value each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sammed_data import native
from sammed_data.slices import straight
from sammed_data.stages import stage

# Pixels compared at once: what stays in a processor's cache.
_BLOCK = 1 << 18
_BATCH_PX = 1 << 21
# Pixels a run at the least, on the mean over a volume.
_LEAST_RUN = 16


class Region(NamedTuple):
    """All pixels of one value in one plane.

    Attributes:
        box_xyxy: half-open.
        n_components: 8-connected; None where they were not asked for.
        bits: the rows of the box, packed, the highest bit leftmost; the first byte of a row begins
            at column ``x0 - x0 % 8``, as it would in a packed row of the plane.
    """

    value: int
    box_xyxy: tuple[int, int, int, int]
    area_px: int
    n_components: int | None
    bits: NDArray[np.uint8]


class PlaneRuns(NamedTuple):
    """Stretches of one value other than 0 along the rows of a plane, as it lies in memory.

    Attributes:
        values: of each run.
        y, start, stop: row and half-open columns, int32.
    """

    values: NDArray[Any]
    y: NDArray[np.int32]
    start: NDArray[np.int32]
    stop: NDArray[np.int32]


Places = TypeVar("Places", Sequence[Any], NDArray[Any])


def batches(places: Places, n_pixels: int) -> Iterator[Places]:
    """Slices to look at together: a few, since each call costs as much as a slice's own work.

    Args:
        places: anything that stands for slices, one after the other.
        n_pixels: of one slice, over all layers.
    """
    size = max(1, _BATCH_PX // max(1, n_pixels))
    for first in range(0, len(places), size):
        yield places[first : first + size]


@dataclass(frozen=True, kw_only=True)
class VolumeRuns:
    """The runs of each plane of one array, kept so that values and masks need one look at it."""

    array_ZYX: NDArray[Any]
    planes: tuple[PlaneRuns, ...]

    def values(self) -> list[int]:
        """Sorted distinct values of the array."""
        size = self.array_ZYX[0].size
        blank = any(int((p.stop - p.start).sum()) < size for p in self.planes)
        values = np.concatenate([p.values for p in self.planes])
        small = values.dtype == np.uint8  # counted in a fifth of the time of sorting
        found = np.flatnonzero(np.bincount(values)) if small else np.unique(values)
        return sorted({*found.tolist(), *([0] if blank else [])})


@stage("label values")
def of_volume(array_ZYX: NDArray[Any]) -> VolumeRuns | None:
    """The runs of all planes; None for maps that change too often for this to be worth it."""
    back = array_ZYX.strides[0] < 0
    ahead = array_ZYX[::-1] if back else array_ZYX
    planes: list[PlaneRuns] = []
    left = array_ZYX.size // _LEAST_RUN
    for some in batches(ahead, array_ZYX[:1].size):
        found = of_planes(some, left)
        left -= sum(len(plane.values) for plane in found or [])
        if found is None or left < 0:
            return None
        planes += found
    ordered = tuple(reversed(planes) if back else planes)
    return VolumeRuns(array_ZYX=array_ZYX, planes=ordered) if planes else None


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """Stretches of one value along a row, in the order of their regions, then of their places.

    Attributes:
        first: index of the first run of each region.
        region: of each run, ascending.
        y, start, stop: row and half-open columns of each run.
    """

    first: NDArray[Any]
    region: NDArray[Any]
    y: NDArray[Any]
    start: NDArray[Any]
    stop: NDArray[Any]


def regions(
    planes: Sequence[NDArray[Any]],
    runs: Sequence[PlaneRuns] | None = None,
    *,
    components: bool = True,
) -> list[list[Region]]:
    """For each plane, its values other than 0, ascending.

    Args:
        planes: (H, W) integers, all of one shape, dtype and layout in memory; maybe flipped views.
        runs: of each plane, where they are known.
        components: whether to count them.
    """
    cut = runs
    if cut is None:
        cut = [each for plane in planes for each in of_planes(plane[None]) or []]
    found: list[list[Region]] = [[] for _ in planes]
    if not any(len(each.values) for each in cut):
        return found
    compiled = native.planes()
    fits = planes[0].size < 1 << 31  # an area is a number of 32 bits there
    if compiled is not None and cut[0].values.dtype == np.uint8 and fits:
        _compiled_regions(compiled, planes, cut, found, components=components)
    else:
        _numpy_regions(planes, cut, found, components=components)
    return found


def _numpy_regions(
    planes: Sequence[NDArray[Any]],
    runs: Sequence[PlaneRuns],
    found: list[list[Region]],
    *,
    components: bool,
) -> None:
    back = [stride < 0 for stride in planes[0].strides]
    height, width = planes[0].shape
    which = np.repeat(np.arange(len(planes)), [len(each.values) for each in runs])
    values, y, start, stop = (np.concatenate(each) for each in zip(*runs, strict=True))
    known, number = (np.arange(256), values) if values.dtype == np.uint8 else _dense(values)
    key = which * len(known) + number
    # Numbers of 16 bits are sorted by their digits, in a fifth of the time.
    small = len(planes) * len(known) <= 1 << 16
    order = np.argsort(key.astype(np.uint16) if small else key, kind="stable")
    key, y, start, stop = key[order], y[order], start[order], stop[order]
    opens = np.concatenate(([True], key[1:] != key[:-1]))
    first = np.flatnonzero(opens)
    sorted_runs = _Runs(first=first, region=np.cumsum(opens) - 1, y=y, start=start, stop=stop)
    last = np.append(first[1:], len(key)) - 1
    left, right = np.minimum.reduceat(start, first), np.maximum.reduceat(stop, first)
    top, bottom = y[first], y[last] + 1
    left, right = (width - right, width - left) if back[1] else (left, right)
    top, bottom = (height - bottom, height - top) if back[0] else (top, bottom)
    places, named = key[first] // len(known), known[key[first] % len(known)]
    boxes = list(zip(left.tolist(), top.tolist(), right.tolist(), bottom.tolist(), strict=True))
    areas = np.add.reduceat(stop - start, first, dtype=np.int64)
    counts: Sequence[int | None] = [None] * len(first)
    if components:
        counts = _components(sorted_runs, height, width).tolist()
    columns = (places.tolist(), named.tolist(), boxes, areas.tolist(), counts)
    for place, value, box, area, n_parts in zip(*columns, strict=True):
        x0, y0, x1, y1 = box
        inside = straight(planes[place][y0:y1, x0 - x0 % 8 : x1]) == value
        found[place].append(Region(value, box, area, n_parts, np.packbits(inside, axis=1)))


def _compiled_regions(
    compiled: native.Planes,
    planes: Sequence[NDArray[Any]],
    runs: Sequence[PlaneRuns],
    found: list[list[Region]],
    *,
    components: bool,
) -> None:
    back_y, back_x = (stride < 0 for stride in planes[0].strides)
    height, width = planes[0].shape
    values, y, start, stop = (np.concatenate(each) for each in zip(*runs, strict=True))
    ends = np.cumsum([len(each.values) for each in runs], dtype=np.int64)
    joined = values, y, start, stop, ends
    table = compiled.regions(joined, components=components)
    if back_x:
        table[:, [2, 4]] = width - table[:, [4, 2]]
    if back_y:
        table[:, [3, 5]] = height - table[:, [5, 3]]
    left, rows = table[:, 2], (table[:, 5] - table[:, 3]).astype(np.int64)
    row_bytes = (table[:, 4] - left + left % 8 + 7) // 8
    stops = np.cumsum(rows * row_bytes)
    offsets = stops - rows * row_bytes
    bits = compiled.bits(joined, (height, width), (back_y, back_x), table, offsets, int(stops[-1]))
    shapes = zip(offsets.tolist(), stops.tolist(), row_bytes.tolist(), strict=True)
    for (place, value, *box, area, count), (a, b, n) in zip(table.tolist(), shapes, strict=True):
        found[place].append(
            Region(value, tuple(box), area, count if components else None, bits[a:b].reshape(-1, n))
        )


def of_planes(planes_ZYX: NDArray[Any], most: int | None = None) -> list[PlaneRuns] | None:
    """The runs of each of a few planes, or of what they are flipped views of.

    None where they are found to be more than ``most``.
    """
    steps = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in planes_ZYX.strides[1:])
    count, height, width = planes_ZYX.shape
    flat = np.ascontiguousarray(planes_ZYX[:, *steps]).reshape(-1)
    compiled = native.planes()
    if compiled is not None and flat.dtype == np.uint8:
        room = flat.size if most is None else min(most, flat.size)
        return _compiled_runs(compiled, flat.reshape(planes_ZYX.shape), room)
    before, after = flat[:-1], flat[1:]
    changes = [
        np.flatnonzero(after[low : low + _BLOCK] != before[low : low + _BLOCK]) + (low + 1)
        for low in range(0, len(after), _BLOCK)
    ]
    kind: Any = np.int32 if flat.size < 1 << 31 else np.int64
    ends = np.concatenate(([0], *changes, [flat.size]), dtype=kind, casting="unsafe")
    values = flat[ends[:-1]]
    full = np.flatnonzero(values)
    start, stop, values = ends[full], ends[full + 1], values[full]
    row = start // kind(width)
    if (stop > (row + 1) * kind(width)).any():
        start, stop, values = _at_row_ends(start, stop, values, width)
        row = start // kind(width)
    x0 = row * kind(width)
    cuts = np.searchsorted(row, np.arange(count + 1) * height).tolist()
    y, start, stop = (each.astype(np.int32, copy=False) for each in (row, start - x0, stop - x0))
    return [
        PlaneRuns(values[a:b], y[a:b] - np.int32(z * height), start[a:b], stop[a:b])
        for z, (a, b) in enumerate(itertools.pairwise(cuts))
    ]


def _compiled_runs(
    compiled: native.Planes, planes_ZYX: NDArray[np.uint8], room: int
) -> list[PlaneRuns] | None:
    usual = min(room, planes_ZYX.size // _LEAST_RUN + _LEAST_RUN)
    found = compiled.runs(planes_ZYX, usual)
    if found is None and usual < room:
        found = compiled.runs(planes_ZYX, room)
    if found is None:
        return None
    *columns, ends = found
    cuts = [0, *ends.tolist()]
    return [PlaneRuns(*(c[a:b] for c in columns)) for a, b in itertools.pairwise(cuts)]


def _at_row_ends(
    start: NDArray[Any], stop: NDArray[Any], values: NDArray[Any], width: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Runs cut where a row ends and the next one begins with the same value."""
    row = start // width
    count = (stop - 1) // width - row + 1
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    row = np.repeat(row, count) + number
    start = np.maximum(np.repeat(start, count), row * width)
    stop = np.minimum(np.repeat(stop, count), (row + 1) * width)
    return start, stop, np.repeat(values, count)


def _dense(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    known, number = np.unique(values, return_inverse=True)
    return known, number


def _components(runs: _Runs, height: int, width: int) -> NDArray[Any]:
    """8-connected components of each region.

    Every run is hung onto the first run of the row above that it touches; what touches several
    joins their trees.
    """
    kind = np.int32 if len(runs.first) * (height + 1) * (width + 2) < 1 << 31 else np.int64
    line = (runs.region * (height + 1) + runs.y).astype(kind) * kind(width + 2)
    starts, stops = line + runs.start.astype(kind), line + runs.stop.astype(kind)
    above = kind(width + 2)
    low = np.searchsorted(stops, starts - above)
    touched = np.searchsorted(starts, stops - above, side="right") - low
    tops = np.flatnonzero(touched <= 0)
    count = np.bincount(runs.region[tops], minlength=len(runs.first))
    joints = np.flatnonzero(touched > 1)
    if len(joints):
        root = low.copy()
        root[tops] = tops
        while not np.array_equal(up := root[root], root):
            root = up
        more = touched[joints] - 1
        run = np.repeat(joints, more)
        # The second, third, ... of the runs above: the first is the tree it hangs on already.
        others = low[run] + 1 + np.arange(len(run)) - np.repeat(np.cumsum(more) - more, more)
        pairs = root[run], root[others]
        count -= np.bincount(runs.region[_joined(*pairs)], minlength=len(count))
    return count


def _joined(one_N: NDArray[Any], other_N: NDArray[Any]) -> list[int]:
    """Trees that are no longer their own when each pair of trees is joined."""
    parent: dict[int, int] = {}

    def top(tree: int) -> int:
        while (up := parent.get(tree, tree)) != tree:
            parent[tree] = tree = parent.get(up, up)
        return tree

    apart = one_N != other_N
    lost = []
    for one, other in zip(one_N[apart].tolist(), other_N[apart].tolist(), strict=True):
        low, high = sorted((top(one), top(other)))
        if low != high:
            parent[high] = low
            lost.append(high)
    return lost
