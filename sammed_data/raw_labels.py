"""Raw label values: reading them on one grid, naming the unknown ones, cutting thresholds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.catalog import CatalogEntry
from sammed_data.geometry import grid_words, same_grid
from sammed_data.intensity import counts
from sammed_data.readers.picture_stack import is_picture_stack, on_series, read_picture_stack
from sammed_data.readers.registry import read_label_map
from sammed_data.slices import in_memory_order
from sammed_data.stages import stage
from sammed_data.types import (
    Case,
    CatalogError,
    Geometry,
    GeometryError,
    LabelFile,
    ReadError,
    nearest,
)

_RANGE = re.compile(r"(-?\d+)-(-?\d+)")


@stage("label values")
def values_in(array_ZYX: NDArray[Any]) -> list[int]:
    """Sorted distinct values of an integer map.

    Counting is far faster than sorting a whole CT label map.
    """
    flat = in_memory_order(array_ZYX).reshape(-1)
    packed = flat.flags.c_contiguous and flat.dtype.itemsize == 1 and flat.size % 8 == 0
    if packed:  # runs of one value are looked at once
        words = flat.view(np.uint64)
        flat = np.append(words[1:][words[1:] != words[:-1]], words[:1]).view(flat.dtype)
    counted = counts(flat)
    if counted is None:
        return [int(v) for v in np.unique(flat)]
    return [int(v) + counted[0] for v in np.flatnonzero(counted[1])]


def foreground(
    case: Case, path: Path, array: NDArray[Any], entry: CatalogEntry
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Cut a mask at the threshold; without one only 0 and one other value are believed.

    Returns:
        (Z, Y, X) foreground and the pixels to ignore, None where the entry ignores no value.

    Raises:
        ReadError: colours, or several values and no threshold.
    """
    rule = entry.label_encoding
    array = grey(case, path, array)
    values = [int(v) for v in rule.ignore if v.lstrip("-").isdigit()]
    ignore = np.isin(array, values) if values else None
    if rule.threshold is None:
        found = [v for v in values_in(array) if v not in values]
        if sum(v != 0 for v in found) > 1:
            shown = ", ".join(str(v) for v in found[:8]) + (", ..." if len(found) > 8 else "")
            raise ReadError(
                f"{relative(case, path)}: expected a mask of 0 and one other value, found "
                f"{len(found)} values ({shown}); state `threshold` in the entry's label_encoding"
            )
        mask = array != 0
    else:
        mask = array > rule.threshold
    mask = ~mask if rule.inverted else mask
    mask = _filled(mask) if rule.fill else mask
    return (mask if ignore is None else mask & ~ignore), ignore


