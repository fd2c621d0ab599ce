"""Properties of every protocol: later clicks, boxes of a grid, and masks asked about in part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sammed_bench import openings, protocols
from sammed_bench.modes import MODES
from sammed_bench.protocols import PROTOCOLS, Target, parse_protocol

NAMES = (*PROTOCOLS, "box-jitter:5", "box-scale:1.2")
SIZES = {"short": st.integers(2, 60), "long": st.integers(64, 330), "upright": st.booleans()}


def _masks(seed, short, long, upright):
    """A blob of parts, one pixel, everything, nothing: never square."""
    shape = (long, short) if upright else (short, long)
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    single = np.zeros(shape, bool)
    single[rng.integers(shape[0]), rng.integers(shape[1])] = True
    full = np.ones(shape, bool)
    return [noise > np.quantile(noise, 0.8), single, full, single & False], rng


def _target(protocol, masks, keys=None):
    truth = torch.from_numpy(np.stack(masks))
    valid = torch.ones(truth.shape[1:], dtype=torch.bool)
    return Target.of(protocol, "a/1", keys or range(len(masks)), truth, valid)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), round=st.integers(1, 9), **SIZES)
def test_later_clicks_lie_in_the_error(name, seed, round, short, long, upright):
    masks, rng = _masks(seed, short, long, upright)
    protocol = parse_protocol(name)
    target = _target(protocol, masks)
    shift = int(rng.integers(0, 4))
    answer = torch.from_numpy(np.stack([np.roll(mask, shift, axis=1) for mask in masks]))
    xy, label = protocols.next_clicks(protocol, target, answer, round, seed)
    for i, truth in enumerate(target.truth_MHW):
        x, y = xy[i].long().tolist()
        if label[i] == -1:
            # No error, or one that the grid of the protocol does not see.
            assert torch.equal(target.look(answer)[i], target.seen_MHW[i])
        else:
            assert bool(truth[y, x]) == bool(label[i] == 1)
            assert bool(answer[i, y, x]) != bool(truth[y, x])
    assert label[3] == -1
    again = [
        protocols.next_clicks(
            protocol, _target(protocol, masks[i : i + 1], [i]), answer[i : i + 1], round, seed
        )
        for i in range(len(masks))
    ]
    assert torch.equal(torch.cat([one for one, _ in again]), xy)
    assert torch.equal(torch.cat([one for _, one in again]), label)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), **SIZES)
def test_a_box_of_the_grid_holds_the_largest_part_but_for_what_the_grid_skips(
    seed, short, long, upright
):
    masks, _ = _masks(seed, short, long, upright)
    target = _target(protocols.SAM_MED2D, masks)
    boxes = protocols.boxes(protocols.SAM_MED2D, target, seed).tolist()
    height, width = masks[0].shape
    # The pixels that the nearest rule takes lie at most so far apart.
    skip_y, skip_x = (max(1, np.ceil(n / 256)) for n in (height, width))
    for grid, box, mask in zip(target.grid_MSS.numpy(), boxes, masks, strict=True):
        parts, n = ndimage.label(grid, np.ones((3, 3)))
        if n == 0:
            continue
        # The part of the slice that the largest part of the grid shows.
        largest = 1 + np.bincount(parts.ravel())[1:].argmax()
        ys, xs = np.nonzero(parts == largest)
        ends = torch.tensor([[xs.min(), ys.min()], [xs.max(), ys.max()]]).float()
        (left, top), (right, bottom) = protocols.to_pixels(target.frame, ends).tolist()
        assert mask[int(top) : int(bottom) + 1, int(left) : int(right) + 1].any()
        x0, y0, x1, y1 = box
        assert left - skip_x <= x0 <= left
        assert top - skip_y <= y0 <= top
        assert right + 1 <= x1 <= right + 1 + skip_x
        assert bottom + 1 <= y1 <= bottom + 1 + skip_y


@pytest.mark.parametrize("name", NAMES)
def test_some_of_the_masks_get_the_prompts_of_all(name):
    masks, _ = _masks(4, 50, 90, False)
    protocol = parse_protocol(name)
    target = _target(protocol, masks)
    whole = openings.make(protocol, MODES, target, 2)
    part = openings.make(protocol, MODES, target.only([0, 2]), 2)
    for mode, prompts in whole.items():
        chosen = prompts.only([0, 2])
        assert len(chosen) == len(part[mode]) == 2
        for field in ("points_MN2", "point_labels_MN", "boxes_M4", "masks_MHW"):
            a, b = getattr(chosen, field), getattr(part[mode], field)
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)
