"""Arrays of numpy (npy, npz) and MATLAB (mat, from version 5) by name; never through pickle.

Such files hold numbers only: no spacing, no orientation. What the axes are is said by the entry.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers import mat5, mat73
from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import Pick, ReadError, Volume, nearest

SUFFIXES = (".npy", ".npz", ".mat")
_NPY_DAMAGE = (
    ValueError, EOFError, OSError, SyntaxError, TypeError, UnicodeDecodeError, TokenError,
    RecursionError, MemoryError, OverflowError,
)  # fmt: skip
_ZIP_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError,
    RuntimeError, LookupError,
)  # fmt: skip


def shape_of(path: Path, variable: str | None) -> tuple[int, ...]:
    """Shape of an array as its header states it, without reading the values.

    Raises:
        ReadError: damaged, too large, or no such array.
    """
    if path.suffix.lower() == ".npy":
        with _opened(path) as stream:
            return _npy_header(path, stream, whole=False)[0]
    if path.suffix.lower() == ".npz":
        with _member(path, variable) as stream:
            return _npy_header(path, stream, whole=False)[0]
    if mat73.is_hdf5(path):
        found = mat73.headers(path)
        return found[_choose(path, list(found), variable)][0]
    return _mat_variable(path, variable).shape


def headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, kind of numpy's dtype) of the arrays of numbers; a npy file's name is ''.

    Raises:
        ReadError: damaged, or a mat file of version 7.3 without h5py.
    """
    suffix = path.suffix.lower()
    if suffix == ".mat" and mat73.is_hdf5(path):
        return mat73.headers(path)
    if suffix == ".mat":
        found = [v for v in mat5.variables(path) if v.name and v.kind == "numbers"]
        return {v.name: (v.shape, np.dtype(v.dtype).kind) for v in found}
    if suffix == ".npy":
        with _opened(path) as stream:
            shape, _, dtype = _npy_header(path, stream, whole=False)
        return {"": (shape, dtype.kind)}
    out: dict[str, tuple[tuple[int, ...], str]] = {}
    with _archive(path) as archive:
        for member in archive.namelist():
            if not member.endswith(".npy"):
                continue
            with archive.open(member) as stream:
                shape, _, dtype = _npy_header(path, stream, whole=False)
            if dtype.kind in "buif":
                out[member.removesuffix(".npy")] = (shape, dtype.kind)
    return out


def read_array(path: Path, variable: str | None, *, item: tuple[int, int] | None) -> NDArray[Any]:
    """Read one array in its stored axes.

    Args:
        path: npy, npz or mat file.
        variable: name of the array; not needed where the file holds one.
        item: (axis, index): only this part; of a npy file only its bytes are read.

    Raises:
        ReadError: damaged, too large, of another kind than numbers, or no such array.
    """
    suffix = path.suffix.lower()
    first_bytes(path)
    if suffix == ".npy":
        array = _read_npy(path, item)
        item = None
    elif suffix == ".npz":
        array = _read_npz(path, variable)
    elif mat73.is_hdf5(path):
        array = mat73.read(path, _choose(path, list(mat73.headers(path)), variable))
    else:
        array = mat5.read(path, _mat_variable(path, variable))
    if array.dtype.kind not in "buif":
        raise ReadError(f"{path}: expected an array of numbers, found {array.dtype}; convert it")
    if item is not None:
        array = np.take(array, _inside(path, array.shape, item), axis=item[0])
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _inside(path: Path, shape: tuple[int, ...], item: tuple[int, int]) -> int:
    axis, index = item
    if axis >= len(shape) or index >= shape[axis]:
        raise ReadError(
            f"{path}: expected an array with item {index} along axis {axis}, found the shape "
            f"{shape}; check `axes`, and that image and label files have equally many items"
        )
    return index


def _opened(path: Path) -> IO[bytes]:
    first_bytes(path)
    return path.open("rb")


