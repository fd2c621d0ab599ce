"""Maps of objects whose class stands elsewhere: in a colour, a second map, a channel, a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.encodings.maps import cleared, colour_codes
from sammed_data.raw_labels import (
    Grid,
    class_of,
    colour_code,
    grey,
    integer,
    refuse_unknown,
    relative,
    union,
    values_in,
)
from sammed_data.tables import lines_of, table_rows
from sammed_data.types import (
    Case,
    CatalogError,
    LabelFile,
    LabelLayer,
    LabelVolume,
    ReadError,
    Volume,
)


def rgb_instances(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One map where every colour but black is an object, in however many pieces."""
    return _coloured(case, entry, connected=False)


def instance_colors(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One map where every connected area of one colour but black is an object."""
    return _coloured(case, entry, connected=True)


def _coloured(case: Case, entry: CatalogEntry, *, connected: bool) -> LabelVolume:
    ignored = sorted(colour_code(entry, v) for v in entry.label_encoding.ignore)
    silent = [0, *(colour_code(entry, v) for v in entry.label_encoding.unlabelled_ok), *ignored]
    grid = Grid(case)
    layers: list[LabelLayer] = []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        code = colour_codes(grid, file, entry)
        ignores.append(np.isin(code, ignored) if ignored else None)
        code = np.where(np.isin(code, silent), 0, code)
        numbers = _areas(code) if connected else _ranked(code)
        ids = range(1, int(numbers.max()) + 1)
        layers.append(
            LabelLayer(
                array_ZYX=numbers.astype(np.int32),
                names=dict.fromkeys(ids, class_of(case, file, entry)),
                instances={v: v for v in ids},
                annotator=file.annotator,
            )
        )
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))


def _ranked(code_ZYX: NDArray[np.int64]) -> NDArray[np.int64]:
    """Colours as 1, 2, 3, ... in ascending order; 0 stays 0."""
    colours, inverse = np.unique(code_ZYX, return_inverse=True)
    first = 0 if colours[0] == 0 else 1
    return np.asarray(inverse.reshape(code_ZYX.shape) + first)


def _areas(code_ZYX: NDArray[np.int64]) -> NDArray[np.int64]:
    """Areas of equal colour as 1, 2, 3, ..., joined over corners too, slice by slice."""
    from skimage.measure import label

    numbers = np.zeros(code_ZYX.shape, np.int64)
    for k, plane in enumerate(code_ZYX):
        found = label(plane, background=0, connectivity=2)
        numbers[k] = np.where(found > 0, found + numbers.max(), 0)
    return numbers


def typed_instances(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """Two arrays of one file: ids of objects, and the class of every pixel.

    An object has the class of most of its pixels.
    """
    names = entry.label_encoding.variables
    quiet = {integer(entry, v) for v in entry.label_encoding.unlabelled_ok}
    keys = {integer(entry, key): key for key in entry.labels}
    grid = Grid(case)
    layers: list[LabelLayer] = []
    for file in case.labels:
        ids_ZYX, types_ZYX = (
            grid.read(replace(file, pick=replace(file.pick, variable=names[kind])))
            for kind in ("instances", "types")
        )
        class_by_id = _most_frequent(ids_ZYX, types_ZYX)
        strange = {c for c in class_by_id.values() if c not in keys and c not in quiet}
        refuse_unknown(case, file.path, entry, strange)
        drop = {v for v, c in class_by_id.items() if c not in keys}
        kept = sorted(set(class_by_id) - drop)
        layers.append(
            LabelLayer(
                array_ZYX=cleared(ids_ZYX, drop, {}),
                names={v: keys[class_by_id[v]] for v in kept},
                instances={v: v for v in kept},
                annotator=file.annotator,
            )
        )
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry)


def _most_frequent(ids_ZYX: NDArray[np.int_], types_ZYX: NDArray[np.int_]) -> dict[int, int]:
    """Id of an object -> the type of most of its pixels, the lowest where two are equal."""
    inside = ids_ZYX > 0
    pairs = np.stack([ids_ZYX[inside], types_ZYX[inside]])
    unique, counts = np.unique(pairs, axis=1, return_counts=True)
    best: dict[int, tuple[int, int]] = {}
    for (number, kind), count in zip(unique.T.tolist(), counts.tolist(), strict=True):
        if count > best.get(number, (0, 0))[0]:
            best[number] = (count, kind)
    return {number: kind for number, (_, kind) in best.items()}


def channel_instances(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One array whose channel c holds the ids of the objects of class c."""
    keys = {integer(entry, key): key for key in entry.labels}
    quiet = {integer(entry, v) for v in entry.label_encoding.unlabelled_ok}
    ignored = {integer(entry, v) for v in entry.label_encoding.ignore}
    grid = Grid(case)
    layers: list[LabelLayer] = []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        array = _channels(case, file, grid)
        found = set(range(array.shape[-1]))
        refuse_unknown(
            case, file.path, entry, [f"channel {c}" for c in found - set(keys) - quiet - ignored]
        )
        missing = set(keys) - found
        if missing:
            raise ReadError(
                f"{relative(case, file.path)}: expected a channel {min(missing)} "
                f"({keys[min(missing)]}), found {len(found)} channels; check `axes` and `labels`"
            )
        for channel in sorted(keys):
            plane = array[..., channel]
            ids = [v for v in values_in(plane) if v]
            layers.append(
                LabelLayer(
                    array_ZYX=plane,
                    names=dict.fromkeys(ids, keys[channel]),
                    instances={v: v for v in ids},
                    annotator=file.annotator,
                )
            )
        ignores.extend(array[..., c] != 0 for c in sorted(ignored))
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))


