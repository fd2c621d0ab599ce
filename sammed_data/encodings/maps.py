"""One map of values or colours a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.layers import Region, pack
from sammed_data.raw_labels import (
    Grid,
    RawValues,
    class_of,
    colour_code,
    colour_words,
    grey,
    is_range,
    refuse_unknown,
    union,
    values_in,
)
from sammed_data.runs import of_volume
from sammed_data.types import Case, LabelFile, LabelLayer, LabelVolume, Volume


def index(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One map of class values, or of ranges of values ('55-70')."""
    rule = entry.label_encoding
    keys = RawValues(entry, [k for k in entry.labels if k not in rule.recompose])
    ignored, quiet = RawValues(entry, rule.ignore), RawValues(entry, rule.unlabelled_ok)
    parts = {v for values in rule.recompose.values() for v in values}
    grid = Grid(case)
    layers: list[LabelLayer] = []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        array = grey(case, file.path, grid.read(file))
        runs = of_volume(array)
        present = values_in(array) if runs is None else runs.values()
        strange = [
            v for v in present
            if v and v not in keys and v not in ignored and v not in quiet and v not in parts
        ]  # fmt: skip
        refuse_unknown(case, file.path, entry, strange)
        lost = [v for v in present if v in ignored]
        ignores.append(np.isin(array, lost) if rule.ignore else None)
        named = {v: key for v in present if (key := keys.key(v)) is not None and v not in lost}
        if rule.recompose:
            layers.extend(_recomposed(entry, array, named, file.annotator))
            continue
        array, named = _joined(array, named)
        drop = {v for v in present if v and v not in keys}
        array = cleared(array, drop | set(lost) - {0}, named)
        one = LabelLayer(array_ZYX=array, names=named, annotator=file.annotator, runs=runs)
        layers.append(one)
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))


def _joined(array: NDArray[Any], named: dict[int, str]) -> tuple[NDArray[Any], dict[int, str]]:
    """Values of one range become the lowest of them."""
    lowest: dict[str, int] = {}
    for value in sorted(named):
        lowest.setdefault(named[value], value)
    for key, first in lowest.items():
        others = [v for v, k in named.items() if k == key and v != first]
        if others:
            array = np.where(np.isin(array, others), np.array(first, array.dtype), array)
    return array, {first: key for key, first in lowest.items()}


def _recomposed(
    entry: CatalogEntry, array: NDArray[Any], named: dict[int, str], annotator: int
) -> tuple[LabelLayer, ...]:
    """Masks that share raw values; each is the union of its own."""
    flat = array.reshape(-1)
    groups = {key: list(v) for key, v in entry.label_encoding.recompose.items()}
    for value, key in named.items():
        groups.setdefault(key, []).append(value)
    used = {v for values in groups.values() for v in values}
    # Most of a volume is background, which is looked at once only.
    places = np.arange(flat.size) if 0 in used else np.flatnonzero(flat)
    values_N = flat[places]
    regions = [
        Region(name=key, voxels_N=places[np.isin(values_N, values)])
        for key, values in groups.items()
    ]
    z, y, x = (int(n) for n in array.shape)
    return pack(regions, (z, y, x), annotator)


def cleared(array: NDArray[Any], drop: set[int], named: dict[int, str]) -> NDArray[Any]:
    """Set dropped values to background; a class stored as 0 moves to a free value in ``named``."""
    dropped = np.isin(array, sorted(drop)) if drop else None
    if 0 in named:
        top = int(array.max()) + 1
        named[top] = named.pop(0)
        array = np.where(array == 0, top, array.astype(np.int64))
    return array if dropped is None else np.where(dropped, 0, array)


def instance_ids(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One map where every value above 0 is an object; ranges of values may say its class."""
    ignored = RawValues(entry, entry.label_encoding.ignore)
    quiet = RawValues(entry, entry.label_encoding.unlabelled_ok)
    classes = RawValues(entry, [k for k in entry.labels if is_range(k)])
    grid = Grid(case)
    layers: list[LabelLayer] = []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        array = grey(case, file.path, grid.read(file))
        present = [v for v in values_in(array) if v]
        ids = [v for v in present if v not in ignored and v not in quiet]
        strange = [v for v in ids if v < 0 or (classes.has_ranges and v not in classes)]
        refuse_unknown(case, file.path, entry, strange)
        lost = [v for v in present if v in ignored]
        ignores.append(np.isin(array, lost) if entry.label_encoding.ignore else None)
        if classes.has_ranges:
            names = {v: str(classes.key(v)) for v in ids}
        else:
            names = dict.fromkeys(ids, class_of(case, file, entry))
        layers.append(
            LabelLayer(
                array_ZYX=cleared(array, set(present) - set(ids), {}),
                names=names,
                instances={v: v for v in ids},
                annotator=file.annotator,
            )
        )
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))


def rgb(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One map of colours; keys are 'r,g,b', black is background unless the entry names it."""
    keys = {colour_code(entry, key): key for key in entry.labels}
    ignored = {colour_code(entry, v) for v in entry.label_encoding.ignore}
    silent = {colour_code(entry, v) for v in entry.label_encoding.unlabelled_ok} | ignored
    silent |= {0} - set(keys)
    grid = Grid(case)
    layers: list[LabelLayer] = []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        code = colour_codes(grid, file, entry)
        present, inverse = np.unique(code, return_inverse=True)
        strange = [int(v) for v in present if int(v) not in keys and int(v) not in silent]
        refuse_unknown(case, file.path, entry, [colour_words(v) for v in sorted(strange)])
        known = [int(v) for v in present if int(v) in keys]
        table = np.array([known.index(int(v)) + 1 if int(v) in keys else 0 for v in present])
        layers.append(
            LabelLayer(
                array_ZYX=table[inverse.reshape(code.shape)].astype(np.int32),
                names={k: keys[v] for k, v in enumerate(known, start=1)},
                annotator=file.annotator,
            )
        )
        ignores.append(np.isin(code, sorted(ignored)) if ignored else None)
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))


def colour_codes(grid: Grid, file: LabelFile, entry: CatalogEntry) -> NDArray[np.int64]:
    """(Z, Y, X) colours as one number a pixel; rounded to 0 and 255 where the entry says so."""
    array = grid.read(file, colours=True)
    array = array[..., None].repeat(3, axis=-1) if array.ndim == 3 else array
    if entry.label_encoding.round_colours:
        array = np.where(array >= 128, 255, 0)
    return np.asarray(array.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]))
