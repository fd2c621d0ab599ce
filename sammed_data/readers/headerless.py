"""Pictures without a header (JSRT's ``.IMG``): the entry says rows, columns and type."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import Pick, ReadError, Volume


def read(path: Path, pick: Pick) -> Volume:
    """Read a file of exactly ``rows`` x ``columns`` numbers as (1, Y, X).

    Raises:
        ReadError: the file has another size, or values above ``bits``.
    """
    first_bytes(path)
    dtype = np.dtype(pick.dtype)
    expected = check_size(path, (pick.rows, pick.columns), dtype.itemsize)
    found = path.stat().st_size
    if found != expected:
        raise ReadError(
            f"{path}: expected {expected:,} bytes ({pick.rows} x {pick.columns} of {pick.dtype}), "
            f"found {found:,}; check `raw` of the entry's image pattern"
        )
    array = np.fromfile(path, dtype=dtype).reshape(1, pick.rows, pick.columns)
    array = array.astype(dtype.newbyteorder("="))
    top = (1 << min(pick.bits, 8 * dtype.itemsize)) - 1
    if int(array.max()) > top:
        raise ReadError(
            f"{path}: expected values up to {top} ({pick.bits} bits), found {int(array.max())}; "
            "check `dtype` and `bits` of `raw` in the entry's image pattern"
        )
    return Volume(array=top - array if pick.white_is_zero else array, bits=max(8, pick.bits))
