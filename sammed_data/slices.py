"""Canonical volumes to the 2D slices a corpus stores, with their place in the patient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.stages import stage
from sammed_data.types import Geometry, LabelLayer, Volume

# Array axis that is cut, and the two that stay as rows and columns.
_CUTS = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1), "native": (0, 1, 2)}
# Rows run superior to inferior on coronal and sagittal slices, so Z is flipped there.
_FLIPPED = ("coronal", "sagittal")
ORIENTATIONS = ("lps", "stored")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Where one slice lies.

    Attributes:
        axis: axial, coronal, sagittal, or native for 2D images.
        index: along the cut axis of the canonical (Z, Y, X) array.
        position_mm: along the slice normal, in LPS.
        spacing_mm: distance between slices; None where unknown.
        spacing_yx_mm: pixel size; None where unknown.
    """

    axis: str
    index: int
    position_mm: float | None
    spacing_mm: float | None
    spacing_yx_mm: tuple[float, float] | None


def cut(array: NDArray[Any], axis: str, index: int, orientation: str = "lps") -> NDArray[Any]:
    """One slice of (Z, Y, X) or (Z, Y, X, 3): axial rows A to P and columns R to L, coronal rows
    S to I and columns R to L, sagittal rows S to I and columns A to P.

    ``orientation='stored'`` leaves Z ascending, as the released corpus does.
    """  # noqa: D205 - the orders are one sentence
    plane: NDArray[Any] = array[(slice(None),) * _CUTS[axis][0] + (index,)]  # a view
    if axis in _FLIPPED and orientation == "lps":
        plane = plane[::-1]
    return plane


def slices_with_labels(
    volume: Volume, layers: Sequence[LabelLayer], axes: Sequence[str]
) -> Iterator[tuple[str, list[Slice], int]]:
    """Per axis: the slices on which any label map has an object, and how many have none."""
    for axis in axes:
        labelled = np.zeros(layers[0].array_ZYX.shape[_CUTS[axis][0]], bool)
        for layer in layers:
            labelled |= _labelled(layer, axis)
        first = place(volume, axis, 0)
        position = _positions(None if first.position_mm is None else volume.geometry, axis)
        found = [
            replace(first, index=i, position_mm=position(i))
            for i in np.flatnonzero(labelled).tolist()
        ]
        yield axis, found, int((~labelled).sum())


def _labelled(layer: LabelLayer, axis: str) -> NDArray[np.bool_]:
    """Which slices along an axis hold an object; plane by plane, for no copy of the volume."""
    array = layer.array_ZYX
    if _CUTS[axis][0] == 0 and layer.plane_runs is not None:
        return np.array([len(plane.values) > 0 for plane in layer.plane_runs])
    if _CUTS[axis][0] == 0:
        return np.array([in_memory_order(plane).any() for plane in array])
    found = np.zeros(array.shape[_CUTS[axis][0]], bool)
    for plane in array:
        if in_memory_order(plane).any():
            found |= plane.any(axis=1 if axis == "coronal" else 0)
    return found


def in_memory_order(array: NDArray[Any]) -> NDArray[Any]:
    """A view of the same elements as they lie in memory, for what does not depend on order.

    Canonical volumes are flipped views, on which numpy and OpenCV are several times slower.
    """
    steps = tuple(slice(None, None, -1 if s < 0 else 1) for s in array.strides)
    ahead = array[steps]
    return ahead.transpose(sorted(range(ahead.ndim), key=lambda axis: -ahead.strides[axis]))


@stage("turn slices")
def straight(plane: NDArray[Any]) -> NDArray[Any]:
    """A contiguous copy of a plane; OpenCV turns flipped ones twice as fast as numpy does."""
    flipped = [stride < 0 for stride in plane.strides[:2]]
    # OpenCV gives no array back for an empty one.
    if (
        not (plane.size and any(flipped))
        or plane.dtype.itemsize > 2
        or plane.dtype.kind not in "ui"
    ):
        return np.ascontiguousarray(plane)
    import cv2

    code = -1 if all(flipped) else int(flipped[1])
    steps = tuple(slice(None, None, -1 if back else 1) for back in flipped)
    return np.asarray(cv2.flip(plane[steps], code))


def by_pixel(plane: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """What a function of single pixels makes of a plane, contiguous.

    A flipped view is changed as it lies in memory and turned then, when it is bytes.
    """
    steps = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in plane.strides[:2])
    return straight(change(plane[steps])[steps])