def _npy_header(
    path: Path, stream: IO[bytes], *, whole: bool
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, dtype) of a npy stream; ``whole``: the array must fit the limit."""
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream)
    except _NPY_DAMAGE as err:
        raise ReadError(
            f"{path}: expected a npy header, found a damaged or unknown one ({err}); "
            "fetch the file again"
        ) from err
    if dtype.hasobject:
        raise ReadError(
            f"{path}: expected an array of numbers, found Python objects, which are never "
            "unpickled; save it again as numbers"
        )
    check_size(path, shape or (1,), dtype.itemsize if whole else 0)
    return shape, fortran, dtype


def _read_npy(path: Path, item: tuple[int, int] | None) -> NDArray[Any]:
    with _opened(path) as stream:
        shape, fortran, dtype = _npy_header(path, stream, whole=item is None)
        offset = stream.tell()
    expected = offset + prod(shape) * dtype.itemsize
    found = path.stat().st_size
    if found < expected:
        raise ReadError(
            f"{path}: expected {expected:,} bytes for the shape {shape}, found {found:,}; "
            "the file is truncated, fetch it again"
        )
    if item is None:
        flat = np.fromfile(path, dtype=dtype, count=prod(shape), offset=offset)
        return flat.reshape(shape, order="F" if fortran else "C")
    index = _inside(path, shape, item)
    mapped = np.memmap(
        path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C"
    )
    part = mapped[(slice(None),) * item[0] + (index,)]
    check_size(path, part.shape or (1,), dtype.itemsize)
    return np.array(part)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A npz file, opened; ReadError for whatever is damaged in it."""
    first_bytes(path)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _ZIP_DAMAGE as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(
            f"{path}: expected a whole npz file, found a damaged one ({err}); fetch it again"
        ) from err


@contextmanager
def _member(path: Path, variable: str | None) -> Iterator[IO[bytes]]:
    """The named array of a npz file, or its only one, as a stream; its checksum is compared.

    Raises:
        ReadError: damaged, or no such array.
    """
    with _archive(path) as archive:
        names = {n.removesuffix(".npy"): n for n in archive.namelist() if n.endswith(".npy")}
        with archive.open(names[_choose(path, list(names), variable)]) as stream:
            yield stream


def _choose(path: Path, names: list[str], variable: str | None) -> str:
    """The named array, or the only one."""
    if variable is None and len(names) == 1:
        return names[0]
    if variable is None:
        raise ReadError(
            f"{path}: expected one array, found {', '.join(names[:12]) or 'none'}; "
            "name it in `variable` of the entry's pattern"
        )
    if variable not in names:
        raise ReadError(
            f"{path}: expected an array {variable!r}, found {', '.join(names[:12]) or 'none'}; "
            f"{nearest(variable, names)}"
        )
    return variable


def _read_npz(path: Path, variable: str | None) -> NDArray[Any]:
    with _member(path, variable) as stream:
        shape, fortran, dtype = _npy_header(path, stream, whole=True)
        n_bytes = prod(shape) * dtype.itemsize
        data = stream.read(n_bytes)
        stream.read(1)  # reaches the end of the member, where its checksum is compared
    if len(data) < n_bytes:
        raise ReadError(
            f"{path}: expected {n_bytes:,} bytes for the shape {shape}, found {len(data):,}; "
            "the file is truncated, fetch it again"
        )
    flat = np.frombuffer(data, dtype=dtype, count=prod(shape))
    return flat.reshape(shape, order="F" if fortran else "C")


def read_bytes(path: Path, variable: str) -> bytes:
    """A short text that a npz file holds as an array without axes, such as b'csr'.

    Raises:
        ReadError: damaged, longer than 64 bytes, or no such array.
    """
    with _member(path, variable) as stream:
        shape, _, dtype = _npy_header(path, stream, whole=True)
        if shape != () or dtype.kind != "S" or dtype.itemsize > 64:
            raise ReadError(f"{path}: expected a short text in {variable!r}, found {dtype}")
        return stream.read(dtype.itemsize)


