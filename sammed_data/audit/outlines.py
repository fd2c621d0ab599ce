"""How the outline of a mask lies on its picture: as it is, turned, and moved to other places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.fingerprints import grey

_POINTS = 128
_CONTOURS = 64  # the longest ones of a mask
_STEP = 3  # along a contour, to both sides, for its direction
# Where the picture is read: on the outline, near and far inside and outside (px along the normal).
_OFFSETS = np.array([0, 2, -2.5, 4, -5], np.float32)
# Ways a mask may have been turned against its image; the last four need a square picture.
TURNS = ("left-right", "up-down", "by 180 degrees", "transposed", "by 90 degrees to the left",
         "by 90 degrees to the right", "transposed by 180 degrees")  # fmt: skip
_MIRRORS = 3
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))  # (dy, dx)
_NEAR, _NEAREST_PX = 0.04, 4  # of the longer side; places are so far away, and twice as far
PLACES = 1 + len(TURNS) + 2 * len(DIRECTIONS)  # its own first
_MOVED = slice(1 + len(TURNS), PLACES)
_TOGETHER = 64  # outlines whose values are in memory at once
_SEEN = 0.6  # of an outline must lie in the picture
FEATURES = ("edge", "step near", "step far", "signed near", "signed far", "inside", "outside",
            "spread inside", "spread outside")  # fmt: skip
# How well an outline fits: logs of the slope on it, and of the evenness of the step across it.
FIT = np.array([1.0, 0.5, 0.5], np.float32)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A picture, made ready for outlines.

    Attributes:
        grey_HW: float32, lightly smoothed.
        slope_HW: float32, size of the gradient of the same.
        mean, spread: of the grey levels; slope: mean of the slopes.
    """

    grey_HW: NDArray[np.float32]
    slope_HW: NDArray[np.float32]
    mean: float
    spread: float
    slope: float


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Points on the rim of a mask, inside the picture with all that is read beside them.

    Attributes:
        y_5P, x_5P: int, one line for each of the offsets along the normal.
        rim_Q2: (y, x) of all points of the rim.
    """

    y_5P: NDArray[np.int32]
    x_5P: NDArray[np.int32]
    rim_Q2: NDArray[np.int32]


def make_ground(image: NDArray[np.uint8]) -> Ground:
    """Smooth a picture and take its slopes."""
    import cv2

    plain = cv2.GaussianBlur(grey(image), (3, 3), 0)
    slope = slopes(plain)
    values = np.asarray(plain, np.float32)
    (mean,), (spread,) = (np.ravel(v) for v in cv2.meanStdDev(plain))
    return Ground(
        grey_HW=values, slope_HW=slope, mean=float(mean),
        spread=float(spread) + 1.0, slope=float(cv2.mean(slope)[0]),
    )  # fmt: skip


def slopes(plane_HW: NDArray[Any]) -> NDArray[np.float32]:
    """(H, W) sizes of the gradient.

    By numpy: the last bit of OpenCV's ``magnitude`` depends on where in memory its input lies.
    """
    import cv2

    across, down = cv2.Sobel(plane_HW, cv2.CV_32F, 1, 0), cv2.Sobel(plane_HW, cv2.CV_32F, 0, 1)
    return np.asarray(np.sqrt(across * across + down * down), np.float32)


def trace(mask_HW: NDArray[np.bool_], box_xyxy: tuple[int, int, int, int]) -> Outline | None:
    """The outline of a mask; None where it has none inside the picture."""
    import cv2

    height, width = mask_HW.shape
    x0, y0, x1, y1 = box_xyxy
    inside = np.ascontiguousarray(mask_HW[y0:y1, x0:x1]).view(np.uint8)
    found, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = sorted((c[:, 0] for c in found), key=len, reverse=True)[:_CONTOURS]
    if not lines:
        return None
    # Contours keep the mask on one hand, holes included: a normal is the direction turned.
    ahead = [_ahead(c) for c in lines]
    rim = np.concatenate(lines).astype(np.int32) + np.array([x0, y0], np.int32)
    along = np.concatenate(ahead).astype(np.float32)
    x, y = rim[:, 0], rim[:, 1]
    inner = (x > 0) & (y > 0) & (x < width - 1) & (y < height - 1)
    rim, along = rim[inner], along[inner]
    if len(rim) > _POINTS:
        some = np.linspace(0, len(rim) - 1, _POINTS).astype(np.intp)
        points, along = rim[some], along[some]
    else:
        points = rim
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
    y_5P = np.rint(points[:, 1] - _OFFSETS[:, None] * along[:, 0]).astype(np.int32)
    x_5P = np.rint(points[:, 0] + _OFFSETS[:, None] * along[:, 1]).astype(np.int32)
    seen = ((y_5P >= 0) & (y_5P < height) & (x_5P >= 0) & (x_5P < width)).all(0)
    if not seen.any():
        return None
    return Outline(
        y_5P=np.ascontiguousarray(y_5P[:, seen]), x_5P=np.ascontiguousarray(x_5P[:, seen]),
        rim_Q2=np.ascontiguousarray(rim[:, ::-1]),
    )  # fmt: skip


def _ahead(line_N2: NDArray[np.int32]) -> NDArray[np.int32]:
    """(N, 2) from some points back to some points ahead along a closed line."""
    at = np.arange(len(line_N2))
    return np.asarray(line_N2[(at + _STEP) % len(at)] - line_N2[(at - _STEP) % len(at)])


def place(
    outlines: Sequence[Outline], ground: Ground, *, places: int = PLACES
) -> NDArray[np.float32]:
    """(M, K, F) ``FEATURES`` of outlines at the first places; NaN where one is out of the picture.

    Args:
        outlines: at least one, all of the same picture's masks.
        ground: the picture.
        places: 1 or ``PLACES``.
    """
    some = [outlines[at : at + _TOGETHER] for at in range(0, len(outlines), _TOGETHER)]
    return np.concatenate([_place(few, ground, places) for few in some])


def _place(outlines: Sequence[Outline], ground: Ground, places: int) -> NDArray[np.float32]:
    height, width = ground.grey_HW.shape
    y_5Q = np.concatenate([o.y_5P for o in outlines], axis=1)
    x_5Q = np.concatenate([o.x_5P for o in outlines], axis=1)
    index_K5Q, seen_KQ = _places(y_5Q, x_5Q, height, width, places)
    sizes = np.array([o.y_5P.shape[1] for o in outlines])
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    values = _values(index_K5Q, ground)
    values *= seen_KQ
    n_KM = np.add.reduceat(seen_KQ, starts, axis=1, dtype=np.float32)
    means = np.add.reduceat(values, starts, axis=2) / np.maximum(n_KM, 1)
    found_KMF = _features(np.asarray(means, np.float32), ground)
    found_KMF[n_KM < _SEEN * sizes] = np.nan
    return np.ascontiguousarray(found_KMF.transpose(1, 0, 2), np.float32)


def _values(index_K5Q: NDArray[np.int32], ground: Ground) -> NDArray[np.float32]:
    """(10, K, Q) what is averaged along an outline."""
    slope, level = ground.slope_HW.reshape(-1), ground.grey_HW.reshape(-1)
    on, _, _, deep, out = np.moveaxis(index_K5Q, 1, 0)
    values = np.empty((10, *on.shape), np.float32)
    values[0] = slope.take(on)
    values[1] = (slope.take(deep) + slope.take(out)) / 2
    values[2] = level.take(index_K5Q[:, 1]) - level.take(index_K5Q[:, 2])
    values[4], values[5] = level.take(deep), level.take(out)
    values[3] = values[4] - values[5]
    np.square(values[2:6], out=values[6:])
    return values


def _features(means: NDArray[np.float32], ground: Ground) -> NDArray[np.float32]:
    """(..., F) of the (10, ...) means of ``_values``."""
    on, off, step, step_far, inside, outside = means[:6]
    spread = np.sqrt(np.maximum(means[6:] - means[2:6] ** 2, 0))
    small, unit = 0.1 * ground.spread, ground.spread
    floor = 0.1 * ground.slope + 1e-3
    features = (
        np.log((on + floor) / (off + floor)),
        np.log(0.1 + np.abs(step) / np.hypot(spread[0], small)),
        np.log(0.1 + np.abs(step_far) / np.hypot(spread[1], small)),
        step / unit,
        step_far / unit,
        (inside - ground.mean) / unit,
        (outside - ground.mean) / unit,
        np.log(0.1 + spread[2] / unit),
        np.log(0.1 + spread[3] / unit),
    )
    return np.stack(features, axis=-1)


def _places(
    y_5Q: NDArray[np.int32], x_5Q: NDArray[np.int32], height: int, width: int, places: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """((K, 5, Q) flat indices, (K, Q) whether all five lie in the picture)."""
    seen = np.ones((places, y_5Q.shape[1]), bool)
    own = y_5Q * np.int32(width) + x_5Q
    if places == 1:
        return own[None], seen
    index = np.zeros((places, *y_5Q.shape), np.int32)
    up, left = height - 1 - y_5Q, width - 1 - x_5Q
    row, row_up = y_5Q * np.int32(width), up * np.int32(width)
    index[0], index[1], index[2], index[3] = own, row + left, row_up + x_5Q, row_up + left
    if height == width:
        down, down_left = x_5Q * np.int32(width), left * np.int32(width)
        index[4], index[5] = down + y_5Q, down_left + y_5Q
        index[6], index[7] = down + up, down_left + up
    else:
        seen[1 + _MIRRORS : 1 + len(TURNS)] = False
    by_S2 = _shifts(height, width)
    dy, dx = by_S2[:, :1], by_S2[:, 1:]
    inside = (y_5Q.min(0) + dy >= 0) & (y_5Q.max(0) + dy < height)
    inside &= (x_5Q.min(0) + dx >= 0) & (x_5Q.max(0) + dx < width)
    np.add(own, (dy * width + dx)[:, :, None], out=index[_MOVED])
    index[_MOVED] *= inside[:, None]  # what lies outside reads a pixel that is not counted
    seen[_MOVED] = inside
    return index, seen


@lru_cache(maxsize=64)
def _shifts(height: int, width: int) -> NDArray[np.int32]:
    """(S, 2) pixels (dy, dx) of the moved places."""
    near = max(_NEAREST_PX, _NEAR * max(height, width))
    shifts = [
        (round(way_y * near * r / np.hypot(way_y, way_x)),
         round(way_x * near * r / np.hypot(way_y, way_x)))
        for r in (1, 2) for way_y, way_x in DIRECTIONS
    ]  # fmt: skip
    return np.array(shifts, np.int32)


def fit(features_KF: NDArray[Any]) -> NDArray[Any]:
    """(..., K) how well an outline fits at every place."""
    return np.asarray(features_KF[..., : len(FIT)] @ FIT)


def margins(fit_MK: NDArray[Any]) -> NDArray[Any]:
    """(M,) by how much outlines fit better at their own place than moved a little; NaN: no room."""
    moved = fit_MK[:, _MOVED]
    room = np.isfinite(moved)
    mean = np.where(room, moved, 0).sum(1) / np.maximum(room.sum(1), 1)
    return np.where(room.any(1), fit_MK[:, 0] - mean, np.nan)
