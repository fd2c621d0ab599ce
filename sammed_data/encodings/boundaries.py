"""Layers drawn as boundary rows (OCT): what lies between the first and the last is foreground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers import arrays
from sammed_data.types import GeometryError, LabelFile, ReadError, Volume


def between_boundaries(file: LabelFile, like: Volume) -> NDArray[np.bool_]:
    """(Z, Y, X) foreground from (B, Z, X) rows; a column without rows (NaN or 0) stays empty.

    Rows of a mat file count from 1, those of numpy files from 0. The row of the first boundary
    belongs to the layer, that of the last one not.

    Raises:
        GeometryError: another number of columns or slices than the image.
        ReadError: rows outside the image, or a last boundary above the first.
    """
    rows_BZX = arrays.read_labels(file.path, file.pick)
    depth, height, width = (int(n) for n in like.array.shape[:3])
    if rows_BZX.shape[1:] != (depth, width):
        raise GeometryError(
            f"{file.path}: expected boundaries of {depth} slices and {width} columns, as the "
            f"image has, found {rows_BZX.shape[1]} and {rows_BZX.shape[2]}; check `axes`"
        )
    from_one = file.path.suffix.lower() == ".mat"
    drawn = np.isfinite(rows_BZX).all(axis=0)
    if from_one:
        drawn &= (rows_BZX > 0).all(axis=0)
    first, last = (np.where(drawn, rows_BZX[k], 0) - from_one for k in (0, -1))
    wrong = drawn & ((first < 0) | (last > height) | (last < first))
    if wrong.any():
        z, x = (int(v) for v in np.argwhere(wrong)[0])
        raise ReadError(
            f"{file.path}: expected boundary rows from top to bottom inside {height} rows, found "
            f"{rows_BZX[0, z, x]:g} and {rows_BZX[-1, z, x]:g} in slice {z}, column {x}; "
            "check `axes` and the order of the boundaries"
        )
    y = np.arange(height)[None, :, None]
    top, bottom = np.ceil(first)[:, None, :], np.ceil(last)[:, None, :]
    return np.asarray(drawn[:, None, :] & (y >= top) & (y < bottom))
