"""NRRD and MetaImage through SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.geometry import canonicalize
from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import Geometry, ReadError, Volume


def read(path: Path, *, channel: int | None = None) -> Volume:
    """Read an image; ``channel`` picks a component or a place in the fourth axis.

    Raises:
        ReadError: empty, damaged, or several channels and none chosen.
    """
    array, geometry, bits = _load(path, channel)
    return Volume(array=array, geometry=geometry, bits=bits)


def read_labels(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a label map as stored; the registry checks that its values are integers."""
    array, geometry, _ = _load(path, None)
    return array, geometry


def read_layers(path: Path) -> tuple[list[NDArray[Any]], Geometry]:
    """Read all components (or places of the fourth axis), each (Z, Y, X) in canonical axes.

    Raises:
        ReadError: empty or damaged.
    """
    array, stored = _decode(path)
    n = array.shape[0] * array.shape[-1]
    found = [canonicalize(_pick(path, array, k), stored, path) for k in range(n)]
    return [layer for layer, _ in found], found[0][1]


def _load(path: Path, channel: int | None) -> tuple[NDArray[Any], Geometry, int]:
    array, stored = _decode(path)
    array, geometry = canonicalize(_pick(path, array, channel), stored, path)
    return array, geometry, max(8, min(32, 8 * array.dtype.itemsize))


def _decode(path: Path) -> tuple[NDArray[Any], Geometry]:
    """All of a file as (T, Z, Y, X, C), with the geometry of its stored axes."""
    import SimpleITK as sitk

    first_bytes(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        shape = tuple(reader.GetSize()) + (reader.GetNumberOfComponents(),)
        check_size(
            path, shape, 8 if "64" in sitk.GetPixelIDValueAsString(reader.GetPixelID()) else 4
        )
        image = reader.Execute()
    except RuntimeError as err:
        reason = str(err).strip().splitlines()[-1].split("ERROR:")[-1].strip()
        raise ReadError(
            f"{path}: expected a whole NRRD or MetaImage file, but {reason}; fetch it again, "
            "with its data file if it has one"
        ) from err
    # A copy: the view that SimpleITK also offers points into memory freed with the image.
    array = sitk.GetArrayFromImage(image)
    n = image.GetNumberOfComponentsPerPixel()
    if n == 1:
        array = array[..., None]
    dims = image.GetDimension()
    array = array.reshape((-1, *array.shape[-4:])) if dims > 3 else array[None]
    if dims == 2:
        array = array[:, None]
    return array, _geometry(image, array.shape[1:4])


def _pick(path: Path, array: NDArray[Any], channel: int | None) -> NDArray[Any]:
    """(T, Z, Y, X, C) -> (Z, Y, X), or (Z, Y, X, 3) for three bytes a voxel."""
    n_times, n_parts = array.shape[0], array.shape[-1]
    if channel is None and n_times == 1 and n_parts == 3 and array.dtype == np.uint8:
        return array[0]
    index = channel or 0
    if (n_times * n_parts > 1 and channel is None) or not 0 <= index < n_times * n_parts:
        raise ReadError(
            f"{path}: expected one channel, found {n_times * n_parts} and channel {channel} asked "
            "for; mend `channel` of the entry's image pattern"
        )
    return array[index // n_parts, ..., index % n_parts]


def _geometry(image: Any, shape_zyx: tuple[int, ...]) -> Geometry:
    dims = image.GetDimension()
    used = min(dims, 3)
    direction, spacing = np.eye(3), np.ones(3)
    origin = np.zeros(3)
    stated = np.asarray(image.GetDirection()).reshape(dims, dims)
    direction[:used, :used] = stated[:used, :used]
    spacing[:used] = image.GetSpacing()[:used]
    origin[:used] = image.GetOrigin()[:used]
    affine = np.eye(4)
    affine[:3, :3] = (direction * spacing)[:, ::-1]
    affine[:3, 3] = origin
    z, y, x = shape_zyx
    return Geometry(affine_lps=affine, shape_zyx=(z, y, x))
