"""Numeric arrays of MATLAB files, versions 5 to 7; written out here, for a damaged file makes
scipy's reader crash the process. Cells, structs, text and sparse arrays are listed, not read.

Layout: a header of 128 bytes, then elements of (type, bytes, data); an array is an element of
elements: flags, dimensions, name, values. Version 7 deflates each array.
"""  # noqa: D205 - the reason is one sentence

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import ReadError

_HEADER = 128
_MATRIX, _DEFLATED = 14, 15
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
           13: "u8"}  # fmt: skip
_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function",
            17: "opaque"}  # fmt: skip
_NUMERIC_CLASSES = range(6, 16)
#: Flags, dimensions and name of an array are read from so many bytes.
_PROLOGUE = 1 << 16
_MAX_AXES = 32


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One array of a file.

    Attributes:
        kind: 'numbers', or what else MATLAB calls it.
        start, size: of its element in the file.
        deflated: the element is a zlib stream.
        at, n_bytes, dtype: of the values inside the element; n_bytes 0 where it holds no numbers.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    start: int
    size: int
    deflated: bool
    at: int
    n_bytes: int
    dtype: str


def variables(path: Path) -> list[Variable]:
    """All arrays of a file, from their headers.

    Raises:
        ReadError: version 4, or a damaged file.
    """
    head = first_bytes(path, _HEADER)
    little = head[126:128] == b"IM"
    if len(head) < _HEADER or head[126:128] not in (b"IM", b"MI"):
        raise ReadError(
            f"{path}: expected a mat file of version 5 to 7, found another header; save it again "
            "in MATLAB with `-v7`, or as npy"
        )
    order = "<" if little else ">"
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return list(_elements(path, data, order))


def read(path: Path, variable: Variable) -> NDArray[Any]:
    """Values of an array, in MATLAB's axes.

    Raises:
        ReadError: it holds no numbers, is too large, or the file is damaged.
    """
    if variable.kind != "numbers":
        raise ReadError(
            f"{path}: expected an array of numbers in {variable.name!r}, found {variable.kind}; "
            "choose another variable or convert the file"
        )
    dtype = np.dtype(variable.dtype)
    check_size(path, variable.shape, dtype.itemsize)
    count = prod(variable.shape)
    if variable.n_bytes < count * dtype.itemsize:
        raise _damaged(path, f"{variable.n_bytes:,} bytes for the shape {variable.shape}")
    end = variable.at + count * dtype.itemsize
    with path.open("rb") as stream:
        stream.seek(variable.start)
        if variable.deflated:
            body = _inflated(path, stream.read(variable.size), end, whole=True)
        else:
            body = stream.read(end)
    if len(body) < end:
        raise _damaged(path, f"{len(body):,} of {end:,} bytes of {variable.name!r}")
    flat = np.frombuffer(body, dtype=dtype, count=count, offset=variable.at)
    return flat.reshape(variable.shape, order="F")


def _elements(path: Path, data: mmap.mmap, order: str) -> Iterator[Variable]:
    place = _HEADER
    while place + 8 <= len(data):
        kind, size = (int(n) for n in np.frombuffer(data, f"{order}u4", 2, place))
        start = place + 8
        if start + size > len(data):
            raise _damaged(path, f"an element of {size:,} bytes in {len(data) - start:,}")
        if kind == _DEFLATED:
            body = _inflated(path, data[start : start + size], _PROLOGUE, whole=False)
            if int.from_bytes(body[:4], "little" if order == "<" else "big") == _MATRIX:
                yield _variable(path, body, 8, order, (start, size, True))
        elif kind == _MATRIX:
            yield _variable(path, data[start : start + min(size, _PROLOGUE)], 0, order,
                            (start, size, False))  # fmt: skip
        place = start + size


def _inflated(path: Path, data: bytes, limit: int, *, whole: bool) -> bytes:
    """At most ``limit`` bytes of a zlib stream; ``whole``: its checksum must be reached."""
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(data, limit)
        rest = _PROLOGUE
        while whole and not stream.eof and rest:
            more = stream.decompress(stream.unconsumed_tail, rest)
            rest -= len(more)
            if not more and not stream.unconsumed_tail:
                break
    except zlib.error as err:
        raise _damaged(path, str(err)) from err
    if whole and not stream.eof:
        raise _damaged(path, "a zlib stream without an end")
    return body


def _variable(
    path: Path, body: bytes, at: int, order: str, place: tuple[int, int, bool]
) -> Variable:
    """Parse flags, dimensions, name and the tag of the values."""
    flags, at, _ = _part(path, body, at, order)
    dimensions, at, kind = _part(path, body, at, order)
    name, at, _ = _part(path, body, at, order)
    if len(flags) < 4 or kind not in (5, 6) or not 0 < len(dimensions) <= 4 * _MAX_AXES:
        raise _damaged(path, "an array without flags or dimensions")
    word = int(np.frombuffer(flags, f"{order}u4", 1)[0])
    shape = tuple(int(n) for n in np.frombuffer(dimensions, f"{order}i4", len(dimensions) // 4))
    number, is_complex = word & 0xFF, bool(word & 0x0800)
    numbers = number in _NUMERIC_CLASSES and not is_complex
    n_bytes, dtype = 0, "u1"
    if numbers:
        kind, n_bytes, at, _ = _tag(path, body, at, order)
        if kind not in _DTYPES or min(shape) < 0:
            raise _damaged(path, f"values of the unknown type {kind}")
        dtype = order + _DTYPES[kind]
    return Variable(
        name=name.decode("latin-1"),
        shape=shape,
        kind="numbers" if numbers else "complex" if is_complex else _CLASSES.get(number, "unknown"),
        start=place[0],
        size=place[1],
        deflated=place[2],
        at=at,
        n_bytes=n_bytes,
        dtype=dtype,
    )


def _part(path: Path, body: bytes, at: int, order: str) -> tuple[bytes, int, int]:
    """(data, place after it, type) of one element inside an array."""
    kind, size, start, after = _tag(path, body, at, order)
    if start + size > len(body):
        raise _damaged(path, "an element that ends outside its array")
    return body[start : start + size], after, kind


def _tag(path: Path, body: bytes, at: int, order: str) -> tuple[int, int, int, int]:
    """(type, bytes, start of the data, place of the next element); elements fill 8 bytes."""
    if at + 8 > len(body):
        raise _damaged(path, "an array that ends in its header")
    first, second = (int(n) for n in np.frombuffer(body, f"{order}u4", 2, at))
    if first >> 16:  # up to 4 bytes of data stand in the tag itself
        return first & 0xFFFF, min(first >> 16, 4), at + 4, at + 8
    return first, second, at + 8, at + 8 + (second + 7) // 8 * 8


def _damaged(path: Path, found: str) -> ReadError:
    return ReadError(
        f"{path}: expected a whole mat file, found a damaged one ({found}); fetch it again"
    )
