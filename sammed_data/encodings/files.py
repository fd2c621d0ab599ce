"""One mask a file: of a class, or of an object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.encodings.boundaries import between_boundaries
from sammed_data.layers import Region, pack
from sammed_data.raw_labels import (
    Grid,
    RawValues,
    class_of,
    foreground,
    grey,
    refuse_unknown,
    union,
    values_in,
)
from sammed_data.tables import class_of_image
from sammed_data.types import Case, LabelFile, LabelLayer, LabelVolume, Volume


def binary(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One mask a file, all of the entry's one class; several files are several observers.

    With a ``table`` the class is that of the whole image.
    """
    table = entry.label_encoding.table
    key = None if table is None else class_of_image(case, table)
    grid = Grid(case)
    layers: list[LabelLayer] = []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        mask, ignore = _mask(case, file, entry, like, grid)
        ignores.append(ignore)
        if key is None:
            names = {1: class_of(case, file, entry)}
        elif key in entry.label_encoding.unlabelled_ok:
            names, mask = {}, np.zeros_like(mask)
        else:
            refuse_unknown(case, case.tables[0], entry, [] if key in entry.labels else [key])
            names = {1: key}
        layers.append(
            LabelLayer(array_ZYX=mask.astype(np.uint8), names=names, annotator=file.annotator)
        )
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))


def file_per_class(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One mask a file, its class in the file name; an empty file says the structure is absent."""
    return _one_mask_a_file(case, entry, like, instances=False)


def file_per_instance(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One object a file, numbered by sorted path."""
    if entry.label_encoding.inner_values:
        return _parts_of_objects(case, entry)
    return _one_mask_a_file(case, entry, like, instances=True)


def _mask(
    case: Case, file: LabelFile, entry: CatalogEntry, like: Volume, grid: Grid
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    if "B" in (file.pick.axes or ""):
        mask = between_boundaries(file, like)
        z, y, x = mask.shape
        grid.accept(file.path, (z, y, x), like.geometry)
        return mask, None
    return foreground(case, file.path, grid.read(file), entry)


def _numbered(case: Case) -> list[tuple[int, LabelFile]]:
    return list(enumerate(sorted(case.labels, key=lambda f: f.path.as_posix()), start=1))


def _one_mask_a_file(
    case: Case, entry: CatalogEntry, like: Volume, *, instances: bool
) -> LabelVolume:
    rule = entry.label_encoding
    grid = Grid(case)
    regions: dict[int, list[Region]] = {}
    ignores: list[NDArray[np.bool_] | None] = []
    for number, file in _numbered(case):
        mask, ignore = _mask(case, file, entry, like, grid)
        ignores.append(ignore)
        drawn = regions.setdefault(file.annotator, [])
        if file.structure in rule.ignore:
            ignores.append(mask)
        elif file.structure not in rule.unlabelled_ok:
            drawn.append(
                Region(
                    name=class_of(case, file, entry),
                    voxels_N=np.flatnonzero(mask),
                    instance=number if instances else None,
                )
            )
    layers = [layer for a in sorted(regions) for layer in pack(regions[a], grid.shape_zyx, a)]
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))


def _parts_of_objects(case: Case, entry: CatalogEntry) -> LabelVolume:
    """One object a file, whose pixel values are its parts."""
    keys = RawValues(entry, entry.labels)
    ignored = RawValues(entry, entry.label_encoding.ignore)
    quiet = RawValues(entry, entry.label_encoding.unlabelled_ok)
    grid = Grid(case)
    regions: dict[int, list[Region]] = {}
    ignores: list[NDArray[np.bool_] | None] = []
    for number, file in _numbered(case):
        array = grey(case, file.path, grid.read(file))
        present = [v for v in values_in(array) if v]
        known = [v for v in present if v in keys]
        lost = [v for v in present if v in ignored]
        strange = {v for v in present if v not in quiet} - set(known) - set(lost)
        refuse_unknown(case, file.path, entry, strange)
        ignores.append(np.isin(array, lost) if entry.label_encoding.ignore else None)
        groups: dict[str, list[int]] = {}
        for value in known:
            groups.setdefault(str(keys.key(value)), []).append(value)
        regions.setdefault(file.annotator, []).extend(
            Region(name=key, voxels_N=np.flatnonzero(np.isin(array, values)), instance=number)
            for key, values in groups.items()
        )
    layers = [layer for a in sorted(regions) for layer in pack(regions[a], grid.shape_zyx, a)]
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))
