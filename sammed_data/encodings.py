"""Label files -> masks: one function an encoding; an unknown raw value is never dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.geometry import grid_words, resample_image_to, same_grid
from sammed_data.layers import Region, pack
from sammed_data.raw_labels import (
    Grid,
    class_of,
    colour_code,
    colour_words,
    foreground,
    grey,
    integer,
    refuse_unknown,
    relative,
    union,
    values_in,
)
from sammed_data.types import (
    Case,
    Geometry,
    GeometryError,
    LabelFile,
    LabelLayer,
    LabelVolume,
    ReadError,
    Volume,
)

Encoding = Callable[[Case, CatalogEntry, Volume], LabelVolume]


def read_labels(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """Read all masks of a case in the way its entry says.

    Args:
        case: with its label files.
        entry: says encoding, label names and ignore values.
        like: the image; DICOM SEG and RTSTRUCT are drawn on its grid.

    Raises:
        ReadError: a file is damaged, or holds a raw value the entry does not know.
        GeometryError: label files of one case lie on different grids.
    """
    if not case.labels:
        raise ReadError(
            f"{case.dataset} {case.case_id}: expected at least one label file, found none; "
            "check the entry's label patterns"
        )
    return ENCODINGS[entry.label_encoding.type](case, entry, like)


def pair_on_grid(image: Volume, labels: LabelVolume, entry: CatalogEntry) -> Volume:
    """Return the image on the grid of its labels.

    It is resampled only where the entry says ``grid: resample_image``.

    Raises:
        GeometryError: the grids differ; the sentence states both.
    """
    image_shape = tuple(int(n) for n in image.array.shape[:3])
    if image_shape == labels.shape_zyx and same_grid(image.geometry, labels.geometry):
        return image
    if entry.grid == "resample_image" and labels.geometry is not None:
        return resample_image_to(image, labels.geometry)
    raise GeometryError(
        "expected image and labels on one grid, found the image "
        f"{grid_words(image_shape, image.geometry)} and the labels "
        f"{grid_words(labels.shape_zyx, labels.geometry)}; check that they belong together, "
        "or state `grid: resample_image` in the entry"
    )


def _index(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One map of class values."""
    keys = {integer(entry, key): key for key in entry.labels}
    ignored = {integer(entry, v) for v in entry.label_encoding.ignore}
    silent = {integer(entry, v) for v in entry.label_encoding.unlabelled_ok} | ignored
    silent |= {0} - set(keys)
    grid, layers = Grid(case), []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        array = grey(case, file.path, grid.read(file.path))
        present = set(values_in(array))
        refuse_unknown(case, file.path, entry, present - set(keys) - silent)
        ignores.append(np.isin(array, sorted(ignored)) if ignored else None)
        named = {v: keys[v] for v in sorted(present & set(keys))}
        array = _cleared(array, present & silent - {0}, named)
        layers.append(LabelLayer(array_ZYX=array, names=named, annotator=file.annotator))
    return LabelVolume(
        layers=tuple(layers),
        geometry=grid.geometry,
        ignore_ZYX=union(ignores),
    )


def _cleared(array: NDArray[Any], drop: set[int], named: dict[int, str]) -> NDArray[Any]:
    """Set dropped values to background; a class stored as 0 moves to a free value in ``named``."""
    dropped = np.isin(array, sorted(drop)) if drop else None
    if 0 in named:
        top = int(array.max()) + 1
        named[top] = named.pop(0)
        array = np.where(array == 0, top, array.astype(np.int64))
    return array if dropped is None else np.where(dropped, 0, array)


