"""PNG, JPEG, TIFF, BMP and GIF: one slice (pages of a TIFF are slices) without a geometry.

EXIF orientation is applied to neither images nor masks: both stay as stored, so they fit each
other. The resolution tags of raster files speak of print, not of tissue, and are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import ReadError, Volume

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")


def read(path: Path) -> Volume:
    """Read an image as (Z, Y, X) or (Z, Y, X, 3); alpha is dropped, 16 bits are kept.

    Raises:
        ReadError: empty, damaged or too large, or not an image.
    """
    array = _load(path)
    bits = 8 if array.dtype == bool else max(8, min(32, array.dtype.itemsize * 8))
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    return Volume(array=array, geometry=None, bits=bits)


def read_labels(path: Path) -> NDArray[Any]:
    """Read a mask as stored: (Z, Y, X), or (Z, Y, X, 3) where it has colours; 1 bit -> 0 and 1."""
    array = _load(path)
    return array.astype(np.uint8) if array.dtype == bool else array


def _load(path: Path) -> NDArray[Any]:
    head = first_bytes(path, 4)
    tiff = head[:2] in (b"II", b"MM")
    array = _load_tiff(path) if tiff else _load_pil(path)
    return _without_alpha(path, array)


def _load_pil(path: Path) -> NDArray[Any]:
    """Decode through PIL: the only decoder here that tells palette, 1-bit and size first."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked on the declared size
    try:
        with Image.open(path) as image:
            width, height = image.size
            check_size(path, (height, width, len(image.getbands())), 2 if "16" in image.mode else 1)
            if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
                image = image.convert("RGB")
            elif image.mode == "P":
                image = _from_palette(image)
            array = np.asarray(image)
    except UnidentifiedImageError as err:
        raise ReadError(
            f"{path}: expected an image ({', '.join(SUFFIXES)}), found other content; "
            "check that the file is what its name says"
        ) from err
    except (OSError, SyntaxError, ValueError) as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(
            f"{path}: expected a whole image, found a damaged one ({err}); fetch it again"
        ) from err
    if array.dtype == np.int32:  # PIL widens 16-bit PNG of mode "I"
        array = array.astype(np.uint16) if array.min() >= 0 and array.max() < 65536 else array
    return array[None]


def _from_palette(image: Any) -> Any:
    """Colours of a palette image; a grey palette stays one channel."""
    rgb = np.asarray(image.convert("RGB"))
    grey = (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all()
    return rgb[..., 0] if grey else rgb


def _load_tiff(path: Path) -> NDArray[Any]:
    """Decode all pages of the first series of a TIFF; pages become slices."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            check_size(path, tuple(series.shape), series.dtype.itemsize if series.dtype else 8)
            axes, array = series.axes, series.asarray()
            if tif.pages[0].photometric == 3:
                raise ReadError(
                    f"{path}: expected grey or RGB pixels, found a TIFF with a palette; "
                    "convert it to RGB"
                )
    except (tifffile.TiffFileError, OSError, IndexError, ValueError, KeyError) as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(
            f"{path}: expected a whole TIFF, found a damaged one ({err}); fetch it again"
        ) from err
    samples = "S" in axes
    if samples and axes[-1] != "S":
        array = np.moveaxis(array, axes.index("S"), -1)
    tail = array.shape[-3:] if samples else array.shape[-2:]
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
