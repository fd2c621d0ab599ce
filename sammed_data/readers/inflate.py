"""Whole gzip files at once by libdeflate, into memory that was used before.

Faster than a stream, but it sees only the first member of a gzip file and cannot stop early; so
whatever is not plainly one whole member of the expected length is left to the stream reader.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sammed_data import codecs

# What may follow the voxels in a file and still be decoded along with them.
_TAIL = 1 << 16
# Deflate cannot expand further: a length beyond it is a lie, for which no memory is taken.
_MOST_FOLD = 1032
_kept: list[NDArray[np.uint8]] = []


def one_member(path: Path, n_bytes: int) -> NDArray[np.uint8] | None:
    """The decoded file if it is one whole, undamaged member of about ``n_bytes``; else None.

    The last four bytes of a gzip file are the length of its last member modulo 4 GiB, so a file
    of several members differs here, or its first one gives fewer bytes than the last one promises.
    """
    imagecodecs = codecs.libdeflate()
    if imagecodecs is None:
        return None
    packed = np.fromfile(path, np.uint8)
    length = int.from_bytes(packed[-4:].tobytes(), "little")
    if not n_bytes <= length <= min(n_bytes + _TAIL, _MOST_FOLD * len(packed)):
        return None
    out = scratch(length)
    try:
        found = imagecodecs.gzip_decode(packed, out=out)
    except imagecodecs.DeflateError:
        return None
    return out if len(found) == length else None


def scratch(n_bytes: int) -> NDArray[np.uint8]:
    """Memory with anything in it; the last one again where no array looks at it any more.

    A volume's pages taken anew cost a third of its decoding, a tenth where huge pages serve.
    """
    # Two references are the list's and getrefcount's own; every array on the buffer holds one.
    if _kept and sys.getrefcount(_kept[0]) > 2:
        return np.empty(n_bytes, np.uint8)
    if not _kept or not n_bytes <= len(_kept[0]) <= 2 * n_bytes:
        _kept[:] = [np.empty(n_bytes, np.uint8)]
    return _kept[0][:n_bytes]


def forget() -> None:
    """Let the kept memory go."""
    _kept.clear()
