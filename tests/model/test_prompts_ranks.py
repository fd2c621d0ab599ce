"""Ranking the region alone gives the pixels that ranking every pixel gives."""

from __future__ import annotations

import pytest
import torch

from sammed_model import prompts


@pytest.mark.parametrize("n", [1, 3, 9])
def test_a_cpu_and_a_gpu_pick_the_same_pixels(n):
    regions = torch.zeros(5, 37, 53, dtype=torch.bool)
    regions[0] = True
    regions[1, 5:20, 7:40] = True
    regions[2, 36, 52] = True
    regions[3, 0, :2] = True  # fewer pixels than clicks; region 4 is empty
    seeds = torch.tensor([1, 2**62 + 5, 3, 99, 7])
    flat = regions.flatten(1)
    full = prompts._highest(flat, seeds, n)
    sparse = prompts._highest_in_region(flat, seeds, n)
    assert torch.equal(full[:4], sparse[:4])
    assert flat[:4].gather(1, sparse[:4]).all()


def test_no_masks_at_all():
    none = torch.zeros(0, 37, 53, dtype=torch.bool)
    seeds = torch.zeros(0, dtype=torch.int64)
    assert prompts.first_click(none, seeds)[0].shape == (0, 2)
    assert prompts.error_clicks(none, none, seeds, 3)[0].shape == (0, 3, 2)
    assert prompts.tight_boxes(none).shape == (0, 4)
