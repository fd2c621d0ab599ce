"""DICOM images as volumes: slices and frames sorted by position, never by name or number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sammed_data.geometry import canonicalize
from sammed_data.readers.dicom_beside import only_slices
from sammed_data.readers.dicom_header import FrameHeader, frames
from sammed_data.readers.dicom_pixels import pixels
from sammed_data.readers.dicom_regions import common_spacing, cropped
from sammed_data.readers.dicom_stacks import one_volume
from sammed_data.readers.limits import first_bytes
from sammed_data.types import Geometry, GeometryError, ReadError, Volume, Writing

_ULTRASOUND = ("US", "IVUS")
_DETECTOR = {
    "ImagerPixelSpacing": "pixel size is that at the detector (ImagerPixelSpacing)",
    "NominalScannedPixelSpacing": "pixel size is that of a scan (NominalScannedPixelSpacing)",
}


def read(path: Path | Sequence[Path], channel: int | None = None) -> Volume:
    """Read a series folder, a list of files of one series, or one file of one or many frames.

    Frames with positions make a volume. Without them they are pictures, one a plane; ultrasound
    is cut to its 2D tissue regions. SEG, RTSTRUCT and files that are not DICOM are passed over;
    localizers, screenshots and second copies beside the slices are left out with a warning.

    Args:
        path: what to read.
        channel: which of several volumes in one file (stacks, phases, echoes), or which frame of
            pictures, from 0.

    Raises:
        ReadError: no image, two image series, several volumes, or a damaged file.
        GeometryError: the slices do not form a regular grid.
    """
    where = path if isinstance(path, Path) else path[0].parent
    headers, beside = only_slices(_headers(path))
    headers = _one_series(where, headers)
    _refuse_mixture(where, headers)
    first = headers[0]
    if first.position is None or first.axes is None or first.spacing_yx is None:
        return _pictures(where, headers, channel)
    if channel is not None or (len(headers) > 1 and len({h.path for h in headers}) == 1):
        headers = one_volume(where, headers, channel)
    headers, geometry, warnings = _sorted_grid(where, headers)
    array, geometry = canonicalize(pixels(where, headers), geometry, where)
    return Volume(
        array=array,
        geometry=geometry,
        bits=max(8, first.bits_stored),
        modality=first.modality or None,
        warnings=(*beside, *warnings),
        text="burned-in" if any(h.burned_in for h in headers) else "",
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
            "name the folder that holds the slices"
        )
    counts: dict[str, list[FrameHeader]] = {}
    for header in headers:
        counts.setdefault(header.series, []).append(header)
    if len(counts) > 1:
        shown = " and ".join(f"{len(h)} x {h[0].modality or 'unknown'}" for h in counts.values())
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


def _pictures(where: Path, headers: list[FrameHeader], channel: int | None) -> Volume:
    """Images without a position in the patient: X-ray, ultrasound, or a cine of frames."""
    if len({h.path for h in headers}) > 1:
        raise GeometryError(
            f"{where}: expected slices with position, orientation and pixel spacing, found "
            f"{len(headers)} without; point the pattern at single files"
        )
    if channel is not None:
        if not 0 <= channel < len(headers):
            raise ReadError(
                f"{where}: expected a frame for channel {channel}, found {len(headers)} frames; "
                "check the frame numbers and where they begin"
            )
        headers = [headers[channel]]
    first, regions = headers[0], headers[0].regions
    array, crop = pixels(where, headers), None
    spacing, warnings = first.spacing_yx, [_DETECTOR.get(first.spacing_tag, "")]
    text: Writing = "burned-in" if first.burned_in else ""
    if regions:
        array, crop = cropped(array, regions)
        measured = common_spacing(regions)
        if measured is not None:
            spacing, warnings = measured, ["pixel size is that of the ultrasound region"]
    elif first.modality in _ULTRASOUND:
        text = text or "no-region"
        warnings.append("no 2D tissue region is declared; the picture is kept whole")
    return Volume(
        array=array,
        geometry=None,
        bits=max(8, first.bits_stored) if array.ndim == 3 else 8,
        spacing_yx_mm=spacing,
        modality=first.modality or None,
        warnings=tuple(w for w in warnings if w),
        crop=crop,
        text=text,
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
        _refuse_uneven(where, positions, normal, [headers[k].path.name for k in order])
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
    where: Path, positions: NDArray[np.float64], normal: NDArray[np.float64], names: Sequence[str]
) -> None:
    """Refuse duplicate positions, uneven gaps and gantry tilt, all in mm."""
    gaps = np.diff(positions @ normal)
    expected = float(np.median(gaps))
    if gaps.min() < 1e-3:
        k = int(gaps.argmin())
        both = " and ".join(names[k : k + 2])
        raise GeometryError(
            f"{where}: expected one slice a position, found two at {positions[k] @ normal:.3f} mm "
            f"(gap 0 mm, slices {k + 1} and {k + 2} by position: {both}); "
            "separate phases or acquisitions into folders"
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
