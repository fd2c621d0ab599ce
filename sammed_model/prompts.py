"""Clicks and boxes made from masks: batched, on the device, the same for any batch and machine.

Every draw comes from a counter hash (SplitMix64 over the pixel index) in int64 tensor operations:
each pixel of a region has a rank and the highest rank is the click. A torch.Generator would give
other numbers on CUDA than on CPU, and other numbers for another batch size.
Coordinates are ``(x, y)`` floats whose integers are pixel centres; boxes are half-open ``xyxy``.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_SMALLEST = -(2**63)
_BOX_FRACTION = 0.1
_BOX_MAX_PX = 5.0


def _signed(value: int) -> int:
    """The int64 with the same bits as an unsigned 64-bit constant."""
    return value - 2**64 if value >= 2**63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def prompt_seed(sample_id: str, mask_key: int, protocol: str, round: int, seed: int) -> int:
    """63-bit seed of one draw, from what is drawn and nothing else.

    Args:
        sample_id: the row of the corpus.
        mask_key: position of the mask in its row.
        protocol: name of the prompt protocol; prompt modes of one protocol share their clicks.
        round: number of the click or pass, from 0.
        seed: of the run.
    """
    text = "\0".join((sample_id, str(mask_key), protocol, str(round), str(seed)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; int64 tensors shift arithmetically, so the copied sign is cleared."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser, a bijection on 64 bits."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def rank_pixels(seeds_M: Tensor, n: int) -> Tensor:
    """(M, n) int64 ranks of ``n`` candidates for each seed, all different within a row."""
    counter = torch.arange(1, n + 1, dtype=torch.int64, device=seeds_M.device) * _GAMMA
    return _mix(_mix(seeds_M)[:, None] + counter)


def derive_seeds(seeds_M: Tensor, stream: int) -> Tensor:
    """(M,) seeds of an independent draw (a pass, a purpose) from the seeds of the masks."""
    return _mix(_mix(seeds_M) ^ (stream * 2 + 1)) & (2**63 - 1)


def uniform(seeds_M: Tensor, n: int) -> Tensor:
    """(M, n) float64 in (0, 1), a function of the seeds alone."""
    return (_shift(rank_pixels(seeds_M, n), 40).double() + 0.5) / 2.0**24


def pick_pixels(region_MHW: Tensor, seeds_M: Tensor) -> tuple[Tensor, Tensor]:
    """One uniform pixel of each region.

    Returns:
        (M, 2) float (x, y), zeros where there is none, and (M,) bool, whether one was found.
    """
    points_MN2, found_M = pick_several(region_MHW, seeds_M, 1)
    return points_MN2[:, 0], found_M


def pick_several(region_MHW: Tensor, seeds_M: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The ``n`` highest ranks of each region; a region with fewer pixels repeats them.

    The first point does not depend on ``n``.

    Returns:
        (M, n, 2) float (x, y) and (M,) bool.
    """
    width = region_MHW.shape[2]
    flat_MP = region_MHW.flatten(1)
    # A GPU ranks all pixels without waiting; a CPU is ten times as fast on the region alone.
    highest = _highest_in_region if flat_MP.device.type == "cpu" else _highest
    index = highest(flat_MP, seeds_M, n)
    found = flat_MP.any(dim=1)
    xy = torch.stack([index % width, index // width], dim=-1).float()
    return xy * found[:, None, None], found


def _highest(flat_MP: Tensor, seeds_M: Tensor, n: int) -> Tensor:
    """(M, n) pixels of the highest ranks, any pixel where a region is empty."""
    pixels = flat_MP.shape[1]
    ranks = rank_pixels(seeds_M, pixels).masked_fill_(~flat_MP, _SMALLEST)
    best = ranks.topk(min(n, pixels), dim=1).indices
    count = flat_MP.sum(dim=1).clamp(1, best.shape[1])
    wanted = torch.arange(n, device=best.device)[None] % count[:, None]
    return best.gather(1, wanted)


def _highest_in_region(flat_MP: Tensor, seeds_M: Tensor, n: int) -> Tensor:
    """The same pixels as ``_highest``; only those of the region are ranked."""
    owner, pixel = flat_MP.nonzero(as_tuple=True)
    ranks = _mix(_mix(seeds_M)[owner] + (pixel + 1) * _GAMMA)
    index = torch.zeros(len(seeds_M), n, dtype=torch.int64)
    sizes = torch.bincount(owner, minlength=len(seeds_M)).tolist()
    parts = zip(torch.split(pixel, sizes), torch.split(ranks, sizes), strict=True)
    for mask, (its_pixels, its_ranks) in enumerate(parts):
        if len(its_pixels):
            best = its_pixels[its_ranks.topk(min(n, len(its_pixels))).indices]
            index[mask] = best[torch.arange(n) % len(best)]
    return index


def first_click(mask_MHW: Tensor, seeds_M: Tensor) -> tuple[Tensor, Tensor]:
    """One foreground pixel of each mask: (M, 2) float (x, y), (M,) label 1, or -1 if empty."""
    xy, found = pick_pixels(mask_MHW, seeds_M)
    return xy, torch.where(found, 1, -1)


def error_click(pred_MHW: Tensor, truth_MHW: Tensor, seeds_M: Tensor) -> tuple[Tensor, Tensor]:
    """One pixel where prediction and truth differ.

    Returns:
        (M, 2) float (x, y) and (M,) label: 1 on a miss, 0 on a false positive, -1 without error.
    """
    xy, label = error_clicks(pred_MHW, truth_MHW, seeds_M, 1)
    return xy[:, 0], label[:, 0]


def error_clicks(
    pred_MHW: Tensor, truth_MHW: Tensor, seeds_M: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    """``n`` pixels where prediction and truth differ: (M, n, 2) float, (M, n) labels 1, 0 or -1."""
    xy, found = pick_several(pred_MHW ^ truth_MHW, seeds_M, n)
    index = (xy[..., 1] * pred_MHW.shape[2] + xy[..., 0]).long()
    missed = truth_MHW.flatten(1).gather(1, index)
    return xy, torch.where(found[:, None], missed.long(), -1)


def tight_boxes(mask_MHW: Tensor, largest_component: bool = False) -> Tensor:
    """(M, 4) float half-open boxes; an empty mask gives zeros.

    Args:
        mask_MHW: bool.
        largest_component: box of the largest 8-connected part (released), not of the whole mask.
    """
    mask = _largest_parts(mask_MHW) if largest_component else mask_MHW
    _, height, width = mask.shape
    columns, rows = mask.any(dim=1).int(), mask.any(dim=2).int()
    x0, y0 = columns.argmax(dim=1), rows.argmax(dim=1)
    x1 = width - columns.flip(1).argmax(dim=1)
    y1 = height - rows.flip(1).argmax(dim=1)
    box = torch.stack([x0, y0, x1, y1], dim=1).float()
    return box * mask.flatten(1).any(dim=1)[:, None]


def _largest_parts(mask_MHW: Tensor) -> Tensor:
    """The largest 8-connected part of each mask, the first in raster order among equals."""
    import numpy as np
    from scipy import ndimage

    kept = np.zeros(tuple(mask_MHW.shape), bool)
    for i, mask in enumerate(mask_MHW.cpu().numpy()):
        parts, n = ndimage.label(mask, structure=np.ones((3, 3)))
        if n:
            kept[i] = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return torch.from_numpy(kept).to(mask_MHW.device)


def jitter_boxes(
    boxes_M4: Tensor,
    seeds_M: Tensor,
    size_hw: tuple[int, int],
    *,
    released: bool = False,
) -> Tensor:
    """Boxes as a hurried user draws them.

    Args:
        boxes_M4: tight half-open boxes in pixels.
        seeds_M: int64.
        size_hw: of the image; corners are clipped to it.
        released: move the whole box by up to min(5, 0.5 x short side) px without clipping;
            else each coordinate moves on its own by up to min(5, 0.1 x its side), at least 1 px.
    """
    side = (boxes_M4[:, 2:] - boxes_M4[:, :2]).clamp(min=0)
    draw = uniform(seeds_M, 4).to(boxes_M4.dtype)
    if released:
        # An integer of [-limit, limit), as the released code draws it.
        limit = (side.min(dim=1, keepdim=True).values * 0.5).floor().clamp(max=_BOX_MAX_PX)
        return boxes_M4 + (draw[:, :2] * 2 * limit).floor().sub(limit).repeat(1, 2)
    limit = (side * _BOX_FRACTION).clamp(min=1.0, max=_BOX_MAX_PX).repeat(1, 2)
    moved = boxes_M4 + (draw * 2 - 1) * limit
    height, width = size_hw
    low = torch.minimum(moved[:, :2], boxes_M4[:, 2:] - 1).clamp(min=0)
    high = torch.maximum(moved[:, 2:], boxes_M4[:, :2] + 1)
    high_x, high_y = high[:, :1].clamp(max=width), high[:, 1:].clamp(max=height)
    return torch.cat([low, high_x, high_y], dim=1)
