"""The pixel deepest inside a region: the maximum of the exact Euclidean distance transform.

What lies outside the image counts as outside the region, so a region at the border has its centre
inwards. Of several pixels as deep the first in raster order is taken: no chance is involved.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def depths(region_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(H, W) distance in px of each pixel of a region to the nearest pixel outside, 0 outside."""
    inside = np.pad(region_HW, 1).astype(np.uint8)
    found = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(found[1:-1, 1:-1], np.float32)


def deepest(region_MHW: Tensor, clicked_MN2: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The deepest pixel of each region.

    Args:
        region_MHW: bool.
        clicked_MN2: (x, y) pixels that are not taken again.

    Returns:
        (M, 2) float (x, y), zeros where there is none, and (M,) float how deep it is in px, 0
        where there is none.
    """
    regions = region_MHW.cpu().numpy()
    xy = np.zeros((len(regions), 2), np.float32)
    top = np.zeros(len(regions), np.float32)
    clicked = None if clicked_MN2 is None else clicked_MN2.cpu().numpy().astype(np.int64)
    for i, region_HW in enumerate(regions):
        # The transform of the box around the region is that of the whole image, and cheaper.
        rows, columns = region_HW.any(axis=1).nonzero()[0], region_HW.any(axis=0).nonzero()[0]
        if not len(rows):
            continue
        y0, x0 = int(rows[0]), int(columns[0])
        depth_hw = depths(region_HW[y0 : rows[-1] + 1, x0 : columns[-1] + 1])
        if clicked is not None:
            depth_hw = _untouched(depth_hw, clicked[i] - (x0, y0))
        place = int(depth_hw.argmax())
        y, x = divmod(place, depth_hw.shape[1])
        top[i] = depth_hw[y, x]
        if top[i] > 0:
            xy[i] = (x0 + x, y0 + y)
    device = region_MHW.device
    return torch.from_numpy(xy).to(device), torch.from_numpy(top).to(device)


def _untouched(depth_hw: NDArray[np.float32], clicked_N2: NDArray[np.int64]) -> NDArray[np.float32]:
    """Depths with clicked pixels at 0."""
    height, width = depth_hw.shape
    inside = ((clicked_N2 >= 0) & (clicked_N2 < (width, height))).all(axis=1)
    x, y = clicked_N2[inside].T
    depth_hw[y, x] = 0
    return depth_hw
