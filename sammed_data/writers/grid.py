"""Canonical axes back to the axes of a file: the inverse of ``geometry.canonicalize``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.types import Geometry, GeometryError


def onto_grid(array_ZYX: NDArray[Any], canonical: Geometry, stored: Geometry) -> NDArray[Any]:
    """Permute and flip a canonical array onto the stored axes of the same voxels.

    Args:
        array_ZYX: on the canonical grid.
        canonical: where ``array_ZYX`` lies.
        stored: the grid of the file.

    Raises:
        GeometryError: the two are not the same voxels.
    """
    start, moves = indices_of(canonical, stored.affine_lps[:3, 3], stored.affine_lps[:3, :3])
    order = np.abs(moves).argmax(axis=0)
    turned = array_ZYX.transpose(order)
    signs = moves[order, range(3)]
    turned = turned[tuple(slice(None, None, int(s)) for s in signs)]
    ends = np.where(signs < 0, np.array(canonical.shape_zyx)[order] - 1, 0)
    if turned.shape != stored.shape_zyx or not np.array_equal(start[order], ends):
        raise GeometryError(
            f"expected the grid of the image, {canonical.describe()}, found {stored.describe()}; "
            "the file changed since it was read"
        )
    return turned


def plane_of(
    array_ZYX: NDArray[Any],
    canonical: Geometry,
    position: NDArray[np.float64],
    steps: NDArray[np.float64],
    shape_yx: tuple[int, int],
) -> NDArray[Any]:
    """The part of a canonical array that a frame of a file shows, in the frame's own pixels.

    Args:
        array_ZYX: on the canonical grid.
        canonical: where it lies.
        position: (3,) LPS mm of the frame's first pixel.
        steps: (3, 2) mm of one row and of one column.
        shape_yx: rows and columns of the frame.

    Raises:
        GeometryError: the frame is not a plane of the grid.
    """
    start, moves = indices_of(canonical, position, steps)
    last = start + moves @ (np.array(shape_yx) - 1)
    if min(*start, *last) < 0 or (np.maximum(start, last) >= canonical.shape_zyx).any():
        raise GeometryError(
            f"expected a frame within {canonical.describe()}, found one from voxel "
            f"{start.tolist()} to {last.tolist()} (z, y, x)"
        )
    rows, columns = np.arange(shape_yx[0])[:, None], np.arange(shape_yx[1])[None]
    z, y, x = (start[k] + moves[k, 0] * rows + moves[k, 1] * columns for k in range(3))
    plane: NDArray[Any] = array_ZYX[z, y, x]
    return plane


def indices_of(
    grid: Geometry, position: NDArray[np.float64], steps: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A position and steps in mm as whole voxels of a grid.

    Raises:
        GeometryError: not whole ones: off by more than a twentieth of a voxel at the far end.
    """
    inverse = np.linalg.inv(grid.affine_lps)
    start = inverse[:3, :3] @ position + inverse[:3, 3]
    moves = inverse[:3, :3] @ steps
    whole_start, whole_moves = np.rint(start), np.rint(moves)
    off = max(
        np.abs(start - whole_start).max(),
        np.abs(moves - whole_moves).max() * max(grid.shape_zyx),
    )
    # Positions of DICOM slices are decimal strings, so one percent of a voxel would be too strict.
    if off > 0.05 or (np.abs(whole_moves).sum(axis=0) != 1).any():
        raise GeometryError(
            f"expected voxels of {grid.describe()}, found a start at {np.round(start, 3).tolist()} "
            f"and steps {np.round(moves, 3).tolist()} (z, y, x)"
        )
    return whole_start.astype(np.int64), whole_moves.astype(np.int64)
