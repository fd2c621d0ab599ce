"""Ultrasound regions: what of a picture is tissue; outside lie names, dates and scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.types import Crop, ReadError

_2D = 1
_TISSUE_OR_FLOW = (1, 2)
_CENTIMETRES = 3


@dataclass(frozen=True, kw_only=True)
class Region:
    """A 2D tissue region.

    Attributes:
        box_xyxy: half-open, in pixels of the stored picture.
        spacing_yx: pixel size in mm, or None where it is not stated as a length.
    """

    box_xyxy: tuple[int, int, int, int]
    spacing_yx: tuple[float, float] | None


def regions_of(path: Path, data: Any) -> tuple[Region, ...]:
    """The 2D tissue regions (colour flow included) that a header declares.

    Raises:
        ReadError: a region lies outside the picture.
    """
    found = []
    rows, columns = int(data.Rows), int(data.Columns)
    for item in data.get("SequenceOfUltrasoundRegions") or []:
        if int(item.get("RegionSpatialFormat") or 0) != _2D:
            continue
        if int(item.get("RegionDataType") or 0) not in _TISSUE_OR_FLOW:
            continue
        names = ("MinX0", "MinY0", "MaxX1", "MaxY1")
        x0, y0, x1, y1 = (int(item[f"RegionLocation{n}"].value) for n in names)
        # The last pixel is inclusive; some scanners write the size of the picture instead.
        box = max(x0, 0), max(y0, 0), min(x1 + 1, columns), min(y1 + 1, rows)
        if box[0] >= box[2] or box[1] >= box[3] or x1 > columns or y1 > rows:
            raise ReadError(
                f"{path}: expected ultrasound regions inside {columns} x {rows} pixels, found one "
                f"of ({x0}, {y0}) to ({x1}, {y1}); mend the header or leave the file out"
            )
        found.append(Region(box_xyxy=box, spacing_yx=_spacing(item)))
    return tuple(found)


def _spacing(item: Any) -> tuple[float, float] | None:
    units = [int(item.get(f"PhysicalUnits{axis}Direction") or 0) for axis in "YX"]
    deltas = [abs(float(item.get(f"PhysicalDelta{axis}") or 0)) * 10 for axis in "YX"]
    if units != [_CENTIMETRES] * 2 or not all(0 < d < np.inf for d in deltas):
        return None
    return deltas[0], deltas[1]


def common_spacing(regions: Sequence[Region]) -> tuple[float, float] | None:
    """Pixel size in mm, where all regions state the same."""
    sizes = [r.spacing_yx for r in regions if r.spacing_yx is not None]
    if not sizes or len(sizes) < len(regions):
        return None
    same = np.allclose(np.array(sizes), sizes[0], rtol=1e-3, atol=0)
    return sizes[0] if same else None


def cropped(array: NDArray[Any], regions: Sequence[Region]) -> tuple[NDArray[Any], Crop]:
    """Cut (Z, Y, X) or (Z, Y, X, 3) to the box around all regions; black between them."""
    boxes = np.array([r.box_xyxy for r in regions])
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    inside = np.zeros(array.shape[1:3], bool)
    for x0, y0, x1, y1 in boxes:
        inside[y0:y1, x0:x1] = True
    kept = array[:, top:bottom, left:right].copy()
    kept[:, ~inside[top:bottom, left:right]] = 0
    height, width = (int(n) for n in array.shape[1:3])
    return kept, Crop(top=int(top), left=int(left), whole_yx=(height, width))
