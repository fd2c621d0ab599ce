"""Grids in LPS millimetres: canonical axes by permutation and flips, agreement of two grids."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
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


def canonicalize(
    array_ZYX: NDArray[Any], geometry: Geometry, path: Path | None = None
) -> tuple[NDArray[Any], Geometry]:
    """Bring Z to superior, Y to posterior, X to left by permutation and flips only.

    Trailing axes (RGB) stay. No voxel value changes; an oblique grid stays oblique.

    Raises:
        GeometryError: the affine is not finite or has no volume.
    """
    axes = geometry.affine_lps[:3, :3]
    if not np.isfinite(geometry.affine_lps).all() or abs(np.linalg.det(axes)) < 1e-12:
        raise GeometryError(
            f"{'' if path is None else f'{path}: '}expected an affine with three independent "
            f"finite axes, found {np.round(axes, 4).tolist()}; mend the header"
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


def planes_as_colours(image: Volume, like: Geometry | None) -> Volume:
    """Three bytes stored as slices of one picture become its colours, on the grid of the label.

    Args:
        image: any volume; it is returned unchanged unless it is (3, Y, X) bytes.
        like: grid of the label, one slice of the same pixels, or None.
    """
    grid = image.geometry
    if grid is None or like is None or like.shape_zyx != (1, *grid.shape_zyx[1:]):
        return image
    if image.array.shape != (3, *like.shape_zyx[1:]) or image.array.dtype != np.uint8:
        return image
    pixels = (grid.affine_lps[:2, 1:], like.affine_lps[:2, 1:])
    if not np.allclose(*pixels, rtol=0, atol=0.01 * min(like.spacing_zyx_mm[1:])):
        return image
    colours = np.ascontiguousarray(np.moveaxis(image.array, 0, -1)[None])
    return replace(image, array=colours, geometry=like)


def resize_to(volume: Volume, shape_zyx: tuple[int, int, int]) -> Volume:
    """Bring a picture to the size of its mask: the mean over areas, or linear where it grows.

    Raises:
        GeometryError: another number of slices, or sides that do not share one scale.
    """
    import cv2

    depth, height, width = (int(n) for n in volume.array.shape[:3])
    scales = shape_zyx[1] / height, shape_zyx[2] / width
    if depth != shape_zyx[0] or abs(scales[0] - scales[1]) * max(height, width) > 1:
        raise GeometryError(
            "expected an image and a mask of one shape, scaled, found the image "
            f"{grid_words((depth, height, width), None)} and the mask "
            f"{grid_words(shape_zyx, None)}; check that they belong together"
        )
    rule = cv2.INTER_AREA if scales[0] < 1 else cv2.INTER_LINEAR
    planes = [cv2.resize(p, shape_zyx[:0:-1], interpolation=rule) for p in volume.array]
    return replace(volume, array=np.stack(planes))


def resample_image_to(volume: Volume, geometry: Geometry) -> Volume:
    """Sample an image linearly on another grid; outside the image lies its lowest value.

    Args:
        volume: (Z, Y, X), or (Z, Y, X, 3) whose channels are sampled one by one.
        geometry: the grid to sample on, usually that of the labels.

    Raises:
        GeometryError: the volume has no geometry.
    """
    if volume.geometry is None:
        raise GeometryError(
            "expected an image with a geometry to resample, found a raster image; "
            "remove `grid: resample_image` from the entry"
        )
    to_index = np.linalg.inv(volume.geometry.affine_lps) @ geometry.affine_lps
    outside = _outside(to_index, geometry.shape_zyx, volume.geometry.shape_zyx)
    channels = volume.array[..., None] if volume.array.ndim == 3 else volume.array
    sampled = [_sample(c, to_index, outside) for c in np.moveaxis(channels, -1, 0)]
    array = sampled[0] if volume.array.ndim == 3 else np.stack(sampled, axis=-1)
    if volume.array.dtype == np.uint8:
        array = np.rint(array).astype(np.uint8)
    return Volume(
        array=array,
        geometry=geometry,
        bits=volume.bits,
        modality=volume.modality,
        warnings=(*volume.warnings, "image resampled linearly to the grid of its labels"),
        text=volume.text,
    )


def share_outside(voxels_ZYX: NDArray[np.bool_], geometry: Geometry, image: Geometry) -> float:
    """Share of the marked voxels of one grid whose centres lie beyond another; 0 for none marked.

    Args:
        voxels_ZYX: marked voxels on the grid of ``geometry``.
        geometry: where they lie.
        image: the grid they should lie in.
    """
    to_index = np.linalg.inv(image.affine_lps) @ geometry.affine_lps
    marked = n_inside = 0
    for z, plane in enumerate(voxels_ZYX):  # the places of a whole volume take 24 bytes a voxel
        y, x = np.nonzero(plane)
        inside = np.ones(len(y), dtype=bool)
        for k in range(3):
            along = z * to_index[k, 0] + y * to_index[k, 1] + x * to_index[k, 2] + to_index[k, 3]
            inside &= (along >= -0.5 - 1e-6) & (along <= image.shape_zyx[k] - 0.5 + 1e-6)
        marked += len(y)
        n_inside += int(inside.sum())
    return 1 - n_inside / marked if marked else 0.0


def _sample(
    array_ZYX: NDArray[Any], to_index: NDArray[np.float64], outside_ZYX: NDArray[np.bool_]
) -> NDArray[np.float32]:
    from scipy.ndimage import affine_transform

    sampled = affine_transform(
        array_ZYX.astype(np.float32),
        to_index[:3, :3],
        offset=to_index[:3, 3],
        output_shape=outside_ZYX.shape,
        order=1,
        mode="nearest",
    )
    sampled[outside_ZYX] = array_ZYX.min()
    return np.asarray(sampled, dtype=np.float32)


def _outside(
    to_index: NDArray[np.float64], shape: tuple[int, int, int], source: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Which target voxels have their centre beyond the outermost voxels of the source."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    outside = np.zeros(shape, dtype=bool)
    for k in range(3):
        along = to_index[k, 0] * z + to_index[k, 1] * y + to_index[k, 2] * x + to_index[k, 3]
        # Rounding must not push a border voxel out of its own image.
        outside |= (along < -0.5 - 1e-6) | (along > source[k] - 0.5 + 1e-6)
    return outside


def grid_words(shape_zyx: tuple[int, ...], geometry: Geometry | None) -> str:
    """A grid in words for error sentences, with or without a geometry."""
    if geometry is not None:
        return geometry.describe()
    return f"{' x '.join(map(str, shape_zyx))} pixels (z, y, x) without a position"
