"""One door to all formats: dispatch by suffix, folder and DICOM magic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.readers import arrays, dicom, headerless, itk, nifti, raster, video
from sammed_data.readers.limits import MAX_DECODED_BYTES, first_bytes
from sammed_data.slices import in_memory_order
from sammed_data.stages import stage
from sammed_data.types import Case, Geometry, Pick, ReadError, Volume

__all__ = ["MAX_DECODED_BYTES", "file_format", "read_image", "read_label_map", "read_volume"]

_SUFFIXES = {
    **dict.fromkeys((".nii", ".nii.gz"), "nifti"),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), "itk"),
    **dict.fromkeys(raster.SUFFIXES, "raster"),
    **dict.fromkeys(arrays.SUFFIXES, "array"),
    **dict.fromkeys(video.SUFFIXES, "video"),
    **dict.fromkeys((".dcm", ".ima", ".dicom"), "dicom"),
}


_WHOLE = Pick()


def file_format(path: Path) -> str:
    """Return 'nifti', 'itk', 'raster', 'array', 'video' or 'dicom' for a file or folder.

    Raises:
        ReadError: the path is missing, empty, or of a format no reader knows.
    """
    if path.is_dir():
        return "dicom"
    name = path.name.lower()
    head = first_bytes(path)
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    if head[128:132] == b"DICM":
        return "dicom"
    raise ReadError(
        f"{path}: expected one of {', '.join(_SUFFIXES)} or a DICOM file, found neither such an "
        "ending nor DICOM content; convert the file"
    )


@stage("read and decode")
def read_volume(path: Path, *, channel: int | None = None, pick: Pick = _WHOLE) -> Volume:
    """Read an image in canonical LPS axes; a folder is one DICOM series.

    Args:
        path: file, or folder of a DICOM series.
        channel: index in the last axis of a 4D NIfTI file; frame of a video, or frame or volume
            of a DICOM file, from 0.
        pick: which part of an array file or picture, see `Pick`.

    Raises:
        ReadError: the file is not what it claims to be.
        GeometryError: the slices of a series do not form a grid.
    """
    if pick.rows:
        return headerless.read(path, pick)
    kind = file_format(path)
    if kind == "array":
        return arrays.read(path, pick)
    if kind == "nifti":
        return nifti.read(path, channel=channel)
    if kind == "itk":
        return itk.read(path, channel=channel)
    if kind == "video":
        return video.read(path, channel or 0)
    if kind == "dicom":
        return dicom.read(path, channel)
    if channel is not None:
        raise ReadError(
            f"{path}: expected a 4D file for channel {channel}, found {kind}; "
            "remove `channel` from the entry's image pattern"
        )
    volume = raster.read(path)
    return replace(volume, array=raster.half_of(path, volume.array, pick.half))


def read_image(case: Case) -> Volume:
    """Read the image of a case: the file, and the part of it that is meant.

    Raises:
        ReadError, GeometryError: see `read_volume`.
    """
    return read_volume(case.image_path, channel=case.channel, pick=case.pick)


@stage("read and decode")
def read_label_map(
    path: Path, *, colours: bool = False, channel: int | None = None, pick: Pick = _WHOLE
) -> tuple[NDArray[Any], Geometry | None]:
    """Read integer labels in canonical LPS axes: (Z, Y, X), or (Z, Y, X, 3) for colours.

    Args:
        path: file, or folder of a DICOM series that holds a mask.
        colours: give the colours of a palette image instead of its indices.
        channel: index in the last axis of a 4D NIfTI file.
        pick: which part of an array file or picture, see `Pick`.

    Raises:
        ReadError: values are not integers, or the file is not what it claims to be.
    """
    kind = file_format(path)
    geometry: Geometry | None = None
    if kind == "nifti":
        array, geometry = nifti.read_labels(path, channel=channel)
    elif kind == "itk":
        array, geometry = itk.read_labels(path)
    elif kind == "dicom":
        volume = dicom.read(path, channel)
        array, geometry = volume.array, volume.geometry
    elif kind == "array":
        array = arrays.read_labels(path, pick)
    else:
        array = raster.half_of(path, raster.read_labels(path, colours=colours), pick.half)
    return _as_integers(path, array), geometry


def _as_integers(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind in "ui":
        return _narrow(array)
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    value = float("nan")
    if array.dtype.kind == "f" and np.isfinite(array).all():
        odd = next((plane for plane in array if (plane != np.rint(plane)).any()), None)
        if odd is None:
            return _narrow(array, otherwise=np.int32)
        value = float(odd[odd != np.rint(odd)][0])
    raise ReadError(
        f"{path}: expected integer labels, found the value {value:g} ({array.dtype}); "
        "check that this is a label map, not an image or a probability"
    )


def _narrow(array: NDArray[Any], otherwise: type | None = None) -> NDArray[Any]:
    """Label maps of few values as bytes: an eighth of the memory of what some tools write."""
    ordered = in_memory_order(array)
    if array.dtype != np.uint8 and array.size and ordered.min() >= 0 and ordered.max() <= 255:
        return array.astype(np.uint8)
    return array if otherwise is None else array.astype(otherwise)
