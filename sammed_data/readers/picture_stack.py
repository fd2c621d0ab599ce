"""Masks kept as a folder of pictures, one a slice, beside a DICOM series."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.geometry import canonicalize
from sammed_data.readers import raster
from sammed_data.readers.dicom_header import silence_pydicom
from sammed_data.readers.limits import first_bytes
from sammed_data.types import Geometry, GeometryError, ReadError

_TAGS = ["InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]


def is_picture_stack(folder: Path) -> bool:
    """Whether a folder holds pictures."""
    return folder.is_dir() and bool(_pictures(folder))


def read_picture_stack(folder: Path, series: Path) -> tuple[NDArray[Any], Geometry]:
    """Read masks in canonical axes: the n-th picture is the slice of the n-th instance number.

    Pictures carry no position, so the order of the series is all there is to go by.

    Args:
        folder: pictures, sorted by the numbers in their names.
        series: folder of the DICOM series they were drawn on.

    Raises:
        GeometryError: another number of pictures than slices, or another size.
        ReadError: a damaged file, or slices without a number or position.
    """
    planes = [raster.read_labels(p) for p in _pictures(folder)]
    sizes = sorted({p.shape for p in planes})
    if len(sizes) > 1 or sizes[0][0] != 1:
        raise GeometryError(f"{folder}: expected pictures of one size, found {sizes}")
    affine, n_slices = _affine_by_number(series)
    array = np.concatenate(planes)
    if len(array) != n_slices:
        raise GeometryError(
            f"{folder}: expected a picture for each of the {n_slices} slices of {series.name}, "
            f"found {len(array)}; fetch the missing files"
        )
    z, y, x = array.shape[:3]
    return canonicalize(array, Geometry(affine_lps=affine, shape_zyx=(z, y, x)))


def on_series(path: Path, array_ZYX: NDArray[Any], series: Path) -> tuple[NDArray[Any], Geometry]:
    """Labels without a position, drawn on a DICOM series: the n-th slice is the n-th instance.

    Raises:
        GeometryError: another number of slices than the series has.
        ReadError: slices of the series without a number or position.
    """
    affine, n_slices = _affine_by_number(series)
    if len(array_ZYX) != n_slices:
        raise GeometryError(
            f"{path}: expected {n_slices} slices, as many as {series.name} has, found "
            f"{len(array_ZYX)}; check that they belong together and the `axes` of the labels"
        )
    z, y, x = (int(n) for n in array_ZYX.shape[:3])
    return canonicalize(array_ZYX, Geometry(affine_lps=affine, shape_zyx=(z, y, x)))


def _pictures(folder: Path) -> list[Path]:
    found = [
        p
        for p in folder.iterdir()
        if p.suffix.lower() in raster.SUFFIXES and not p.name.startswith(".")
    ]
    return sorted(found, key=lambda p: [int(t) if t.isdigit() else t for t in _parts(p.name)])


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _affine_by_number(series: Path) -> tuple[NDArray[np.float64], int]:
    """Affine of the slices in the order of their instance numbers, and how many there are."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    silence_pydicom()
    slices = []
    for path in sorted(p for p in series.iterdir() if p.is_file() and not p.name.startswith(".")):
        if first_bytes(path)[128:132] != b"DICM" and path.suffix.lower() != ".dcm":
            continue
        try:
            data = pydicom.dcmread(path, force=True, specific_tags=_TAGS, stop_before_pixels=True)
            number = int(data.InstanceNumber)
            position = np.array(data.ImagePositionPatient, dtype=np.float64)
            axes = np.array(data.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
            spacing = [float(s) for s in data.PixelSpacing]
        except (InvalidDicomError, AttributeError, TypeError, ValueError, OSError) as err:
            raise ReadError(
                f"{path}: expected a slice with instance number, position, orientation and pixel "
                f"spacing, found a header without "
                f"({type(err).__name__}); masks kept as pictures need them"
            ) from err
        slices.append((number, position, axes, spacing))
    if len(slices) < 2:
        raise ReadError(f"{series}: expected at least two DICOM slices, found {len(slices)}")
    slices.sort(key=lambda s: s[0])
    _, first, axes, spacing = slices[0]
    affine = np.eye(4)
    affine[:3, 0] = (slices[-1][1] - first) / (len(slices) - 1)
    affine[:3, 1] = axes[1] * spacing[0]
    affine[:3, 2] = axes[0] * spacing[1]
    affine[:3, 3] = first
    return affine, len(slices)
