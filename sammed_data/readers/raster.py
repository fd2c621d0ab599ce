"""PNG, JPEG, TIFF, BMP, GIF, PNM (also gzipped): one slice, without a geometry.

EXIF orientation is applied to neither images nor masks: both stay as stored, which a row of a
photograph that is to be shown turned says in its notes. The resolution tags of raster files speak
of print, not of tissue, and are not read.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import ReadError, Volume

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
    ".ppm.gz", ".pgm.gz",
)  # fmt: skip
# Others that PIL knows run a program (EPS) or open files that they name.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM")
_ORIENTATION = 0x0112  # tag of EXIF
_WHITE_IS_ZERO, _PALETTE = 0, 3  # values of the PhotometricInterpretation tag of TIFF
_TIFF_DAMAGE = (OSError, IndexError, ValueError, KeyError, TypeError, RuntimeError, ArithmeticError)


def read(path: Path) -> Volume:
    """Read an image as (Z, Y, X) or (Z, Y, X, 3); alpha is dropped, 16 bits are kept.

    Raises:
        ReadError: empty, damaged or too large, or not an image.
    """
    array = _load(path, colours=True)
    bits = 8 if array.dtype == bool else max(8, min(32, array.dtype.itemsize * 8))
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    return Volume(array=array, geometry=None, bits=bits, warnings=turned(path))


def read_labels(path: Path, *, colours: bool = False) -> NDArray[Any]:
    """Read a mask as stored: (Z, Y, X), or (Z, Y, X, 3) where it has colours; 1 bit -> 0 and 1.

    A palette of greys gives its greys; one of colours gives its indices unless ``colours``.
    """
    array = _load(path, colours=colours)
    return array.astype(np.uint8) if array.dtype == bool else array


def _load(path: Path, *, colours: bool) -> NDArray[Any]:
    head = first_bytes(path, 26)
    if head[:2] in (b"II", b"MM"):
        array = _load_tiff(path, colours=colours)
    elif head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:26] in (
        b"\x10\x02",
        b"\x10\x04",
        b"\x10\x06",
    ):
        array = _load_deep_png(path, head)
    else:
        array = _load_pil(path, colours=colours)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    return _without_alpha(path, array)


def _load_pil(path: Path, *, colours: bool) -> NDArray[Any]:
    """Decode through PIL: the only decoder here that tells palette, 1-bit and size first."""
    from PIL import Image, UnidentifiedImageError

    try:
        with _unzipped(path) as stream, Image.open(stream, formats=_FORMATS) as image:
            width, height = image.size
            check_size(path, (height, width, len(image.getbands())), 2 if "16" in image.mode else 1)
            n_frames = int(getattr(image, "n_frames", 1))
            if image.format == "GIF" and n_frames > 1:
                raise ReadError(
                    f"{path}: expected a GIF of one frame, found {n_frames}; "
                    "write each frame to a file"
                )
            if image.mode == "P":
                palette = np.asarray(image.convert("RGB"))
                return _from_palette(np.asarray(image), palette, colours=colours)[None]
            if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "PA"):
                array = np.asarray(image.convert("RGB"))
            else:
                array = np.asarray(image)
    except UnidentifiedImageError as err:
        raise ReadError(
            f"{path}: expected an image ({', '.join(SUFFIXES)}), found other content; "
            "check that the file is what its name says"
        ) from err
    except Image.DecompressionBombError as err:
        raise ReadError(
            f"{path}: expected an image of ordinary size, found one that {err}; cut it into tiles"
        ) from err
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(
            f"{path}: expected a whole image, found a damaged one ({err}); fetch it again"
        ) from err
    if array.dtype == np.int32 and array.min() >= 0 and array.max() < 65536:
        array = array.astype(np.uint16)  # older PIL widens a 16-bit PNG
    return array[None]


def turned(path: Path) -> tuple[str, ...]:
    """A warning if a photograph states that it is to be shown turned or mirrored."""
    from PIL import Image

    if first_bytes(path, 2) != b"\xff\xd8":
        return ()
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError):
        return ()
    if orientation in (0, 1):
        return ()
    return (f"EXIF orientation {orientation} is not applied",)


def _unzipped(path: Path) -> IO[bytes]:
    """The bytes of a picture; a gzip around it is taken off while reading."""
    if first_bytes(path, 2) == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def half_of(path: Path, array: NDArray[Any], half: str | None) -> NDArray[Any]:
    """The left or right half of a picture that holds image and label side by side.

    Raises:
        ReadError: the picture has an odd number of columns.
    """
    if half is None:
        return array
    width = array.shape[2]
    if width % 2:
        raise ReadError(
            f"{path}: expected two halves side by side, found {width} columns, an odd number; "
            "check `half` of the entry's patterns"
        )
    return array[:, :, : width // 2] if half == "left" else array[:, :, width // 2 :]


def _load_deep_png(path: Path, head: bytes) -> NDArray[Any]:
    """Decode a PNG of 16 bits and several channels, which PIL would cut to 8 bits."""
    import cv2

    width, height = (int.from_bytes(head[k : k + 4], "big") for k in (16, 20))
    check_size(path, (height, width, 4), 2)
    array = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ReadError(f"{path}: expected a whole PNG, found a damaged one; fetch it again")
    if array.ndim == 2:
        return np.asarray(array[None])
    return np.asarray(array[None, ..., [2, 1, 0]])  # OpenCV gives BGR


def _from_palette(indices: NDArray[Any], rgb: NDArray[Any], *, colours: bool) -> NDArray[Any]:
    if (rgb == rgb[..., :1]).all():
        return rgb[..., 0]
    return rgb if colours else indices


def _load_tiff(path: Path, *, colours: bool) -> NDArray[Any]:
    """Decode all pages of the first series of a TIFF; pages become slices."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            series, page = tif.series[0], tif.pages.first
            check_size(path, tuple(series.shape), series.dtype.itemsize if series.dtype else 8)
            axes, array = series.axes, series.asarray()
            photometric, table = int(page.photometric), page.colormap
    except (tifffile.TiffFileError, *_TIFF_DAMAGE) as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(
            f"{path}: expected a whole TIFF, found a damaged one ({err}); fetch it again"
        ) from err
    if photometric == _WHITE_IS_ZERO:
        array = ~array if array.dtype.kind in "ub" else array
    if photometric == _PALETTE and table is not None:
        rgb = (np.asarray(table) >> 8).astype(np.uint8).T[array]
        array = _from_palette(array, rgb, colours=colours)
        axes += "S" if array.ndim > len(axes) else ""
    if "S" in axes and axes[-1] != "S":
        array = np.moveaxis(array, axes.index("S"), -1)
    tail = array.shape[-3:] if "S" in axes else array.shape[-2:]
    return array.reshape((-1, *tail))


def _without_alpha(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3:
        return array
    channels = array.shape[-1]
    if channels in (1, 2):
        return array[..., 0]
    if channels in (3, 4):
        return array[..., :3]
    raise ReadError(
        f"{path}: expected 1 to 4 channels, found {channels}; split the file by channel"
    )