def _binary(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One mask a file, all of the entry's one class; several files are several observers."""
    grid, layers = Grid(case), []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        mask, ignore = foreground(case, file.path, grid.read(file.path), entry)
        names = {1: class_of(case, file, entry)}
        layers.append(
            LabelLayer(array_ZYX=mask.astype(np.uint8), names=names, annotator=file.annotator)
        )
        ignores.append(ignore)
    return LabelVolume(layers=tuple(layers), geometry=grid.geometry, ignore_ZYX=union(ignores))


def _file_per_class(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One mask a file, its class in the file name; an empty file says the structure is absent."""
    return _one_mask_a_file(case, entry, instances=False)


def _file_per_instance(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One object a file, numbered by sorted path."""
    return _one_mask_a_file(case, entry, instances=True)


def _one_mask_a_file(case: Case, entry: CatalogEntry, *, instances: bool) -> LabelVolume:
    rule = entry.label_encoding
    grid = Grid(case)
    regions: dict[int, list[Region]] = {}
    ignores: list[NDArray[np.bool_] | None] = []
    for number, file in enumerate(sorted(case.labels, key=lambda f: f.path.as_posix()), start=1):
        mask, ignore = foreground(case, file.path, grid.read(file.path), entry)
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


def _instance_ids(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One map where every value above 0 is an object."""
    ignored = {integer(entry, v) for v in entry.label_encoding.ignore}
    silent = {integer(entry, v) for v in entry.label_encoding.unlabelled_ok} | ignored | {0}
    grid, layers = Grid(case), []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        array = grey(case, file.path, grid.read(file.path))
        present = set(values_in(array))
        refuse_unknown(case, file.path, entry, {v for v in present - silent if v < 0})
        ignores.append(np.isin(array, sorted(ignored)) if ignored else None)
        ids = sorted(present - silent)
        layers.append(
            LabelLayer(
                array_ZYX=_cleared(array, present & silent - {0}, {}),
                names=dict.fromkeys(ids, class_of(case, file, entry)),
                instances={v: v for v in ids},
                annotator=file.annotator,
            )
        )
    return LabelVolume(
        layers=tuple(layers),
        geometry=grid.geometry,
        ignore_ZYX=union(ignores),
    )


def _rgb(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """One map of colours; keys are 'r,g,b', black is background unless the entry names it."""
    keys = {colour_code(entry, key): key for key in entry.labels}
    ignored = {colour_code(entry, v) for v in entry.label_encoding.ignore}
    silent = {colour_code(entry, v) for v in entry.label_encoding.unlabelled_ok} | ignored
    silent |= {0} - set(keys)
    grid, layers = Grid(case), []
    ignores: list[NDArray[np.bool_] | None] = []
    for file in case.labels:
        array = grid.read(file.path, colours=True)
        array = array[..., None].repeat(3, axis=-1) if array.ndim == 3 else array
        code = array.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
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
    return LabelVolume(
        layers=tuple(layers),
        geometry=grid.geometry,
        ignore_ZYX=union(ignores),
    )


def _dicom_seg(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """DICOM SEG objects; a segment's key is its label if the entry has it, else its number."""
    from sammed_data.readers import dicom_seg
    from sammed_data.readers.dicom_header import only_file

    geometry = _needed_geometry(case, like)
    found = [(f, dicom_seg.read(only_file(f.path), geometry)) for f in case.labels]
    return _from_regions(case, entry, geometry, found, ())


def _rtstruct(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    """RTSTRUCT objects; a ROI's key is its name."""
    from sammed_data.readers import rtstruct
    from sammed_data.readers.dicom_header import frame_of_reference, only_file

    geometry = _needed_geometry(case, like)
    image_frame = frame_of_reference(case.image_path)
    found: list[tuple[LabelFile, list[Region]]] = []
    warnings: list[str] = []
    for file in case.labels:
        regions, said = rtstruct.read(only_file(file.path), geometry, image_frame)
        found.append((file, regions))
        warnings += said
    return _from_regions(case, entry, geometry, found, tuple(warnings))


def _from_regions(
    case: Case,
    entry: CatalogEntry,
    geometry: Geometry,
    found: list[tuple[LabelFile, list[Region]]],
    warnings: tuple[str, ...],
) -> LabelVolume:
    rule = entry.label_encoding
    kept: dict[int, list[Region]] = {}
    ignore = np.zeros(geometry.shape_zyx, dtype=bool)
    for file, regions in found:
        drawn = kept.setdefault(file.annotator, [])
        strange = []
        for region in regions:
            names = [region.name] + ([str(region.number)] if region.number is not None else [])
            key = next((n for n in names if n in entry.labels), None)
            if key is not None:
                drawn.append(Region(name=key, voxels_N=region.voxels_N))
            elif any(n in rule.ignore for n in names):
                ignore.reshape(-1)[region.voxels_N] = True
            elif not any(n in rule.unlabelled_ok for n in names):
                strange.append(repr(region.name or names[-1]))
        refuse_unknown(case, file.path, entry, strange)
    return LabelVolume(
        layers=tuple(x for a in sorted(kept) for x in pack(kept[a], geometry.shape_zyx, a)),
        geometry=geometry,
        ignore_ZYX=ignore if rule.ignore else None,
        warnings=warnings,
    )


def _needed_geometry(case: Case, like: Volume) -> Geometry:
    if like.geometry is None:
        raise GeometryError(
            f"{relative(case, case.image_path)}: expected an image with a position in space for "
            "its DICOM labels, found none; check the entry's image pattern"
        )
    return like.geometry


ENCODINGS: Mapping[str, Encoding] = {
    "index": _index,
    "values": _index,
    "binary": _binary,
    "file_per_class": _file_per_class,
    "file_per_instance": _file_per_instance,
    "instance_ids": _instance_ids,
    "rgb": _rgb,
    "dicom_seg": _dicom_seg,
    "rtstruct": _rtstruct,
}
