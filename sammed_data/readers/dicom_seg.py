"""DICOM SEG: a frame is placed on the image grid by where it lies, not by what it references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.layers import Region
from sammed_data.readers.dicom_header import (
    frame_plane,
    is_compressed,
    modality_of,
    parse_errors,
    read_dataset,
)
from sammed_data.readers.limits import check_size
from sammed_data.types import Geometry, GeometryError, ReadError

# A frame lies in the grid if its corners hit voxel centres within this share of a voxel: room for
# positions rounded in decimal strings, none for a neighbouring slice.
_TOLERANCE_VOXEL = 0.05


def read(path: Path, like: Geometry) -> list[Region]:
    """Read all segments as regions of the image grid, in ascending segment number.

    Args:
        path: a SEG object (BINARY, FRACTIONAL cut at one half, or LABELMAP).
        like: the canonical grid of the image.

    Raises:
        ReadError: not a SEG object, or damaged.
        GeometryError: a frame does not lie in the grid.
    """
    data = read_dataset(path, pixels=True)
    if "SegmentSequence" not in data:
        raise ReadError(
            f"{path}: expected a DICOM SEG object, found modality "
            f"{modality_of(data) or 'unknown'}; point the label pattern at the SEG file"
        )
    try:
        return _regions(path, data, like)
    except parse_errors() as err:
        if isinstance(err, ReadError | GeometryError):
            raise
        raise ReadError(
            f"{path}: expected a readable SEG object, found a damaged one "
            f"({type(err).__name__}); fetch it again"
        ) from err


def _regions(path: Path, data: Any, like: Geometry) -> list[Region]:
    labels = {int(s.SegmentNumber): str(s.get("SegmentLabel", "")) for s in data.SegmentSequence}
    voxels: dict[int, list[NDArray[np.int64]]] = {number: [] for number in labels}
    for index, frame in enumerate(_frames(path, data)):
        plane = frame_plane(data, index)
        if plane is None:
            raise GeometryError(
                f"{path}: expected position, orientation and spacing of every frame, found none "
                f"for frame {index + 1}; write the SEG again with plane positions"
            )
        flat = _place(path, index, frame.shape, plane, like)
        for number in _numbers(data, index, frame):
            if number not in voxels:
                raise ReadError(
                    f"{path}: expected segment numbers {sorted(labels)}, found {number} in frame "
                    f"{index + 1}; write the SEG again"
                )
            inside = frame == number if _is_labelmap(data) else frame > 0
            voxels[number].append(flat[inside])
    empty = np.empty(0, dtype=np.int64)
    return [
        Region(name=labels[n], number=n, voxels_N=np.unique(np.concatenate([empty, *voxels[n]])))
        for n in sorted(labels)
    ]


def _is_labelmap(data: Any) -> bool:
    return str(data.get("SegmentationType", "")) == "LABELMAP"


def _numbers(data: Any, index: int, frame: NDArray[Any]) -> list[int]:
    """Segment numbers that a frame holds: one by its header, or those in a label map."""
    if _is_labelmap(data):
        return [int(v) for v in np.unique(frame) if v != 0]
    per_frame = data.PerFrameFunctionalGroupsSequence[index]
    group = per_frame.get("SegmentIdentificationSequence")
    if not group:
        group = data.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence
    return [int(group[0].ReferencedSegmentNumber)]


def _frames(path: Path, data: Any) -> NDArray[Any]:
    """(frames, rows, columns) pixels; bits run on over frame borders in the BINARY type."""
    n, rows, columns = int(data.NumberOfFrames), int(data.Rows), int(data.Columns)
    check_size(path, (n, rows, columns), 1)
    if int(data.BitsAllocated) == 1 and not is_compressed(data):
        packed = np.frombuffer(data.PixelData, dtype=np.uint8)
        count = n * rows * columns
        if packed.size * 8 < count:
            raise ReadError(
                f"{path}: expected {(count + 7) // 8:,} bytes of pixels, found {packed.size:,}; "
                "the file is truncated, fetch it again"
            )
        return np.unpackbits(packed, bitorder="little", count=count).reshape(n, rows, columns)
    frames = np.asarray(data.pixel_array).reshape(n, rows, columns)
    if str(data.get("SegmentationType", "")) == "FRACTIONAL":
        return (2 * frames.astype(np.int32) > int(data.get("MaximumFractionalValue", 255))) * 1
    return frames


def _place(
    path: Path,
    index: int,
    shape: tuple[int, ...],
    plane: tuple[NDArray[np.float64], NDArray[np.float64]],
    like: Geometry,
) -> NDArray[np.int64]:
    """Flat image index of every pixel of a frame, (rows, columns)."""
    position, steps = plane
    inverse = np.linalg.inv(like.affine_lps)
    start = inverse[:3, :3] @ position + inverse[:3, 3]
    moves = inverse[:3, :3] @ steps
    whole_start, whole_moves = np.rint(start), np.rint(moves)
    ends = np.array([[0, 0], [shape[0] - 1, 0], [0, shape[1] - 1]], dtype=np.float64)
    off = np.abs((start - whole_start) + ends @ (moves - whole_moves).T).max()
    low = np.minimum(whole_start, whole_start + ends @ whole_moves.T).min(axis=0)
    corner = whole_start + whole_moves @ (np.array(shape) - 1)
    low, high = np.minimum(low, corner), np.maximum(whole_start, corner)
    inside = (low >= 0).all() and (high < np.array(like.shape_zyx)).all()
    if off > _TOLERANCE_VOXEL or not inside or np.abs(whole_moves).sum() != 2:
        z, y, x = (f"{v:.2f}" for v in start)
        raise GeometryError(
            f"{path}: expected frame {index + 1} in the grid of the image, {like.describe()}, "
            f"found its first pixel at voxel (z {z}, y {y}, x {x}) and {shape[0]} x {shape[1]} "
            "pixels; check that SEG and image belong together"
        )
    strides = np.array([like.shape_zyx[1] * like.shape_zyx[2], like.shape_zyx[2], 1])
    base = int(whole_start @ strides)
    row_step, column_step = (int(v) for v in whole_moves.T @ strides)
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    return (base + rows * row_step + columns * column_step).astype(np.int64)
