"""Grids in LPS millimetres: canonical axes by permutation and flips, agreement of two grids."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.types import Geometry, GeometryError, Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Rows of the affine (x, y, z) that array axes Z, Y, X shall run along.
_TARGET_ROWS = (2, 1, 0)


def to_lps(array: NDArray[Any], affine_ras_ijk: NDArray[Any]) -> tuple[NDArray[Any], Geometry]:
    """Turn an (i, j, k) array and its RAS affine into a (k, j, i) array with an LPS geometry."""
    axes = (2, 1, 0, *range(3, array.ndim))
    return array.transpose(axes), lps_geometry(affine_ras_ijk, array.shape[:3][::-1])


def lps_geometry(affine_ras_ijk: NDArray[Any], shape_zyx: tuple[int, ...]) -> Geometry:
    """Geometry of a (k, j, i) array from the RAS affine of its (i, j, k) indices."""
    affine = _RAS_TO_LPS @ np.asarray(affine_ras_ijk, dtype=np.float64)
    z, y, x = shape_zyx
    return Geometry(affine_lps=affine[:, [2, 1, 0, 3]], shape_zyx=(z, y, x))


def canonicalize(array_ZYX: NDArray[Any], geometry: Geometry) -> tuple[NDArray[Any], Geometry]:
    """Bring Z to superior, Y to posterior, X to left by permutation and flips only.

    Trailing axes (RGB) stay. No voxel value changes; an oblique grid stays oblique.

    Raises:
        GeometryError: the affine is not finite or has no volume.
    """
    axes = geometry.affine_lps[:3, :3]
    if not np.isfinite(geometry.affine_lps).all() or abs(np.linalg.det(axes)) < 1e-12:
        raise GeometryError(
            "expected an affine with three independent finite axes, found "
            f"{np.round(axes, 4).tolist()}; mend the header"
        )
    cosines = axes / np.linalg.norm(axes, axis=0)
    order = max(
        permutations(range(3)),
        key=lambda p: sum(abs(cosines[row, p[k]]) for k, row in enumerate(_TARGET_ROWS)),
    )
    affine = geometry.affine_lps[:, [*order, 3]].copy()
    array_ZYX = array_ZYX.transpose((*order, *range(3, array_ZYX.ndim)))
    for k, row in enumerate(_TARGET_ROWS):
        if affine[row, k] < 0:
            affine[:3, 3] += affine[:3, k] * (array_ZYX.shape[k] - 1)
            affine[:3, k] *= -1
            array_ZYX = np.flip(array_ZYX, k)
    z, y, x = array_ZYX.shape[:3]
    return array_ZYX, Geometry(affine_lps=affine, shape_zyx=(z, y, x))


def same_grid(a: Geometry | None, b: Geometry | None) -> bool:
    """Whether shapes agree and all 8 corners lie within 1 % of the smallest voxel side.

    Two unknown geometries (raster files) agree; an unknown one never agrees with a known one.
    """
    if a is None or b is None:
        return a is None and b is None
    if a.shape_zyx != b.shape_zyx:
        return False
    side = min(*a.spacing_zyx_mm, *b.spacing_zyx_mm)
    off = np.linalg.norm(a.corners_mm() - b.corners_mm(), axis=1).max()
    return bool(off <= 0.01 * side)


def resample_image_to(volume: Volume, geometry: Geometry) -> Volume:
    """Sample an image linearly on another grid; outside the image lies its lowest value.

    Raises:
        GeometryError: the volume has no geometry.
    """
    from scipy.ndimage import affine_transform

    if volume.geometry is None:
        raise GeometryError(
            "expected an image with a geometry to resample, found a raster image; "
            "remove `grid: resample_image` from the entry"
        )
    to_index = np.linalg.inv(volume.geometry.affine_lps) @ geometry.affine_lps
    array = volume.array.astype(np.float32)
    sampled = affine_transform(
        array,
        to_index[:3, :3],
        offset=to_index[:3, 3],
        output_shape=geometry.shape_zyx,
        order=1,
        mode="constant",
        cval=float(array.min()),
    )
    return Volume(
        array=sampled,
        geometry=geometry,
        bits=volume.bits,
        modality=volume.modality,
        warnings=(*volume.warnings, "image resampled linearly to the grid of its labels"),
    )


def grid_words(shape_zyx: tuple[int, ...], geometry: Geometry | None) -> str:
    """A grid in words for error sentences, with or without a geometry."""
    if geometry is not None:
        return geometry.describe()
    return f"{' x '.join(map(str, shape_zyx))} pixels (z, y, x) without a position"
