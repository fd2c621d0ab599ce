"""RTSTRUCT contours -> voxels by the even-odd rule at voxel centres, placed by geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.layers import Region
from sammed_data.readers.dicom_header import modality_of, parse_errors, read_dataset
from sammed_data.types import Geometry, GeometryError, ReadError

# Share of a slice by which the points of one contour, or the contours of one slice, may differ.
_PLANE_TOLERANCE = 0.1


def read(
    path: Path, like: Geometry, image_frame: str | None = None
) -> tuple[list[Region], tuple[str, ...]]:
    """Read all ROIs as regions of the image grid.

    Args:
        path: an RTSTRUCT object.
        like: the canonical grid of the image.
        image_frame: frame of reference of the image, compared in memory only.

    Returns:
        One region for each ROI, in file order, and warnings (a frame of reference that differs,
        points and open contours that enclose nothing).

    Raises:
        ReadError: not an RTSTRUCT, or damaged.
        GeometryError: contours are oblique to the grid or outside it.
    """
    data = read_dataset(path, contours=True)
    if str(data.get("Modality", "")) != "RTSTRUCT" or "StructureSetROISequence" not in data:
        raise ReadError(
            f"{path}: expected an RTSTRUCT object, found modality "
            f"{modality_of(data) or 'unknown'}; point the label pattern at the RTSTRUCT file"
        )
    try:
        return _regions(path, data, like, image_frame)
    except parse_errors() as err:
        if isinstance(err, GeometryError):
            raise
        raise ReadError(
            f"{path}: expected readable contours, found a damaged object "
            f"({type(err).__name__}); fetch it again"
        ) from err


def _regions(
    path: Path, data: Any, like: Geometry, image_frame: str | None
) -> tuple[list[Region], tuple[str, ...]]:
    warnings = []
    frames = {
        str(s.FrameOfReferenceUID) for s in data.get("ReferencedFrameOfReferenceSequence") or []
    }
    if image_frame and frames and image_frame not in frames:
        warnings.append("RTSTRUCT states another frame of reference than its image")
    sequences = {
        int(item.ReferencedROINumber): item.get("ContourSequence") or []
        for item in data.get("ROIContourSequence") or []
    }
    regions = []
    for roi in data.StructureSetROISequence:
        name, number = str(roi.get("ROIName", "")).strip(), int(roi.ROINumber)
        contours = []
        for item in sequences.get(number, []):
            points = np.asarray(item.ContourData, dtype=np.float64).reshape(-1, 3)
            closed = str(item.get("ContourGeometricType", "")).startswith("CLOSED")
            if closed and len(points) >= 3:
                contours.append(_to_voxels(points, like))
            else:
                warnings.append(f"ROI {number}: a contour of {len(points)} points encloses nothing")
        voxels, off_mm = _fill(path, name, contours, like)
        regions.append(Region(name=name, voxels_N=voxels))
        if off_mm:
            warnings.append(f"ROI {number}: contours lie {off_mm:.3g} mm off the slices")
    return regions, tuple(dict.fromkeys(warnings))


def _to_voxels(points_mm: NDArray[np.float64], like: Geometry) -> NDArray[np.float64]:
    inverse = np.linalg.inv(like.affine_lps)
    return np.asarray(points_mm @ inverse[:3, :3].T + inverse[:3, 3])


def _fill(
    path: Path, name: str, contours: list[NDArray[np.float64]], like: Geometry
) -> tuple[NDArray[np.int64], float]:
    """Fill the contours of one ROI; those of one slice combine by parity, so holes stay holes.

    Returns:
        Flat voxel indices, and how far contours lie off their slices in mm (0 within tolerance).
    """
    if not contours:
        return np.empty(0, dtype=np.int64), 0.0
    axis = int(np.sum([np.ptp(c, axis=0) for c in contours], axis=0).argmin())
    slices: dict[int, list[NDArray[np.float64]]] = {}
    for contour in contours:
        k = _slice_of(path, name, contour[:, axis], like, axis)
        slices.setdefault(k, []).append(contour)
    in_plane = [a for a in range(3) if a != axis]
    rows, columns = (like.shape_zyx[a] for a in in_plane)
    strides = np.array([like.shape_zyx[1] * like.shape_zyx[2], like.shape_zyx[2], 1])
    found, off = [], 0.0
    for k, members in slices.items():
        planes = [float(c[:, axis].mean()) for c in members]
        off = max(off, *(abs(plane - k) for plane in planes), 0.0)
        if max(planes) - min(planes) > _PLANE_TOLERANCE:
            raise GeometryError(
                f"{path}: expected the contours of ROI {name} on the slices of the image, found "
                f"two planes {(max(planes) - min(planes)) * like.spacing_zyx_mm[axis]:.3g} mm "
                "apart on one slice; use the series the contours were drawn on"
            )
        inside = even_odd([c[:, in_plane] for c in members], rows, columns)
        row, column = np.nonzero(inside)
        found.append(k * strides[axis] + row * strides[in_plane[0]] + column * strides[in_plane[1]])
    off_mm = off * like.spacing_zyx_mm[axis] if off > _PLANE_TOLERANCE else 0.0
    return np.sort(np.concatenate(found)).astype(np.int64), off_mm


def _slice_of(path: Path, name: str, along: NDArray[np.float64], like: Geometry, axis: int) -> int:
    """Index of the slice a contour lies on, from its coordinates along the slice axis."""
    spacing = like.spacing_zyx_mm[axis]
    if np.ptp(along) > 2 * _PLANE_TOLERANCE:
        raise GeometryError(
            f"{path}: expected planar contours parallel to the slices, found ROI {name} with a "
            f"contour {np.ptp(along) * spacing:.3g} mm deep; use the series it was drawn on"
        )
    plane = float(along.mean())
    k = round(plane)
    if not 0 <= k < like.shape_zyx[axis]:
        off = max(-plane, plane - (like.shape_zyx[axis] - 1)) * spacing
        raise GeometryError(
            f"{path}: expected the contours of ROI {name} inside the image, {like.describe()}, "
            f"found one {off:.4g} mm beyond its last slice; check that both belong together"
        )
    return k


def even_odd(polygons: list[NDArray[np.float64]], rows: int, columns: int) -> NDArray[np.bool_]:
    """Which pixel centres lie inside an odd number of polygons.

    Args:
        polygons: each (N, 2) as (row, column) in pixels; a pixel's centre is its integer index.
        rows: height of the raster.
        columns: width of the raster.
    """
    # crossings[r, c]: edges that cut row r at a column in (c - 1, c]; pixels left of c toggle.
    crossings = np.zeros((rows, columns + 1), dtype=np.int64)
    for polygon in polygons:
        start, end = polygon, np.roll(polygon, -1, axis=0)
        low = np.minimum(start[:, 0], end[:, 0])
        high = np.maximum(start[:, 0], end[:, 0])
        first = np.clip(np.ceil(low), 0, rows).astype(np.int64)
        last = np.clip(np.ceil(high), 0, rows).astype(np.int64)  # half-open: low <= row < high
        counts = last - first
        edge = np.repeat(np.arange(len(polygon)), counts)
        row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        row += first[edge]
        slope = (end[edge, 1] - start[edge, 1]) / (end[edge, 0] - start[edge, 0])
        cut = start[edge, 1] + (row - start[edge, 0]) * slope
        np.add.at(crossings, (row, np.clip(np.ceil(cut), 0, columns).astype(np.int64)), 1)
    right_of = np.cumsum(crossings[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(right_of[:, 1:] % 2 == 1)
