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
from sammed_data.sources import read_whole

# What may follow the voxels in a file and still be decoded along with them.
_TAIL = 1 << 16
# Deflate cannot expand further: a length beyond it is a lie, for which no memory is taken.
_MOST_FOLD = 1032
_MOST_KEPT = 2
_kept: list[NDArray[np.uint8]] = []


def one_member(path: Path, n_bytes: int) -> NDArray[np.uint8] | None:
    """The decoded file if it is one whole, undamaged member of about ``n_bytes``; else None.

    The last four bytes of a gzip file are the length of its last member modulo 4 GiB, so a file
    of several members differs here, or its first one gives fewer bytes than the last one promises.
    """
    imagecodecs = codecs.libdeflate()
    if imagecodecs is None:
        return None
    packed = read_whole(path, _borrowed)
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
    """Memory with anything in it; that of an earlier file where no array looks at it any more.

    A volume's pages taken anew cost a third of its decoding, a tenth where huge pages serve. Two
    are kept, for the image and the labels of a case are in memory together.
    """
    found = _fitting(n_bytes)
    if found is None:
        if unused := [i for i in range(len(_kept)) if _unused(i)]:
            _kept.pop(unused[0])
        found = np.empty(n_bytes, np.uint8)
        if len(_kept) < _MOST_KEPT:
            _kept.append(found)
    return found[:n_bytes]


def _borrowed(n_bytes: int) -> NDArray[np.uint8]:
    """Memory for a moment: a packed image fits into what is kept for the labels."""
    found = _fitting(n_bytes)
    return np.empty(n_bytes, np.uint8) if found is None else found[:n_bytes]


def _fitting(n_bytes: int) -> NDArray[np.uint8] | None:
    """The smallest kept array at which nobody looks and of which at least half would be used."""
    fit = [i for i in range(len(_kept)) if n_bytes <= len(_kept[i]) <= 2 * n_bytes and _unused(i)]
    return _kept[min(fit, key=lambda i: len(_kept[i]))] if fit else None


def _unused(number: int) -> bool:
    # Two references are the list's and getrefcount's own; every array on the buffer holds one.
    return sys.getrefcount(_kept[number]) <= 2


def forget() -> None:
    """Let the kept memory go."""
    _kept.clear()
