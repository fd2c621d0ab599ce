"""Where on their pictures the outlines of a case fit best, sought by correlation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.outlines import Ground, Outline, slopes

_CELLS = 64  # along the longer side of a picture
_REACH = 16  # cells, to every side
_GRID = _CELLS + _REACH  # a shift beyond the picture meets zeros, not the other side
_ROOM = 0.7  # of the outlines must lie in the picture for a shift to count
Complex = NDArray[np.complex128]


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The shift at which the outlines of a case lie on the steepest places.

    Attributes:
        own, best: how steep it is as they lie, and shifted; robust z over all shifts.
        dy, dx: that shift, as a share of the longer side.
    """

    own: float = 0.0
    best: float = 0.0
    dy: float = 0.0
    dx: float = 0.0


@dataclass
class Shifts:
    """Sums over the rows of a case; memory does not grow with them."""

    _steep: Complex = field(default_factory=lambda: _zeros())
    _seen: Complex = field(default_factory=lambda: _zeros())
    _drawn: float = 0.0
    _windows: dict[tuple[int, int], Complex] = field(default_factory=dict)

    def add(self, ground: Ground, outlines: list[Outline]) -> None:
        """The outlines of one row."""
        import cv2

        height, width = ground.grey_HW.shape
        cell = max(1.0, max(height, width) / _CELLS)
        size = (max(8, round(height / cell)), max(8, round(width / cell)))
        small = cv2.resize(ground.grey_HW, size[::-1], interpolation=cv2.INTER_AREA)
        steep = slopes(small)
        steep = np.log1p(steep / (steep.mean() + 1e-3))
        drawn = np.zeros(size, np.float64)
        for outline in outlines:
            y, x = (outline.rim_Q2 / cell).astype(np.intp).T
            at = np.minimum(y, size[0] - 1) * size[1] + np.minimum(x, size[1] - 1)
            drawn += np.bincount(at, minlength=drawn.size).reshape(size)
        drawn = np.minimum(drawn / cell, 1.0)
        outline_f = np.conj(_transformed(drawn))
        self._steep += _transformed(steep - steep.mean()) * outline_f
        self._seen += self._window(size) * outline_f
        self._drawn += float(drawn.sum())

    def _window(self, size: tuple[int, int]) -> Complex:
        if size not in self._windows:
            self._windows = {size: _transformed(np.ones(size))}  # rows of a case are of one size
        return self._windows[size]

    def peak(self) -> Peak:
        """Where they fit best."""
        if not self._drawn:
            return Peak()
        steep, seen = _around(self._steep), _around(self._seen)
        usable = seen > _ROOM * self._drawn
        if not usable[_REACH, _REACH] or usable.sum() < _REACH:
            return Peak()
        value = np.where(usable, steep / np.maximum(seen, 1e-3), np.nan)
        middle = np.nanmedian(value)
        value = (value - middle) / (1.4826 * np.nanmedian(np.abs(value - middle)) + 1e-6)
        y, x = np.unravel_index(int(np.nanargmax(value)), value.shape)
        return Peak(
            own=float(value[_REACH, _REACH]), best=float(value[y, x]),
            dy=float(y - _REACH) / _CELLS, dx=float(x - _REACH) / _CELLS,
        )  # fmt: skip


def _zeros() -> Complex:
    return np.zeros((_GRID, _GRID // 2 + 1), np.complex128)


def _transformed(plane: NDArray[np.floating]) -> Complex:
    return np.asarray(np.fft.rfft2(plane, (_GRID, _GRID)), np.complex128)


def _around(product: Complex) -> NDArray[np.float64]:
    """Values at the shifts from -_REACH to _REACH."""
    plane = np.fft.irfft2(product, (_GRID, _GRID))
    shifts = np.arange(-_REACH, _REACH + 1)
    return np.asarray(plane[np.ix_(shifts, shifts)])
