"""Lossless image and mask bytes: PNG that every viewer opens, written fast, with a plain fallback.

The own writer (one `Up` filter, one IDAT, isal deflate) measured 4 x OpenCV's; decoded pixels are
equal whichever writer made them, file bytes are not, so a corpus' identity hashes pixels.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.stages import stage
from sammed_data.types import ReadError

_deflate: Any
try:
    from isal import isal_zlib

    _deflate = isal_zlib
except ImportError:  # the wheel does not exist for every platform
    _deflate = zlib
_LEVEL = 1
#: Only the standard library codes: same pixels, several times the time.
PLAIN = os.environ.get("SAMMED_CODECS") == "plain"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2


def libdeflate() -> ModuleType | None:
    """The module that decodes whole gzip files; None where it is missing or not wanted."""
    try:
        import imagecodecs
    except ImportError:  # no wheel for every machine
        return None
    return None if PLAIN else imagecodecs


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", check)))


_END = _chunk(b"IEND", b"")


def _png(height: int, width: int, depth: int, colour: int, rows: NDArray[np.uint8]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = (zlib if PLAIN else _deflate).compress(rows.data, _LEVEL)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", body), _END))


@stage("encode images")
def encode_image(image: NDArray[Any]) -> bytes:
    """PNG of (H, W) uint8, (H, W) uint16 or (H, W, 3) uint8 RGB."""
    height, width = image.shape[:2]
    depth = 16 if image.dtype == np.uint16 else 8
    stored = image.astype(">u2") if depth == 16 else image
    flat = np.ascontiguousarray(stored).view(np.uint8).reshape(height, -1)
    rows = np.empty((height, flat.shape[1] + 1), np.uint8)
    rows[:, 0] = 2
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    return _png(height, width, depth, _RGB if image.ndim == 3 else _GREY, rows)


@stage("encode masks")
def encode_mask(mask_HW: NDArray[np.bool_]) -> bytes:
    """1-bit grey PNG, foreground white."""
    return _one_bit(np.packbits(mask_HW, axis=1), 0, 0, mask_HW.shape)


@stage("encode masks")
def encode_parts(
    parts: Sequence[tuple[NDArray[np.uint8], tuple[int, int, int, int]]], shape_hw: tuple[int, int]
) -> list[bytes]:
    """`encode_mask` of masks given by the packed rows of their boxes: the rest is never touched.

    Args:
        parts: bits as they are in the rows of the whole mask, and the half-open box of each.
        shape_hw: of the whole mask.
    """
    return [_one_bit(bits, box[0] // 8, box[1], shape_hw) for bits, box in parts]


def _one_bit(packed: NDArray[np.uint8], left: int, top: int, shape: tuple[int, ...]) -> bytes:
    height, width = shape
    rows = np.zeros((height, (width + 7) // 8 + 1), np.uint8)  # each led by filter 0
    rows[top : top + len(packed), left + 1 : left + 1 + packed.shape[1]] = packed
    return _png(height, width, 1, _GREY, rows)


def decode_image(data: bytes | NDArray[np.uint8]) -> NDArray[Any]:
    """PNG bytes to (H, W) uint8 / uint16 or (H, W, 3) uint8 RGB."""
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ReadError(
            f"expected PNG bytes in the corpus, found {len(data)} bytes that do not decode"
        )
    return np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image


def decode_mask(data: bytes | NDArray[np.uint8]) -> NDArray[np.bool_]:
    """1-bit PNG bytes to (H, W) bool."""
    return np.asarray(decode_image(data) > 0)