def _filled(mask_ZYX: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What closed outlines enclose, slice by slice."""
    from scipy.ndimage import binary_fill_holes

    return np.stack([binary_fill_holes(plane) for plane in mask_ZYX])


class Grid:
    """The one grid that all label files of a case must share."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._first: Path | None = None
        self.geometry: Geometry | None = None
        self.shape_zyx: tuple[int, int, int] = (0, 0, 0)

    def read(self, file: LabelFile, *, colours: bool = False) -> NDArray[Any]:
        """Read one label file; GeometryError if its grid is not that of the first."""
        geometry: Geometry | None
        path, series = file.path, self._case.image_path
        if is_picture_stack(path):
            array, geometry = read_picture_stack(path, series)
        else:
            array, geometry = read_label_map(
                path, colours=colours, channel=file.channel, pick=file.pick
            )
            if geometry is None and series.is_dir() and array.shape[0] > 1:
                array, geometry = on_series(path, array, series)
        z, y, x = array.shape[:3]
        self.accept(path, (z, y, x), geometry)
        return array

    def accept(
        self, path: Path, shape_zyx: tuple[int, int, int], geometry: Geometry | None
    ) -> None:
        """Take the grid of a label file; GeometryError if it is not that of the first."""
        z, y, x = shape_zyx
        if self._first is None:
            self._first, self.geometry, self.shape_zyx = path, geometry, (z, y, x)
        elif (z, y, x) != self.shape_zyx or not same_grid(geometry, self.geometry):
            raise GeometryError(
                f"{relative(self._case, path)}: expected the grid of "
                f"{relative(self._case, self._first)}, "
                f"{grid_words(self.shape_zyx, self.geometry)}, found "
                f"{grid_words((z, y, x), geometry)}; label files of a case must share a grid"
            )


def class_of(case: Case, file: LabelFile, entry: CatalogEntry) -> str:
    """Raw label of a file of one class: its ``{structure}``, else '*', else the only one.

    Raises:
        ReadError: the structure is not one of the entry's labels.
        CatalogError: there is no structure and the entry has several labels.
    """
    if file.structure is not None:
        if file.structure in entry.labels:
            return file.structure
        raise ReadError(
            f"{relative(case, file.path)}: expected a structure of {entry.id}, found "
            f"{file.structure!r}; {nearest(file.structure, entry.labels)}"
        )
    keys = [key for key in entry.labels if key != "0"]
    if "*" in entry.labels or len(keys) == 1:
        return "*" if "*" in entry.labels else keys[0]
    raise CatalogError(
        f"{entry.id}: expected one label (or '*') for the encoding {entry.label_encoding.type}, "
        f"found {', '.join(keys) or 'none'}; use {{structure}} in the label pattern"
    )


def grey(case: Case, path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Drop the channel axis of a mask whose channels are equal; ReadError otherwise."""
    if array.ndim == 3:
        return array
    if (array == array[..., :1]).all():
        return array[..., 0]
    raise ReadError(
        f"{relative(case, path)}: expected a mask of one channel (or three equal ones), found "
        "colours; use the encoding `rgb`"
    )


def refuse_unknown(
    case: Case, path: Path, entry: CatalogEntry, strange: Iterable[int | str]
) -> None:
    """Raise a ReadError that names the strange raw values, the file and the known ones."""
    found = sorted(strange, key=lambda v: (isinstance(v, str), v))
    if found:
        shown = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
        keys = ", ".join(list(entry.labels)[:20]) + (", ..." if len(entry.labels) > 20 else "")
        raise ReadError(
            f"{relative(case, path)}: expected the raw labels of {entry.id} ({keys}), found "
            f"{shown}; add them to `labels`, `ignore` or `unlabelled_ok` of the entry"
        )


class RawValues:
    """Raw labels that are numbers or ranges of numbers ('1-10'), to be asked by value."""

    def __init__(self, entry: CatalogEntry, keys: Iterable[str]) -> None:
        self.exact: dict[int, str] = {}
        self._ranges: list[tuple[int, int, str]] = []
        for key in keys:
            found = _RANGE.fullmatch(key.strip())
            if found is None:
                self.exact[integer(entry, key)] = key
            else:
                self._ranges.append((int(found[1]), int(found[2]), key))

    def __contains__(self, value: int) -> bool:
        return self.key(value) is not None

    @property
    def has_ranges(self) -> bool:
        """Whether any raw label is a range."""
        return bool(self._ranges)

    def key(self, value: int) -> str | None:
        """The raw label of a value; a number of its own wins over a range that holds it."""
        if value in self.exact:
            return self.exact[value]
        return next((key for low, high, key in self._ranges if low <= value <= high), None)


def is_range(key: str) -> bool:
    """Whether a raw label is a range such as '1-10'."""
    return _RANGE.fullmatch(key.strip()) is not None


def integer(entry: CatalogEntry, key: str) -> int:
    """Raw label as a whole number; CatalogError otherwise."""
    try:
        return int(key)
    except ValueError as err:
        raise CatalogError(
            f"{entry.id}: expected whole numbers as raw labels of the encoding "
            f"{entry.label_encoding.type}, found {key!r}; mend `labels`"
        ) from err


def colour_code(entry: CatalogEntry, key: str) -> int:
    """Raw label 'r,g,b' as one number; CatalogError otherwise."""
    parts = [p.strip() for p in key.split(",")]
    if len(parts) != 3 or not all(p.isdigit() and int(p) < 256 for p in parts):
        raise CatalogError(
            f"{entry.id}: expected colours 'r,g,b' of 0 to 255 as raw labels, found {key!r}; "
            "mend `labels`"
        )
    r, g, b = map(int, parts)
    return r << 16 | g << 8 | b


def colour_words(code: int) -> str:
    """The inverse of `colour_code`."""
    return f"{code >> 16},{code >> 8 & 255},{code & 255}"


def relative(case: Case, path: Path) -> str:
    """Path below the dataset root, for sentences."""
    return path.relative_to(case.root).as_posix() if path.is_relative_to(case.root) else path.name


def union(maps: Iterable[NDArray[np.bool_] | None]) -> NDArray[np.bool_] | None:
    """Any of the given maps; None where none is given."""
    given = [m for m in maps if m is not None]
    return np.logical_or.reduce(given) if given else None