def _channels(case: Case, file: LabelFile, grid: Grid) -> NDArray[np.int_]:
    array = grid.read(file)
    if array.ndim != 4:
        raise ReadError(
            f"{relative(case, file.path)}: expected an array with a channel a class, found none; "
            "state `axes` with C in the label pattern"
        )
    return array


def instance_csv(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One map of objects; a table says the class of each (image, object)."""
    table = entry.label_encoding.table
    if table is None:
        raise CatalogError(f"{entry.id}: the encoding instance_csv needs `table`")
    rows = table_rows(table, case.tables)
    lines = lines_of(table, case.tables, case.fields)
    class_by_id: dict[int, str] = {}
    for line in lines:
        text = rows.cell(line, table.value_column)
        if not text.isdigit():
            raise ReadError(
                f"{line.place}: expected the number of an object in {table.value_column!r}, "
                f"found {text!r}; mend the table"
            )
        class_by_id[int(text)] = rows.cell(line, table.class_column)
    grid = Grid(case)
    layers: list[LabelLayer] = []
    ignores: list[NDArray[np.bool_] | None] = []
    rule = entry.label_encoding
    for file in case.labels:
        array = grey(case, file.path, grid.read(file))
        ids = [v for v in values_in(array) if v]
        lost = [v for v in ids if v not in class_by_id]
        if lost:
            raise ReadError(
                f"{relative(case, file.path)}: expected objects that {lines[0].path.name} lists, "
                f"found {', '.join(map(str, lost[:8]))}; mend the table or leave the image out"
            )
        known = {v: class_by_id[v] for v in ids if class_by_id[v] in entry.labels}
        hidden = [v for v in ids if class_by_id[v] in rule.ignore]
        others = [v for v in ids if v not in known and v not in hidden]
        strange = {class_by_id[v] for v in others} - set(rule.unlabelled_ok)
        refuse_unknown(case, lines[0].path, entry, strange)
        ignores.append(np.isin(array, hidden) if rule.ignore else None)
        layers.append(
            LabelLayer(
                array_ZYX=cleared(array, {*hidden, *others}, {}),
                names=known,
                instances={v: v for v in known},
                annotator=file.annotator,
            )
        )
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))
