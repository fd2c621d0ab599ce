"""Sparse matrices as scipy writes them (npz), without scipy and without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.arrays import read_array, read_bytes
from sammed_data.types import ReadError

_FORMATS = ("csr", "csc", "coo")


def read_places(path: Path) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Where a two-dimensional sparse matrix is not zero.

    Returns:
        Its shape, and the places as flat indices in C order, (N,) int64.

    Raises:
        ReadError: damaged, of another format, or with an index outside the shape.
    """
    kind = read_bytes(path, "format").decode("ascii", "replace").strip("\0")
    if kind not in _FORMATS:
        raise ReadError(f"{path}: expected a sparse matrix csr, csc or coo, found {kind[:20]!r}")
    shape = [int(n) for n in read_array(path, "shape", item=None).reshape(-1)]
    if len(shape) != 2 or min(shape) < 1:
        raise ReadError(f"{path}: expected a matrix with two axes, found the shape {shape}")
    data = read_array(path, "data", item=None).reshape(-1)
    if kind == "coo":
        row, column = (_whole(path, n) for n in ("row", "col"))
    else:
        minor = _whole(path, "indices")
        major = _expanded(path, shape[kind == "csc"], len(minor))
        row, column = (major, minor) if kind == "csr" else (minor, major)
    if not len(row) == len(column) == len(data):
        raise ReadError(
            f"{path}: expected as many values as places, found {len(data)} and {len(row)}; "
            "fetch it again"
        )
    if len(row) and (
        min(row.min(), column.min()) < 0 or row.max() >= shape[0] or column.max() >= shape[1]
    ):
        raise ReadError(
            f"{path}: expected places inside {shape}, found one outside; fetch it again"
        )
    marked = data != 0
    return (shape[0], shape[1]), row[marked] * shape[1] + column[marked]


def _whole(path: Path, name: str) -> NDArray[np.int64]:
    array: NDArray[Any] = read_array(path, name, item=None).reshape(-1)
    if array.dtype.kind not in "ui":
        raise ReadError(f"{path}: expected whole numbers in {name!r}, found {array.dtype}")
    return array.astype(np.int64)


def _expanded(path: Path, n_major: int, n_values: int) -> NDArray[np.int64]:
    """Row (or column) of every value from where each row begins."""
    starts = _whole(path, "indptr")
    steps = np.diff(starts)
    if len(starts) != n_major + 1 or starts[0] != 0 or starts[-1] != n_values or (steps < 0).any():
        raise ReadError(
            f"{path}: expected {n_major + 1} rising row starts up to {n_values}, found others; "
            "fetch it again"
        )
    return np.repeat(np.arange(n_major, dtype=np.int64), steps)
