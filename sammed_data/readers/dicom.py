"""A DICOM series as a volume: slices sorted by position, never by name or number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.geometry import canonicalize
from sammed_data.readers.dicom_header import (
    FrameHeader,
    frames,
    is_compressed,
    parse_errors,
    read_dataset,
)
from sammed_data.readers.limits import check_size, first_bytes
from sammed_data.types import Geometry, GeometryError, ReadError, Volume


def read(path: Path | Sequence[Path]) -> Volume:
    """Read a series folder, a list of files of one series, or one file.

    Slope and intercept are applied per slice, MONOCHROME1 is inverted; SEG, RTSTRUCT and files
    that are not DICOM are passed over.

    Raises:
        ReadError: no image, two image series, or a damaged file.
        GeometryError: the slices do not form a regular grid.
    """
    where = path if isinstance(path, Path) else path[0].parent
    headers = _one_series(where, _headers(path))
    _refuse_mixture(where, headers)
    first = headers[0]
    if first.position is None or first.axes is None or first.spacing_yx is None:
        return _projection(where, headers)
    headers, geometry, warnings = _sorted_grid(where, headers)
    array, geometry = canonicalize(_pixels(where, headers), geometry)
    return Volume(
        array=array,
        geometry=geometry,
        bits=max(8, first.bits_stored),
        modality=first.modality or None,
        warnings=warnings,
    )


def _headers(path: Path | Sequence[Path]) -> list[FrameHeader]:
    if not isinstance(path, Path):
        return [header for file in path for header in frames(file)]
    if path.is_file():
        return frames(path)
    headers: list[FrameHeader] = []
    for file in sorted(path.iterdir()):
        if not file.is_file() or file.name.startswith(".") or file.name.upper() == "DICOMDIR":
            continue
        named = file.suffix.lower() in (".dcm", ".ima", ".dicom")
        if named or first_bytes(file)[128:132] == b"DICM":
            headers += frames(file)
    return headers


def _one_series(where: Path, headers: list[FrameHeader]) -> list[FrameHeader]:
    if not headers:
        raise ReadError(
            f"{where}: expected the files of one DICOM image series, found none; "
            "point the pattern at the folder that holds the slices"
        )
    counts: dict[str, list[FrameHeader]] = {}
    for header in headers:
        counts.setdefault(header.series, []).append(header)
    if len(counts) > 1:
        shown = " and ".join(f"{len(h)} x {h[0].modality or '?'}" for h in counts.values())
        raise ReadError(
            f"{where}: expected one image series, found {len(counts)} ({shown} slices); move each "
            "into a folder of its own and let the entry's image pattern end at one of them"
        )
    return headers


def _refuse_mixture(where: Path, headers: list[FrameHeader]) -> None:
    sizes = sorted({(h.rows, h.columns, h.samples) for h in headers})
    if len(sizes) > 1:
        raise GeometryError(
            f"{where}: expected slices of one size, found (rows, columns, samples) {sizes}; "
            "separate the localizer from the series"
        )


def _projection(where: Path, headers: list[FrameHeader]) -> Volume:
    """An image without a position in the patient: X-ray, ultrasound, or a cine of frames."""
    if len({h.path for h in headers}) > 1:
        raise GeometryError(
            f"{where}: expected slices with position, orientation and pixel spacing, found "
            f"{len(headers)} without; point the pattern at single files"
        )
    return Volume(
        array=_pixels(where, headers),
        geometry=None,
        bits=max(8, headers[0].bits_stored),
        spacing_yx_mm=headers[0].spacing_yx,
        modality=headers[0].modality or None,
    )


def _sorted_grid(
    where: Path, headers: list[FrameHeader]
) -> tuple[list[FrameHeader], Geometry, tuple[str, ...]]:
    """Sort slices along the normal and check that they form a grid."""
    first = headers[0]
    if first.axes is None or first.spacing_yx is None:
        raise GeometryError(f"{where}: expected orientation and pixel spacing, found none")
    for h in headers:
        if h.axes is None or h.position is None or np.abs(h.axes - first.axes).max() > 1e-3:
            raise GeometryError(
                f"{where}: expected slices of one orientation, found another in {h.path.name}; "
                "separate the localizer from the series"
            )
    normal = np.cross(first.axes[0], first.axes[1])
    positions = np.array([h.position for h in headers])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    warnings: tuple[str, ...] = ()
    if len(headers) > 1:
        _refuse_uneven(where, positions, normal)
        step = (positions[-1] - positions[0]) / (len(headers) - 1)
    else:
        step = normal * (first.thickness_mm or 1.0)
        if first.thickness_mm is None:
            warnings = ("one slice without a stated thickness; 1 mm is assumed",)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.axes[1] * first.spacing_yx[0]
    affine[:3, 2] = first.axes[0] * first.spacing_yx[1]
    affine[:3, 3] = positions[0]
    shape = (len(headers), first.rows, first.columns)
    return [headers[k] for k in order], Geometry(affine_lps=affine, shape_zyx=shape), warnings


def _refuse_uneven(
    where: Path, positions: NDArray[np.float64], normal: NDArray[np.float64]
) -> None:
    """Refuse duplicate positions, uneven gaps and gantry tilt, all in mm."""
    gaps = np.diff(positions @ normal)
    expected = float(np.median(gaps))
    if gaps.min() < 1e-3:
        k = int(gaps.argmin())
        raise GeometryError(
            f"{where}: expected one slice a position, found two at {positions[k] @ normal:.3f} mm "
            f"(gap 0 mm, slices {k + 1} and {k + 2} by position); separate phases or "
            "acquisitions into folders"
        )
    # Positions are decimal strings, so 0.01 mm of rounding is no gap.
    tolerance = max(0.01, 0.02 * expected)
    k = int(np.abs(gaps - expected).argmax())
    if abs(gaps[k] - expected) > tolerance:
        raise GeometryError(
            f"{where}: expected even gaps of {expected:.4g} mm, found {gaps[k]:.4g} mm between "
            f"slices {k + 1} and {k + 2} of {len(positions)} by position; fetch the missing slices"
        )
    steps = np.diff(positions, axis=0)
    shift = np.linalg.norm(steps - np.outer(gaps, normal), axis=1)
    if shift.max() > tolerance:
        raise GeometryError(
            f"{where}: expected slices stacked along their normal, found a sideways shift of "
            f"{shift.max():.4g} mm a slice for a gap of {expected:.4g} mm (gantry tilt); "
            "resample the series outside"
        )


def _pixels(where: Path, headers: list[FrameHeader]) -> NDArray[Any]:
    """Decode the frames in the given order, real values, (Z, Y, X) or (Z, Y, X, 3)."""
    first = headers[0]
    whole = all(h.slope == 1 and h.intercept == round(h.intercept) for h in headers)
    dtype = _integer_type(headers) if whole else np.dtype(np.float32)
    tail = (3,) if first.samples > 1 else ()
    if tail:
        dtype = np.dtype(np.uint8)
    shape = (len(headers), first.rows, first.columns, *tail)
    check_size(where, shape, dtype.itemsize)
    volume = np.empty(shape, dtype=dtype)
    decoded: tuple[Path, NDArray[Any], bool] | None = None
    for z, header in enumerate(headers):
        if decoded is None or decoded[0] != header.path:
            decoded = (header.path, *_decode(header))
        _, stack, rescaled = decoded
        if header.index >= len(stack) or stack[header.index].shape != shape[1:]:
            raise ReadError(
                f"{header.path}: expected frame {header.index + 1} of {shape[1:]} pixels, found "
                f"{len(stack)} frames of {stack.shape[1:]}; fetch it again"
            )
        plane = stack[header.index]
        real = plane if tail else _real(plane, header, rescaled=rescaled)
        if volume.dtype == np.int16 and (real.min() < -(2**15) or real.max() >= 2**15):
            volume = volume.astype(np.int32)  # most 16-bit scanners use 12 bits: widen when not
        volume[z] = real
    return volume


def _integer_type(headers: list[FrameHeader]) -> np.dtype[Any]:
    plain = all(h.intercept == 0 and not h.signed for h in headers)
    return np.dtype(np.uint8 if plain and headers[0].bits_stored <= 8 else np.int16)


def _real(plane: NDArray[Any], header: FrameHeader, *, rescaled: bool) -> NDArray[Any]:
    """Stored -> real values; MONOCHROME1 is mirrored within the stored range first."""
    slope, intercept = header.slope, header.intercept
    if slope == 1 and intercept == round(intercept) and not header.inverted and not rescaled:
        return plane.astype(np.int32) + np.int32(intercept)
    values = plane.astype(np.float64)
    if rescaled:
        values = (values - intercept) / slope
    if header.inverted:
        values = (-1.0 if header.signed else 2.0**header.bits_stored - 1) - values
    return values * slope + intercept


def _decode(header: FrameHeader) -> tuple[NDArray[Any], bool]:
    """Return (frames, Y, X[, 3]) and whether the decoder has rescaled already."""
    data = read_dataset(header.path, pixels=True)
    try:
        array = np.asarray(data.pixel_array)
    except parse_errors() as err:
        if not is_compressed(data):
            raise ReadError(
                f"{header.path}: expected {header.rows} x {header.columns} pixels, found less "
                "data; the file is truncated, fetch it again"
            ) from err
        return _decode_with_itk(header.path), True
    spatial = 3 if header.samples > 1 else 2
    return array.reshape((-1, *array.shape[-spatial:])), False


def _decode_with_itk(path: Path) -> NDArray[Any]:
    """The second decoder, for compressions pydicom has no plugin for (JPEG lossless)."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings quote header values
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as err:
        raise ReadError(
            f"{path}: expected compressed pixels that pydicom or ITK can decode, found others; "
            "decompress the file or fetch it again"
        ) from err
    array = sitk.GetArrayFromImage(image)
    spatial = 3 if image.GetNumberOfComponentsPerPixel() > 1 else 2
    return array.reshape((-1, *array.shape[-spatial:]))
