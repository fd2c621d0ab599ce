"""Numeric arrays of MATLAB files of version 7.3, which are HDF5, where h5py is installed.

Only arrays that lie in the file itself are read: no links and no external or virtual storage, by
which a file could name others. Cells, structs and text are left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import ReadError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HEADER = 128
_KINDS = "buif"
# MATLAB writes text and truth values as whole numbers, and says so.
_NO_NUMBERS = (b"char", b"cell", b"struct")
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


def is_hdf5(path: Path) -> bool:
    """Whether a mat file is of version 7.3, by its first bytes."""
    head = first_bytes(path, _HEADER)
    little = head[126:128] == b"IM"
    return head[:8] == _HDF5 or (len(head) == _HEADER and head[125 if little else 124] == 2)


def headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape in MATLAB's axes, kind of numpy's dtype) of the arrays of numbers.

    Raises:
        ReadError: h5py is not installed, or the file is damaged.
    """
    with _opened(path) as (file, h5py):
        found = {n: _own(file, n, h5py) for n in file if not n.startswith("#")}
        return {
            name: (tuple(int(n) for n in data.shape[::-1]), data.dtype.kind)
            for name, data in found.items()
            if data is not None
        }


def read(path: Path, name: str) -> NDArray[Any]:
    """Values of an array, in MATLAB's axes.

    Raises:
        ReadError: h5py is not installed; no such array; too large; or the file is damaged.
    """
    with _opened(path) as (file, h5py):
        data = _own(file, name, h5py)
        if data is None:
            raise ReadError(f"{path}: expected an array of numbers in {name!r}, found none")
        check_size(path, data.shape, data.dtype.itemsize)
        return np.asarray(data[()]).T  # HDF5 has the axes the other way round


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError as err:
        raise ReadError(
            f"{path}: expected a mat file up to version 7, found version 7.3 (HDF5), which needs "
            "h5py: `pip install 'sammed[mat]'`; or save it again in MATLAB with `-v7`, or as npy"
        ) from err
    try:
        with h5py.File(path, "r") as file:
            yield file, h5py
    except _DAMAGE as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(
            f"{path}: expected a whole mat file of version 7.3, found a damaged one ({err}); fetch "
            "it again"
        ) from err


def _own(file: Any, name: str, h5py: Any) -> Any:
    """The array of numbers of this name that lies in the file itself, else None."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return None
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in _KINDS:
        return None
    if data.is_virtual or data.external or data.attrs.get("MATLAB_empty", 0):
        return None
    return None if data.attrs.get("MATLAB_class", b"") in _NO_NUMBERS else data
