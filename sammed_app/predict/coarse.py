"""Prompts from a coarse mask: a label map, a DICOM SEG or the contours of an RTSTRUCT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sammed_app.predict.scan import Scan, geometry_of, stem_of
from sammed_app.predict.types import Asked
from sammed_data.geometry import same_grid
from sammed_data.layers import Region
from sammed_data.readers import dicom_seg, rtstruct
from sammed_data.readers.dicom_header import frame_of_reference, modality_of, read_dataset
from sammed_data.readers.limits import first_bytes
from sammed_data.readers.registry import read_label_map
from sammed_data.types import GeometryError, ReadError, UsageError

MIN_PART_PX = 4


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """What a coarse mask asks.

    Attributes:
        asked: a prompt for each component of each object on each slice.
        left_out: components under ``MIN_PART_PX``.
        warnings: what the user should know.
    """

    asked: list[Asked]
    left_out: int
    warnings: tuple[str, ...] = ()


def from_coarse(coarse: Path, scan: Scan, axis: str, form: str) -> Coarse:
    """A prompt for each component of each object of a coarse mask, slice by slice.

    Args:
        coarse: label map on the grid of the image, SEG or RTSTRUCT that lies in it, or a folder
            that holds one of the same name, or one such DICOM object.
        scan: the image.
        axis: of the slices.
        form: ``box`` (tight) or ``point`` (the pixel farthest from the border).

    Raises:
        UsageError: no mask of that name.
        GeometryError: another grid.
        ReadError: damaged, or no object in it.
    """
    path = _coarse_of(coarse, scan)
    objects, warnings = _objects(path, scan)
    asked: list[Asked] = []
    small = 0
    for name, mask_ZYX in objects:
        for index in range(scan.count(axis)):
            for box, inner in _components(scan.view(mask_ZYX, axis, index)):
                if inner is None:
                    small += 1
                    continue
                asked.append(
                    Asked(
                        object=name,
                        axis=axis,
                        index=index,
                        box_xyxy=box if form == "box" else None,
                        points=() if form == "box" else ((*inner, 1),),
                    )
                )
    if not asked:
        raise ReadError(f"{path}: expected an object of {MIN_PART_PX} px or more, found none")
    return Coarse(asked=asked, left_out=small, warnings=warnings)


_Objects = Iterator[tuple[str, NDArray[np.bool_]]]


def _objects(path: Path, scan: Scan) -> tuple[_Objects, tuple[str, ...]]:
    """Each object's name and (Z, Y, X) mask in canonical axes, one in memory at a time."""
    what = _dicom_object(path)
    if what == "SEG":
        return _drawn(dicom_seg.read(path, geometry_of(scan, "a SEG")), scan), ()
    if what == "RTSTRUCT":
        frame = frame_of_reference(scan.path) if scan.format == "dicom" else None
        regions, warnings = rtstruct.read(path, geometry_of(scan, "an RTSTRUCT"), frame)
        return _drawn(regions, scan), warnings
    return _of_map(path, scan), ()


def _dicom_object(path: Path) -> str:
    """SEG or RTSTRUCT; '' for anything else."""
    if path.is_dir() or first_bytes(path)[128:132] != b"DICM":
        return ""
    found = str(modality_of(read_dataset(path)) or "")
    return found if found in ("SEG", "RTSTRUCT") else ""


def _drawn(regions: list[Region], scan: Scan) -> _Objects:
    names = [region.name or f"segment {region.number or k}" for k, region in enumerate(regions, 1)]
    counts = Counter(names)
    for k, (name, region) in enumerate(zip(names, regions, strict=True), 1):
        mask = np.zeros(scan.shape_zyx, bool)
        mask.reshape(-1)[region.voxels_N] = True
        yield name if counts[name] == 1 else f"{name} ({region.number or k})", mask


def _of_map(path: Path, scan: Scan) -> _Objects:
    labels, geometry = read_label_map(path)
    labels = labels.max(axis=-1) if labels.ndim == 4 else labels
    if labels.shape != scan.shape_zyx or not same_grid(geometry, scan.volume.geometry):
        found = geometry.describe() if geometry else f"{labels.shape} pixels without a position"
        wanted = scan.volume.geometry.describe() if scan.volume.geometry else str(scan.shape_zyx)
        raise GeometryError(f"{path}: expected the grid of {scan.path}, {wanted}, found {found}")
    for value in np.unique(labels[labels != 0]).tolist():
        yield f"label {value}", labels == value


def _coarse_of(coarse: Path, scan: Scan) -> Path:
    if not coarse.exists():
        raise UsageError(f"expected a coarse mask at {coarse}, found none: check --prompts-from")
    if coarse.is_file():
        return coarse
    files = [p for p in sorted(coarse.iterdir()) if p.is_file() and not p.name.startswith(".")]
    near = [p for p in files if stem_of(p) == scan.name]
    if len(files) == 1 and _dicom_object(files[0]):
        near = files
    if len(near) != 1:
        raise UsageError(f"expected one mask named {scan.name}.* in {coarse}, found {len(near)}")
    return near[0]


_Box = tuple[float, float, float, float]


def _components(mask_HW: NDArray[np.bool_]) -> list[tuple[_Box, tuple[float, float] | None]]:
    """Tight box and innermost pixel of each 8-connected part; None where it is too small."""
    import cv2

    count, numbered, table, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask_HW, np.uint8), connectivity=8
    )
    found: list[tuple[_Box, tuple[float, float] | None]] = []
    for part in range(1, count):
        x, y, w, h, area = (int(v) for v in table[part])
        box = (float(x), float(y), float(x + w), float(y + h))
        if area < MIN_PART_PX:
            found.append((box, None))
            continue
        inside = np.pad(numbered[y : y + h, x : x + w] == part, 1).astype(np.uint8)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        found.append((box, (float(x + column - 1), float(y + row - 1))))
    return found
