"""Outlines of organs and lesions: deformed ellipses with bites, and bands along curves.

A box or an ellipse must not be enough to guess them: they are lobed, concave, oblique or hollow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Blob:
    """An ellipse whose radius carries a few Fourier terms, with a round bite out of it.

    Attributes:
        centre_yx: in pixels.
        radii: half axes in pixels.
        angle: of the first axis, in radians.
        lobes: (order, amplitude, phase) of each term.
        bite: (direction in radians, distance of its centre, radius) in units of the half axes.
    """

    centre_yx: tuple[float, float]
    radii: tuple[float, float]
    angle: float = 0.0
    lobes: tuple[tuple[int, float, float], ...] = ()
    bite: tuple[float, float, float] | None = None

    def field(
        self, size: Size, *, scale: float = 1.0, shift_yx: Sequence[float] = (0.0, 0.0)
    ) -> Floats:
        """(H, W) depth below the surface in units of the half axes; above 0 is inside."""
        y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
        y -= self.centre_yx[0] + shift_yx[0]
        x -= self.centre_yx[1] + shift_yx[1]
        u = (np.cos(self.angle) * x + np.sin(self.angle) * y) / self.radii[0]
        v = (np.cos(self.angle) * y - np.sin(self.angle) * x) / self.radii[1]
        theta = np.arctan2(v, u)
        limit = np.ones(size)
        for order, amplitude, phase in self.lobes:
            limit += amplitude * np.cos(order * theta + phase)
        depth = limit * scale - np.hypot(u, v)
        if self.bite is not None:
            direction, distance, radius = self.bite
            away = np.hypot(u - distance * np.cos(direction), v - distance * np.sin(direction))
            depth = np.minimum(depth, away - radius)
        return np.asarray(depth)

    def mask(
        self, size: Size, *, scale: float = 1.0, shift_yx: Sequence[float] = (0.0, 0.0)
    ) -> Bools:
        """(H, W) inside."""
        return self.field(size, scale=scale, shift_yx=shift_yx) > 0


def lobes(
    rng: Rng, strength: float, orders: Sequence[int] = (2, 3, 4, 5)
) -> tuple[tuple[int, float, float], ...]:
    """Random Fourier terms whose amplitudes fall with their order."""
    return tuple(
        (k, float(rng.normal(0, strength * 2 / (k + 1))), float(rng.uniform(0, 2 * np.pi)))
        for k in orders
    )


def band(size: Size, path_N2: Floats, widths: Floats | float) -> Bools:
    """Pixels within half a width of a curve.

    Args:
        size: of the picture.
        path_N2: points (y, x), close enough to each other to leave no gap.
        widths: at each point, or everywhere.
    """
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    inside = np.zeros(size, bool)
    half_N = np.broadcast_to(np.asarray(widths, np.float64) / 2, len(path_N2))
    for (py, px), half in zip(path_N2, half_N, strict=True):
        reach = int(half) + 2
        rows = slice(max(0, int(py) - reach), max(0, int(py) + reach + 1))
        columns = slice(max(0, int(px) - reach), max(0, int(px) + reach + 1))
        near = (y[rows, columns] - py) ** 2 + (x[rows, columns] - px) ** 2 <= half**2
        inside[rows, columns] |= near
    return inside


def arc(
    centre_yx: tuple[float, float], radii: tuple[float, float], start: float, end: float
) -> Floats:
    """(N, 2) points (y, x) of an elliptic arc between two angles in radians."""
    t = np.linspace(start, end, 80)
    return np.stack(
        [centre_yx[0] + radii[0] * np.sin(t), centre_yx[1] + radii[1] * np.cos(t)], axis=1
    )
