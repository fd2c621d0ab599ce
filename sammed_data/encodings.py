"""Label files -> masks: one function an encoding; an unknown raw value is never dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.geometry import same_grid
from sammed_data.readers.registry import read_label_map
from sammed_data.types import (
    Case,
    Geometry,
    GeometryError,
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
    return ENCODINGS[entry.label_encoding.type](case, entry, like)


def _index(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    ignored = {int(v) for v in entry.label_encoding.ignore}
    silent = {int(v) for v in entry.label_encoding.unlabelled_ok} | ignored
    if "0" not in entry.labels:
        silent.add(0)
    names = {int(key): key for key in entry.labels}
    layers, ignores, geometry = [], [], _Grid()
    for file in case.labels:
        array = _grey(file.path, geometry.read(file.path))
        present = np.unique(array)
        _refuse_unknown(case, file.path, [int(v) for v in present], {*names, *silent}, entry)
        if ignored:
            ignores.append(np.isin(array, sorted(ignored)))
        drop = [v for v in present if int(v) in silent and int(v) != 0]
        if drop:
            array = np.where(np.isin(array, drop), 0, array)
        named = {int(v): names[int(v)] for v in present if int(v) in names}
        if 0 in named:  # 0 means background in a layer: give class 0 a value of its own
            top = int(present.max()) + 1
            background = np.isin(array, drop) if drop else np.zeros(array.shape, bool)
            array = np.where((array == 0) & ~background, top, array.astype(np.int64))
            named[top] = named.pop(0)
        layers.append(LabelLayer(array_ZYX=array, names=named, annotator=file.annotator))
    return LabelVolume(layers=tuple(layers), geometry=geometry.value, ignore_ZYX=_any_of(ignores))


def _binary(case: Case, entry: CatalogEntry, like: Volume) -> LabelVolume:
    key = next(iter(entry.labels))
    layers, ignores, geometry = [], [], _Grid()
    for file in case.labels:
        array = _grey(file.path, geometry.read(file.path))
        mask, ignore = _foreground(case, file.path, array, entry)
        layers.append(LabelLayer(array_ZYX=mask, names={1: key}, annotator=file.annotator))
        ignores += [] if ignore is None else [ignore]
    return LabelVolume(layers=tuple(layers), geometry=geometry.value, ignore_ZYX=_any_of(ignores))


def _foreground(
    case: Case, path: Path, array: NDArray[Any], entry: CatalogEntry
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Threshold a mask to 0 and 1; without a threshold only two values are believed."""
    rule = entry.label_encoding
    ignore = np.isin(array, [int(v) for v in rule.ignore]) if rule.ignore else None
    if rule.threshold is None:
        values = np.unique(array if ignore is None else array[~ignore])
        if len(values) > 2 or (len(values) == 2 and values[0] != 0):
            shown = ", ".join(str(v) for v in values[:8])
            raise ReadError(
                f"{_relative(case, path)}: expected a binary mask of 0 and one other value, found "
                f"{len(values)} values ({shown}); state `threshold` in the entry's label_encoding"
            )
    mask = array > (rule.threshold or 0)
    mask = ~mask if rule.inverted else mask
    if ignore is not None:
        mask &= ~ignore
    return mask.astype(np.uint8), ignore


class _Grid:
    """The one grid all label files of a case must share."""

    def __init__(self) -> None:
        self.value: Geometry | None = None
        self._first: tuple[Path, tuple[int, ...]] | None = None

    def read(self, path: Path) -> NDArray[Any]:
        array, geometry = read_label_map(path)
        if self._first is None:
            self.value, self._first = geometry, (path, array.shape[:3])
        elif array.shape[:3] != self._first[1] or not same_grid(geometry, self.value):
            raise GeometryError(
                f"{path}: expected the grid of {self._first[0].name}, "
                f"{_grid_words(self._first[1], self.value)}, found "
                f"{_grid_words(array.shape[:3], geometry)}; label files of a case must share a grid"
            )
        return array


def _grid_words(shape: tuple[int, ...], geometry: Geometry | None) -> str:
    return geometry.describe() if geometry else f"{' x '.join(map(str, shape))} pixels (z, y, x)"


def _grey(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3:
        return array
    if (array == array[..., :1]).all():
        return array[..., 0]
    raise ReadError(
        f"{path}: expected a mask of one channel (or three equal ones), found colours; "
        "use the encoding `rgb`"
    )


def _refuse_unknown(
    case: Case, path: Path, found: Iterable[int], known: Iterable[int], entry: CatalogEntry
) -> None:
    strange = sorted(set(found) - set(known))
    if strange:
        shown = ", ".join(map(str, strange[:8])) + (", ..." if len(strange) > 8 else "")
        keys = ", ".join(list(entry.labels)[:20]) + (", ..." if len(entry.labels) > 20 else "")
        raise ReadError(
            f"{_relative(case, path)}: expected the label values of {entry.id} ({keys}), found "
            f"{shown}; add them to `labels`, `ignore` or `unlabelled_ok` of the entry"
        )


def _relative(case: Case, path: Path) -> str:
    return path.relative_to(case.root).as_posix() if path.is_relative_to(case.root) else path.name


def _any_of(maps: list[NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    return np.logical_or.reduce(maps) if maps else None


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
        from sammed_data.geometry import resample_image_to

        return resample_image_to(image, labels.geometry)
    raise GeometryError(
        f"expected image and labels on one grid, found the image {_grid_words(image_shape, image.geometry)} "
        f"and the labels {_grid_words(labels.shape_zyx, labels.geometry)}; check that they belong "
        "together, or state `grid: resample_image` in the entry"
    )


ENCODINGS: Mapping[str, Encoding] = {
    "index": _index,
    "values": _index,
    "binary": _binary,
}
