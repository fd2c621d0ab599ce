"""LIDC XML: nodules outlined by up to four readers, slice by slice, on the pixels of a CT series.

An edge map runs through the first pixels *outside* of what it encloses, so these do not belong to
the nodule; a region of exclusion is a hole in the same way. Nodules under 3 mm have one point only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from sammed_data.layers import Region
from sammed_data.readers.dicom_header import parse_errors, silence_pydicom
from sammed_data.readers.limits import first_bytes
from sammed_data.readers.outlines import Ring, Shape, fill, ring_of
from sammed_data.readers.outlines_xml import root_of
from sammed_data.types import Geometry, GeometryError, ReadError

_TAGS = ["SOPInstanceUID", "ImagePositionPatient", "ImageOrientationPatient"]
_OFF_SLICE = 0.1  # share of a slice by which a stated position may differ


@dataclass(frozen=True, kw_only=True)
class _Contour:
    slice_index: int
    ring: Ring
    included: bool


def read(path: Path, like: Geometry, series: Path) -> tuple[list[list[Region]], int]:
    """Nodules of every reading session.

    Args:
        path: the XML file.
        like: canonical grid of the image.
        series: the image; of a DICOM series the slices are found by their UIDs.

    Returns:
        One list of regions a session, in file order, each region a nodule; and how many nodules
        have a point and no outline.

    Raises:
        ReadError: not such a file, or damaged.
        GeometryError: contours on slices that the image does not have.
    """
    slices = _Slices(path, like, series)
    readers: list[list[Region]] = []
    points = 0
    for session in root_of(path, "LidcReadMessage").iterfind("readingSession"):
        regions = []
        for number, nodule in enumerate(session.iterfind("unblindedReadNodule"), start=1):
            contours = list(_contours(path, nodule, slices))
            if all(len(c.ring) < 3 for c in contours):
                points += 1
                continue
            voxels = _voxels(path, contours, like.shape_zyx)
            regions.append(Region(name="nodule", voxels_N=voxels, instance=number))
        readers.append(regions)
    return readers, points


def _contours(path: Path, nodule: Element, slices: _Slices) -> Iterator[_Contour]:
    for roi in nodule.iterfind("roi"):
        edges = ((e.findtext("xCoord"), e.findtext("yCoord")) for e in roi.iterfind("edgeMap"))
        yield _Contour(
            slice_index=slices.index(roi.findtext("imageSOP_UID"), roi.findtext("imageZposition")),
            ring=ring_of(path, edges, 0.0),
            included=(roi.findtext("inclusion") or "TRUE").strip().upper() == "TRUE",
        )


def _voxels(
    path: Path, contours: list[_Contour], shape_zyx: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Flat voxel indices: strictly inside an outline and not strictly inside an excluded one."""
    _, height, width = shape_zyx
    found = []
    for k in sorted({c.slice_index for c in contours}):
        drawn = {True: np.empty(0, np.int64), False: np.empty(0, np.int64)}
        for contour in (c for c in contours if c.slice_index == k and len(c.ring) >= 3):
            plane = fill(path, Shape(names=(), rings=(contour.ring,)), (height, width))
            edge = np.rint(contour.ring).astype(np.int64)
            edge = edge[((edge >= 0) & (edge < (width, height))).all(axis=1)]
            plane = np.setdiff1d(plane, edge[:, 1] * width + edge[:, 0])
            drawn[contour.included] = np.union1d(drawn[contour.included], plane)
        found.append(np.setdiff1d(drawn[True], drawn[False]) + k * height * width)
    return np.concatenate(found).astype(np.int64)


class _Slices:
    """Which slice of the canonical grid a contour lies on.

    The edge maps count the stored pixels of axial slices, whose rows run to the back and columns
    to the left of the patient; on any other grid they would have to be turned first.
    """

    def __init__(self, path: Path, like: Geometry, series: Path) -> None:
        self._path, self._like = path, like
        self._by_uid: dict[str, int] = {}
        if series.is_dir():
            for file in sorted(p for p in series.iterdir() if p.suffix.lower() != ".xml"):
                if first_bytes(file)[128:132] == b"DICM" or file.suffix.lower() == ".dcm":
                    self._add(file)

    def _add(self, file: Path) -> None:
        import pydicom

        silence_pydicom()
        try:
            data = pydicom.dcmread(file, force=True, specific_tags=_TAGS, stop_before_pixels=True)
            if "ImagePositionPatient" not in data:
                return
            axes = np.array(data.ImageOrientationPatient, dtype=np.float64)
            z_mm, uid = float(data.ImagePositionPatient[2]), str(data.SOPInstanceUID)
        except parse_errors() as err:
            raise ReadError(
                f"{file}: expected a slice with UID, position and orientation, found a damaged "
                f"header ({type(err).__name__}); fetch it again"
            ) from err
        if not np.allclose(axes, (1, 0, 0, 0, 1, 0), atol=1e-2):
            raise GeometryError(
                f"{self._path}: expected outlines on axial slices stored from front to back and "
                f"right to left, found {file.name} stored otherwise; leave the case out"
            )
        self._by_uid[uid] = self._at(z_mm)

    def _at(self, z_mm: float) -> int:
        origin, step = self._like.affine_lps[2, 3], self._like.affine_lps[2, 0]
        place = float((z_mm - origin) / step)
        k = round(place) if np.isfinite(place) else -1
        if abs(place - k) > _OFF_SLICE or not 0 <= k < self._like.shape_zyx[0]:
            raise GeometryError(
                f"{self._path}: expected contours on the slices of the image, "
                f"{self._like.describe()}, found one at z = {z_mm:g} mm; use the series they were "
                "drawn on"
            )
        return k

    def index(self, uid: str | None, z_text: str | None) -> int:
        """Slice by UID where the image has UIDs, else by position."""
        if self._by_uid:
            found = self._by_uid.get((uid or "").strip())
            if found is None:
                raise GeometryError(
                    f"{self._path}: expected contours on slices of the series beside it, found one "
                    "on another image; use the series they were drawn on"
                )
            return found
        try:
            return self._at(float(z_text or ""))
        except (ValueError, OverflowError) as err:
            if isinstance(err, GeometryError):
                raise
            raise ReadError(
                f"{self._path}: expected a number as imageZposition, found {z_text!r:.40}; mend it"
            ) from err
