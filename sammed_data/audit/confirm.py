"""A candidate pair is a duplicate only if its pixels say so: aligned, and alike in fine detail.

Two slices of different patients can agree in coarse shape; noise, vessels and texture agree only
where the picture is the same. So the pair is aligned (crop, flip, then a fitted affine map), and
the correlation of what a blur removes decides, together with that of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.fingerprints import FLIPS, VIEWS, grey, ranks

SIDE_PX = 128
# (whole, detail): either is enough. A hard window changes the whole, never the detail alone.
SAME = ((0.85, 0.6), (0.5, 0.75))
_MARGIN_PX = 8
_BLUR = 3.0


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How alike two pictures are once aligned: correlations of the whole and of fine detail."""

    whole: float
    detail: float

    @property
    def same(self) -> bool:
        """Whether they are taken for one picture."""
        return any(self.whole >= whole and self.detail >= detail for whole, detail in SAME)


def compare(a: NDArray[Any], b: NDArray[Any], *, view: int, flip: int) -> Likeness:
    """Likeness of two pictures, the first seen through a window and flipped."""
    import cv2

    plain_a, plain_b = grey(a), grey(b)
    height, width = plain_a.shape
    top, left, bottom, right = VIEWS[view]
    window = plain_a[
        round(top * height) : max(round(bottom * height), 1),
        round(left * width) : max(round(right * width), 1),
    ]
    rows, columns = FLIPS[flip]
    window = window[:: -1 if rows else 1, :: -1 if columns else 1]
    scale = min(1.0, max(min(window.shape), min(plain_b.shape)) / SIDE_PX)
    side = max(32, round(SIDE_PX * scale))
    first, second = (_square(p, side) for p in (window, plain_b))
    best = _likeness(first, second, np.ones(first.shape, bool))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        _, warp = cv2.findTransformECC(
            second, first, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, criteria, None, 5
        )
    except cv2.error:  # no step improves: they are not alike, or already aligned
        return best
    if np.abs(np.asarray(warp)[:, :2] - np.eye(2)).max() > 0.15:
        return best
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(first, warp, (side, side), flags=flags)
    inside = cv2.warpAffine(np.ones_like(first), warp, (side, side), flags=flags) > 0.99
    aligned = _likeness(np.asarray(moved), second, np.asarray(inside))
    return max(best, aligned, key=lambda found: found.detail)


def _square(image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    import cv2

    smaller = min(image.shape) > side
    kind = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=kind)
    return ranks(np.asarray(resized, np.uint8))


def _likeness(
    a: NDArray[np.float32], b: NDArray[np.float32], inside: NDArray[np.bool_]
) -> Likeness:
    import cv2

    inside = inside.copy()
    edge = max(2, _MARGIN_PX * a.shape[0] // SIDE_PX)
    inside[:edge] = inside[-edge:] = False
    inside[:, :edge] = inside[:, -edge:] = False
    size = a.shape[0] / SIDE_PX  # small pictures have their detail in single pixels
    smooth = [cv2.GaussianBlur(p, (0, 0), max(0.8 * size, 0.3)) for p in (a, b)]
    fine = [s - cv2.GaussianBlur(s, (0, 0), max(_BLUR * size, 1.0)) for s in smooth]
    return Likeness(
        whole=_correlation(smooth[0][inside], smooth[1][inside]),
        detail=_correlation(fine[0][inside], fine[1][inside]),
    )


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    if a.size < 16:
        return 0.0
    first, second = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / norm) if norm > 1e-9 else 0.0
