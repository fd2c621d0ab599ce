"""Dice, NSD and HD95 of volumes: as ``metrics`` and ``surface`` define them, in three dimensions.

The outline of a volume is its voxels with one of their 6 neighbours outside the mask or the block.
Empty-mask policy as in 2D: both empty score best, one side empty worst (HD95: the diagonal).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_bench.surface import Mask

_PERCENT = 95


def volume_scores(
    predicted_ZYX: Mask,
    truth_ZYX: Mask,
    spacing_zyx: tuple[float, float, float],
    tolerance: float,
) -> dict[str, float]:
    """``dice``, ``iou``, ``nsd`` and ``hd95`` of one pair of volumes of the same shape.

    Args:
        predicted_ZYX: bool.
        truth_ZYX: bool.
        spacing_zyx: voxel size; the unit of ``hd95`` and of the tolerance.
        tolerance: of ``nsd``.
    """
    both = int((predicted_ZYX & truth_ZYX).sum())
    sizes = int(predicted_ZYX.sum()), int(truth_ZYX.sum())
    if not any(sizes):
        return {"dice": 1.0, "iou": 1.0, "nsd": 1.0, "hd95": 0.0}
    shares = {"dice": 2 * both / sum(sizes), "iou": both / (sum(sizes) - both)}
    if not all(sizes):
        return shares | {"nsd": 0.0, "hd95": diagonal(truth_ZYX.shape, spacing_zyx)}
    box = _union_box(predicted_ZYX | truth_ZYX)
    predicted, truth = (_outline(np.pad(mask[box], 1)) for mask in (predicted_ZYX, truth_ZYX))
    there, back = _distances(predicted, truth, spacing_zyx)
    near = int((there <= tolerance).sum() + (back <= tolerance).sum())
    farthest = max(np.percentile(there, _PERCENT), np.percentile(back, _PERCENT))
    return shares | {"nsd": near / (len(there) + len(back)), "hd95": float(farthest)}


def diagonal(shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """Of a block."""
    return math.hypot(*(n * size for n, size in zip(shape, spacing, strict=True)))


def _union_box(union: Mask) -> tuple[slice, ...]:
    spans = []
    for axis in range(union.ndim):
        others = tuple(a for a in range(union.ndim) if a != axis)
        there = np.flatnonzero(union.any(axis=others))
        spans.append(slice(there[0], there[-1] + 1))
    return tuple(spans)


def _outline(padded: Mask) -> Mask:
    """Voxels with a face neighbour outside; the frame of the padded mask is empty."""
    middle = (slice(1, -1),) * padded.ndim
    inside = np.ones_like(padded[middle])
    for axis in range(padded.ndim):
        for step in (slice(None, -2), slice(2, None)):
            inside &= padded[middle[:axis] + (step,) + middle[axis + 1 :]]
    outline: Mask = padded[middle] & ~inside
    return outline


def _distances(
    outline_a: Mask, outline_b: Mask, spacing: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From each voxel of one outline to the nearest of the other, both ways."""
    from scipy.spatial import cKDTree

    points: list[Any] = [np.argwhere(o) * np.asarray(spacing) for o in (outline_a, outline_b)]
    a, b = points
    return cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
