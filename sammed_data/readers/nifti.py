"""NIfTI-1 and NIfTI-2, one file, plain or gzip: decoded as a stream of known length."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sammed_data import codecs
from sammed_data.geometry import canonicalize, lps_geometry
from sammed_data.readers import inflate
from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import Geometry, ReadError, Volume

_HEADER_BYTES = {348: "nibabel.nifti1", 540: "nibabel.nifti2"}


def read(path: Path, *, channel: int | None = None) -> Volume:
    """Read an image; ``channel`` picks from the last axis of a 4D file.

    Raises:
        ReadError: empty, truncated or damaged file, or several channels and none chosen.
    """
    array, geometry, bits, warnings = _load(path, channel)
    return Volume(array=array, geometry=geometry, bits=bits, warnings=warnings)


def read_labels(path: Path, *, channel: int | None = None) -> tuple[NDArray[Any], Geometry]:
    """Read a label map as stored; the registry checks that its values are integers."""
    array, geometry, _, _ = _load(path, channel)
    return array, geometry


def _load(path: Path, channel: int | None) -> tuple[NDArray[Any], Geometry, int, tuple[str, ...]]:
    header, body = _read(path, gzipped=first_bytes(path, 2) == b"\x1f\x8b")
    dtype = header.get_data_dtype()
    shape = tuple(int(n) for n in header.get_data_shape())
    if dtype.itemsize == 0:
        raise ReadError(
            f"{path}: expected voxels of a NIfTI data type, found the type 'unknown'; write the "
            "file again"
        )
    array = np.frombuffer(body, dtype=dtype).reshape(shape[::-1])
    array = _pick(path, array, channel, shape)
    array = _scaled(array, header)
    bits = max(8, min(32, 8 * (dtype.itemsize if dtype.names is None else 1)))
    known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    warnings = () if known else ("NIfTI header states no orientation; its default is used",)
    geometry = lps_geometry(header.get_best_affine(), array.shape[:3])
    array, geometry = canonicalize(array, geometry, path)
    return array, geometry, bits, warnings


def _open(path: Path, *, gzipped: bool) -> IO[bytes] | gzip.GzipFile:
    if not gzipped:
        return path.open("rb")
    try:
        from isal import igzip
    except ImportError:  # isal has no wheel for every machine
        return gzip.GzipFile(path, "rb")
    return gzip.GzipFile(path, "rb") if codecs.PLAIN else igzip.IGzipFile(str(path), "rb")


def _damage() -> tuple[type[Exception], ...]:
    """What a damaged gzip stream raises, by the decoder that is installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return EOFError, OSError, zlib.error
    isal_error: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # stub: an instance
    return EOFError, OSError, zlib.error, isal_error


def _read(path: Path, *, gzipped: bool) -> tuple[Any, Any]:
    """Return the header and a buffer of exactly the declared voxel bytes."""
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with _open(path, gzipped=gzipped) as stream:
            header, offset, n_bytes = _header(path, stream.read(540))
            whole = inflate.one_member(path, offset + n_bytes) if gzipped else None
            if whole is not None:
                return header, whole[offset : offset + n_bytes]
            body = _rest(path, stream, offset, n_bytes, gzipped=gzipped)
    except _damage() as err:
        raise ReadError(
            f"{path}: expected a whole gzip stream, found a truncated or damaged one ({err}); "
            "fetch the file again"
        ) from err
    except (HeaderDataError, WrapStructError, KeyError) as err:
        raise ReadError(
            f"{path}: expected a NIfTI header, found a damaged one ({err}); fetch the file again"
        ) from err
    if len(body) < n_bytes:
        raise ReadError(
            f"{path}: expected {n_bytes:,} bytes of voxels after the header, found "
            f"{len(body):,}; the file is truncated, fetch it again"
        )
    return header, body


def _header(path: Path, head: bytes) -> tuple[Any, int, int]:
    """Header object, where the voxels begin, and how many bytes they are."""
    from importlib import import_module

    little, big = (int.from_bytes(head[:4], order) for order in ("little", "big"))
    size = next((n for n in (little, big) if n in _HEADER_BYTES), None)
    if size is None or len(head) < size:
        raise ReadError(
            f"{path}: expected a NIfTI header of 348 or 540 bytes, found {len(head)} bytes "
            "that are none; check that the file is NIfTI and complete"
        )
    kind = import_module(_HEADER_BYTES[size])
    cls = kind.Nifti1Header if size == 348 else kind.Nifti2Header
    header = cls.from_fileobj(io.BytesIO(head[:size]), check=False)
    shape, itemsize = tuple(header.get_data_shape()), header.get_data_dtype().itemsize
    return header, max(int(header["vox_offset"]), size), check_size(path, shape, itemsize)


def _rest(
    path: Path, stream: IO[bytes] | gzip.GzipFile, offset: int, n_bytes: int, *, gzipped: bool
) -> Any:
    """The voxel bytes that the file has: at most ``n_bytes``."""
    if not gzipped:
        there = min(n_bytes, max(0, path.stat().st_size - offset))
        return np.fromfile(path, np.uint8, there, offset=offset)
    stream.seek(offset)
    body = stream.read(n_bytes)
    stream.read(1)  # reaches the trailer of a gzip member, so that its checksum is compared
    return body


def _pick(
    path: Path, array: NDArray[Any], channel: int | None, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Reduce (..., K, J, I) to (K, J, I): channels are the last stored axis, here the first."""
    if array.ndim < 3:
        array = array.reshape((1,) * (3 - array.ndim) + array.shape)
    channels = array.reshape((-1, *array.shape[-3:]))
    if channel is None and len(channels) > 1:
        raise ReadError(
            f"{path}: expected one 3D volume, found {len(channels)} channels ({shape}); "
            "name them in `channel` of the entry's image pattern"
        )
    index = channel or 0
    if not 0 <= index < len(channels):
        raise ReadError(
            f"{path}: expected a channel {index}, found {len(channels)} channels ({shape}); "
            "mend `channel` of the entry's image pattern"
        )
    return channels[index]


def _scaled(array: NDArray[Any], header: Any) -> NDArray[Any]:
    """Real values, without a copy of the volume in a wider type than the result's."""
    if array.dtype.names is not None:  # RGB and RGBA are records; alpha is dropped
        return np.stack([array[name] for name in array.dtype.names[:3]], axis=-1)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    slope, inter = header.get_slope_inter()
    if slope is None or (slope == 1 and inter == 0):
        return array
    scaled: NDArray[Any] = np.empty(array.shape, _scaled_type(array, slope, inter))
    for stored, plane in zip(array, scaled, strict=True):
        plane[...] = stored.astype(np.float64) * slope + inter
    return scaled


def _scaled_type(array: NDArray[Any], slope: float, inter: float) -> type:
    """16-bit integers where they hold all values (CT stored with intercept -1024), else float32."""
    if array.dtype.kind in "ui" and float(slope).is_integer() and float(inter).is_integer():
        ends = sorted(int(end) * slope + inter for end in (array.min(), array.max()))
        if ends[0] >= -32768 and ends[1] <= 32767:
            return np.int16
    return np.float32
