"""Canonical volumes to the 2D slices a corpus stores, with their place in the patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.types import Geometry, Volume

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
    plane: NDArray[Any] = np.take(array, index, axis=_CUTS[axis][0])
    if axis in _FLIPPED and orientation == "lps":
        plane = plane[::-1]
    return plane


def slices_with_labels(
    volume: Volume, maps: Sequence[NDArray[Any]], axes: Sequence[str]
) -> Iterator[tuple[str, list[Slice], int]]:
    """Per axis: the slices on which any label map has an object, and how many have none."""
    for axis in axes:
        cut_axis = _CUTS[axis][0]
        others = tuple(a for a in range(3) if a != cut_axis)
        labelled = np.zeros(maps[0].shape[cut_axis], bool)
        for array in maps:
            labelled |= array.any(axis=others)
        found = [place(volume, axis, int(i)) for i in np.flatnonzero(labelled)]
        yield axis, found, int((~labelled).sum())


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
        position_mm=_position(geometry, axis, index),
        spacing_mm=None if geometry is None else geometry.spacing_zyx_mm[_CUTS[axis][0]],
        spacing_yx_mm=_in_plane(geometry, axis),
    )


def _in_plane(geometry: Geometry | None, axis: str) -> tuple[float, float] | None:
    if geometry is None:
        return None
    _, rows, columns = _CUTS[axis]
    return geometry.spacing_zyx_mm[rows], geometry.spacing_zyx_mm[columns]


def _position(geometry: Geometry | None, axis: str, index: int) -> float | None:
    if geometry is None:
        return None
    step = geometry.affine_lps[:3, _CUTS[axis][0]]
    normal = step / np.linalg.norm(step)
    return round(float(normal @ (geometry.affine_lps[:3, 3] + index * step)), 4)
