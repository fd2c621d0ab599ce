"""Scribbles: points along the midline of an object, without any chance.

The midline is the longest path through the skeleton of the largest 8-connected part, found by two
breadth-first searches; an object drawn by a hurried hand looks like that.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
Pixel = tuple[int, int]


def along_midline(mask_MHW: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(M, n, 2) float (x, y) evenly along each midline and (M, n) labels.

    Labels are 1; -1 where a short line repeats a pixel, and everywhere for an empty mask.
    """
    masks = mask_MHW.cpu().numpy()
    xy = np.zeros((len(masks), n, 2), np.float32)
    label = np.full((len(masks), n), -1, np.int64)
    for i, mask_HW in enumerate(masks):
        line_L2 = midline(mask_HW)
        if len(line_L2):
            place = np.rint(np.linspace(0, len(line_L2) - 1, n)).astype(int)
            xy[i] = line_L2[place]
            label[i] = np.where(np.diff(place, prepend=-1) > 0, 1, -1)
    return torch.from_numpy(xy).to(mask_MHW.device), torch.from_numpy(label).to(mask_MHW.device)


def midline(mask_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(L, 2) pixels (x, y) from one end of the midline to the other; none for an empty mask."""
    from scipy import ndimage
    from skimage.morphology import skeletonize

    parts, number = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    if not number:
        return np.zeros((0, 2), np.float32)
    largest = 1 + np.bincount(parts.ravel())[1:].argmax()
    where = ndimage.find_objects(parts)[largest - 1]
    part_hw = parts[where] == largest
    # A frame of background: a part that fills its box is thinned like any other.
    skeleton_hw = skeletonize(np.pad(part_hw, 1))[1:-1, 1:-1] & part_hw
    ys, xs = (skeleton_hw if skeleton_hw.any() else part_hw).nonzero()
    pixels = dict.fromkeys(zip(ys.tolist(), xs.tolist(), strict=True))
    one_end = _farthest(pixels, next(iter(pixels)))[-1]
    path = _farthest(pixels, one_end)
    offset = (where[1].start, where[0].start)
    return np.array([(x + offset[0], y + offset[1]) for y, x in path], np.float32)


def _farthest(pixels: dict[Pixel, None], start: Pixel) -> list[Pixel]:
    """The shortest path from ``start`` to the pixel that is the most steps away."""
    came: dict[Pixel, Pixel | None] = {start: None}
    waiting = deque([start])
    last = start
    while waiting:
        last = waiting.popleft()
        for dy, dx in _AROUND:
            near = (last[0] + dy, last[1] + dx)
            if near in pixels and near not in came:
                came[near] = last
                waiting.append(near)
    path, at = [], last
    while at is not None:
        path.append(at)
        at = came[at]  # type: ignore[assignment]  # None ends the loop
    return path[::-1]
