"""The loops of `_planes.c`, compiled at installation where there is a C compiler (hatch_build.py).

Everything here has its counterpart in numpy and OpenCV with the same results, which runs where
:func:`planes` is None: no compiler, a library of another version, or ``SAMMED_CODECS=plain``.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data import codecs

#: As in `_planes.c`.
VERSION = 1
LIBRARY = Path(__file__).with_name("_planes.so")
_TABLES, _CODES = 4, 1 << 16
#: Columns of what :meth:`Planes.regions` finds, int32.
REGION = ("plane", "value", "left", "top", "right", "bottom", "area", "components")
_MOST_VALUES = 255
_pointer, _int64, _int32, _float = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float
_ARGUMENTS = {
    "version": (_int32, []),
    "counts": (None, [_pointer, _int64, _pointer]),
    "window_i2": (None, [_pointer, _int64, _float, _float, _pointer]),
    "window_u2": (None, [_pointer, _int64, _float, _float, _pointer]),
    "runs": (_int64, [_pointer, *[_int64] * 4, *[_pointer] * 5]),
    "regions": (_int64, [*[_pointer] * 5, _int64, _pointer, _pointer]),
    "bits": (
        None,
        [*[_pointer] * 5, _int64, _int64, _int32, _int32, _pointer, _int64, _pointer, _pointer],
    ),
}

#: values uint8, y, start and stop int32, of all runs; how many there are up to each plane.
Runs = tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.int64]]


class Planes:
    """The functions of one loaded library; arrays are of the dtypes said and contiguous."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Declares what each function takes."""
        self._library = library
        for name, (result, arguments) in _ARGUMENTS.items():
            function = getattr(library, f"sammed_{name}")
            function.restype, function.argtypes = result, arguments

    @property
    def version(self) -> int:
        """Of the C file it was compiled from."""
        return int(self._library.sammed_version())

    def counts(self, codes_N: NDArray[np.uint16]) -> NDArray[np.int64]:
        """(65536,) how often each pattern stands there."""
        found = np.zeros(_CODES, np.int64)
        step = 1 << 31  # tables are of 32 bits
        for first in range(0, len(codes_N), step):
            tables, block = np.zeros((_TABLES, _CODES), np.uint32), codes_N[first : first + step]
            self._library.sammed_counts(_at(block), len(block), _at(tables))
            found += tables.sum(axis=0, dtype=np.int64)
        return found

    def window(self, values: NDArray[Any], low: float, scale: float) -> NDArray[np.uint8]:
        """``(values - low) * scale`` of int16 or uint16, clipped to 0..255 and rounded."""
        found = np.empty(values.shape, np.uint8)
        of_kind = getattr(self._library, f"sammed_window_{values.dtype.kind}2")
        of_kind(_at(values), values.size, low, scale, _at(found))
        return found

    def runs(self, planes_ZYX: NDArray[np.uint8], room: int) -> Runs | None:
        """All runs as the planes lie in memory; None where there are more than ``room``."""
        depth, height, width = planes_ZYX.shape
        value = np.empty(room, np.uint8)
        places = [np.empty(room, np.int32) for _ in range(3)]
        ends = np.empty(depth, np.int64)
        count = self._library.sammed_runs(
            _at(planes_ZYX), depth, height, width, room,
            _at(value), *map(_at, places), _at(ends),
        )  # fmt: skip
        if count < 0:
            return None
        y, start, stop = (each[:count].copy() for each in places)
        return value[:count].copy(), y, start, stop, ends

    def regions(self, runs: Runs, *, components: bool) -> NDArray[np.int32]:
        """(N, 8) the columns of ``REGION``, as planes lie in memory; components 0 if not asked."""
        ends = runs[-1]
        longest = int(np.diff(ends, prepend=0).max(initial=0))
        parent = np.empty(longest, np.int32) if components else None
        found = np.empty((min(len(ends) * _MOST_VALUES, len(runs[0])), len(REGION)), np.int32)
        count = self._library.sammed_regions(
            *map(_at, runs), len(ends), None if parent is None else _at(parent), _at(found)
        )
        return found[:count]

    def bits(
        self,
        runs: Runs,
        shape_hw: tuple[int, int],
        back_yx: tuple[bool, bool],
        found: NDArray[np.int32],
        offsets: NDArray[np.int64],
        n_bytes: int,
    ) -> NDArray[np.uint8]:
        """(n_bytes,) packed rows of the boxes, each region's from its offset on.

        Args:
            runs: as planes lie in memory.
            shape_hw: of a plane.
            back_yx: whether rows and columns are stored backwards.
            found: by :meth:`regions`, with boxes as stored.
            offsets: of each region.
            n_bytes: of all of them.
        """
        bits = np.zeros(n_bytes, np.uint8)
        self._library.sammed_bits(
            *map(_at, runs), *shape_hw, *back_yx, _at(found), len(found), _at(offsets), _at(bits)
        )
        return bits


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data


def planes() -> Planes | None:
    """The compiled loops; None where there are none."""
    return None if codecs.PLAIN else _loaded()


@cache
def _loaded() -> Planes | None:
    try:
        found = Planes(ctypes.CDLL(str(LIBRARY)))
    except (OSError, AttributeError):  # not compiled, of another machine, or of another source
        return None
    return found if found.version == VERSION else None