def _mat_variable(path: Path, variable: str | None) -> mat5.Variable:
    found = {v.name: v for v in mat5.variables(path) if v.name}
    return found[_choose(path, list(found), variable)]


def read(path: Path, pick: Pick) -> Volume:
    """Read an image as (Z, Y, X), or (Z, Y, X, 3) where ``axes`` has C.

    Raises:
        ReadError: see `read_array`; axes that do not fit; colours outside 0 to 255.
    """
    axes, array = _picked(path, pick)
    array = _ordered(path, array, axes, "ZYXC" if "C" in axes else "ZYX")
    if not np.isfinite(array).all() or array.dtype.kind != "f":
        whole = False
    else:
        whole = bool((array == np.rint(array)).all() and array.min() >= 0 and array.max() <= 255)
    if whole or array.dtype == bool:
        array = array.astype(np.uint8)
    if "C" in axes:
        array = _colours(path, array)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return Volume(array=array, bits=max(8, min(32, 8 * array.dtype.itemsize)))


def _colours(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    channels = array.shape[-1]
    if channels == 1:
        return array[..., 0]
    if channels not in (3, 4) or array.min() < 0 or array.max() > 255 or array.dtype.kind == "f":
        raise ReadError(
            f"{path}: expected 3 colour channels of whole numbers from 0 to 255, found "
            f"{channels} channels of {array.dtype} up to {array.max():g}; check `axes`"
        )
    return array[..., :3].astype(np.uint8)


def read_labels(path: Path, pick: Pick) -> NDArray[Any]:
    """Read labels as (Z, Y, X), with the axis C of ``axes`` last, or boundaries (B, Z, X).

    A slice that is all NaN was not annotated and comes back as 0; boundaries keep their NaN.

    Raises:
        ReadError: see `read_array`; axes that do not fit; NaN inside a slice.
    """
    axes, array = _picked(path, pick)
    if "B" in axes:
        return _ordered(path, array, axes, "BZX").astype(np.float64)
    array = _ordered(path, array, axes, "ZYXC" if "C" in axes else "ZYX")
    if array.dtype.kind != "f":
        return array
    missing = np.isnan(array)
    others = tuple(range(1, array.ndim))
    if (missing.any(others) != missing.all(others)).any():
        raise ReadError(
            f"{path}: expected labels, found NaN inside a slice; only whole slices may be "
            "without a value"
        )
    return np.where(missing, 0, array)


def _picked(path: Path, pick: Pick) -> tuple[str, NDArray[Any]]:
    """Letters of the axes that are left once the item along N is taken, and the array."""
    axes = pick.axes or ""
    item = None if pick.item is None else (axes.index("N"), pick.item)
    if item is not None:
        axes = axes.replace("N", "")
    array = read_array(path, pick.variable, item=item)
    if not axes:
        axes = {2: "YX", 3: "ZYX"}.get(array.ndim, "")
    if len(axes) != array.ndim or "N" in axes:
        raise ReadError(
            f"{path}: expected an array with the axes {axes or 'YX or ZYX'}, found the shape "
            f"{array.shape}; state `axes` in the entry's pattern"
        )
    return axes, array


def _ordered(path: Path, array: NDArray[Any], axes: str, wanted: str) -> NDArray[Any]:
    """Bring axes into the wanted order; a missing Z becomes one slice."""
    if set(axes) - set(wanted) or set(wanted) - set(axes) - {"Z"}:
        raise ReadError(
            f"{path}: expected axes that make {wanted}, found {axes}; check `axes` of the entry"
        )
    if "Z" not in axes:
        array, axes = array[None], "Z" + axes
    return np.ascontiguousarray(array.transpose([axes.index(letter) for letter in wanted]))