@dataclass(frozen=True, kw_only=True)
class Cutter:
    """How planes become the stored ones.

    Attributes:
        orientation: 'lps' or 'stored'.
        isotropic: pixels that are not square are resampled to the finer of their two sides.
    """

    orientation: str = "lps"
    isotropic: bool = False

    def labels(self, array: NDArray[Any], where: Slice) -> NDArray[Any]:
        """A plane of a label map, maybe a flipped view; the nearest value where resampled."""
        plane = cut(array, where.axis, where.index, self.orientation)
        height, width = self._size(plane, where)
        if (height, width) == plane.shape[:2]:
            return plane
        return np.ascontiguousarray(
            plane[_nearest(plane.shape[0], height)][:, _nearest(plane.shape[1], width)]
        )

    def values(self, array: NDArray[Any], where: Slice) -> NDArray[Any]:
        """A plane of the image, maybe a flipped view; linear between pixels where resampled."""
        plane = cut(array, where.axis, where.index, self.orientation)
        height, width = self._size(plane, where)
        if (height, width) == plane.shape[:2]:
            # Columns that lie far apart are gathered once, not by everyone who looks at them.
            near = plane.ndim > 2 or abs(plane.strides[1]) == plane.itemsize
            return plane if near else straight(plane)
        import cv2

        plane = straight(plane)
        known = plane.dtype in (np.uint8, np.int16, np.uint16, np.float32)
        plain = plane if known else plane.astype(np.float32)
        return np.asarray(cv2.resize(plain, (width, height), interpolation=cv2.INTER_LINEAR))

    def resamples(self, where: Slice) -> bool:
        """Whether the pixels of a slice are not square and are to be."""
        if not self.isotropic or where.spacing_yx_mm is None:
            return False
        return not np.isclose(*where.spacing_yx_mm, rtol=1e-3)

    def is_plane(self, where: Slice) -> bool:
        """Whether a slice is a plane of the array as it is."""
        return _CUTS[where.axis][0] == 0 and not self.resamples(where)

    def spacing_yx_mm(
        self, where: Slice, cut_hw: tuple[int, int], stored_hw: tuple[int, int]
    ) -> tuple[float, float] | None:
        """Pixel size as stored: the same millimetres over as many pixels as there now are."""
        if where.spacing_yx_mm is None or not self.resamples(where):
            return where.spacing_yx_mm
        (y, x), (h, w), (new_h, new_w) = where.spacing_yx_mm, cut_hw, stored_hw
        return y * h / new_h, x * w / new_w

    def _size(self, plane: NDArray[Any], where: Slice) -> tuple[int, int]:
        height, width = plane.shape[:2]
        if where.spacing_yx_mm is None or not self.resamples(where):
            return height, width
        y, x = where.spacing_yx_mm
        finer = min(y, x)
        return max(1, round(height * y / finer)), max(1, round(width * x / finer))


def _nearest(size: int, new: int) -> NDArray[np.intp]:
    """Which old pixel lies under the centre of each new one."""
    return np.minimum(((np.arange(new) + 0.5) * size / new).astype(np.intp), size - 1)


def plane_shape(array: NDArray[Any], axis: str) -> tuple[int, int]:
    """(height, width) of the planes across an axis."""
    _, rows, columns = _CUTS[axis]
    return int(array.shape[rows]), int(array.shape[columns])


def place(volume: Volume, axis: str, index: int) -> Slice:
    """Position and spacings of one slice of a canonical volume."""
    if axis == "native" and volume.array.shape[0] == 1:
        return Slice(
            axis=axis,
            index=index,
            position_mm=None,
            spacing_mm=None,
            spacing_yx_mm=volume.spacing_yx_mm or _in_plane(volume.geometry, axis),
        )
    geometry = volume.geometry
    return Slice(
        axis=axis,
        index=index,
        position_mm=_positions(geometry, axis)(index),
        spacing_mm=None if geometry is None else geometry.spacing_zyx_mm[_CUTS[axis][0]],
        spacing_yx_mm=volume.spacing_yx_mm or _in_plane(geometry, axis),
    )


def _in_plane(geometry: Geometry | None, axis: str) -> tuple[float, float] | None:
    if geometry is None:
        return None
    _, rows, columns = _CUTS[axis]
    return geometry.spacing_zyx_mm[rows], geometry.spacing_zyx_mm[columns]


def _positions(geometry: Geometry | None, axis: str) -> Callable[[int], float | None]:
    """Index along an axis -> mm along the slice normal."""
    if geometry is None:
        return lambda index: None
    step, origin = geometry.affine_lps[:3, _CUTS[axis][0]], geometry.affine_lps[:3, 3]
    normal = step / np.linalg.norm(step)
    return lambda index: round(float(normal @ (origin + index * step)), 4)
