"""The size that a JPEG or JPEG 2000 stream declares, before anything is decoded."""

from __future__ import annotations

import struct

_SIZ = b"\xff\x4f\xff\x51"
_JP2 = b"jP  "
# Start of frame in JPEG and JPEG-LS; C4, C8 and CC are other markers.
_SOF = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x01, 0xD8, *range(0xD0, 0xD8)))
_HEAD_BYTES = 1 << 16


def declared_size(code: bytes) -> tuple[int, int] | None:
    """(height, width) by the stream's own header; None where it states none."""
    start = code.find(_SIZ, 0, 256)
    if start >= 0 and len(code) >= start + 24:
        right, bottom, left, top = struct.unpack_from(">IIII", code, start + 8)
        return bottom - top, right - left
    return _jpeg_size(code[:_HEAD_BYTES])


def _jpeg_size(code: bytes) -> tuple[int, int] | None:
    place = 0
    while place + 9 <= len(code):
        if code[place] != 0xFF:
            return None
        marker = code[place + 1]
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", code, place + 5)
            return height, width
        if marker == 0xFF:
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        else:
            place += 2 + int(struct.unpack_from(">H", code, place + 2)[0])
    return None


def has_broken_boxes(code: bytes) -> bool:
    """Whether a JP2 file's boxes do not lead to its pixels; pydicom 3.0 never ends on those."""
    if code[4:8] != _JP2:
        return False
    place = 0
    while place + 8 <= len(code):
        if code[place + 4 : place + 8] == b"jp2c":
            return False
        length = int(struct.unpack_from(">I", code, place)[0])
        if length < 8:  # 0 and 1 have meanings that only the last, and a huge, box need
            return True
        place += length
    return True
