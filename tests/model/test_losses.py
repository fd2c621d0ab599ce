"""Losses: the published numbers, and the mended ones' promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_fill import disc, golden, loss_case

from sammed_model.losses import hard_iou, interactive_loss, mended_loss, released_loss


@pytest.mark.parametrize("name", ["plain", "empty"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_released_loss_and_gradients_are_the_published_ones(name, dtype):
    want = golden("loss")
    logits, truth, iou = (t.to(dtype) for t in loss_case(name))
    logits.requires_grad_()
    iou.requires_grad_()
    parts = released_loss(logits, truth, iou)
    got = torch.stack([parts.focal, parts.dice, parts.iou, parts.total]).detach().numpy()
    key = "float64_" if dtype == torch.float64 else ""
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert np.allclose(got, want[f"{name}/{key}focal_dice_iou_total"], rtol=tolerance, atol=0)
    parts.total.backward()
    assert np.abs(logits.grad.numpy() - want[f"{name}/grad_logits"]).max() < 1e-7
    assert np.abs(iou.grad.numpy() - want[f"{name}/grad_iou"]).max() < 1e-6


def case(m=4, height=12, width=20):
    logits = torch.linspace(-6, 6, m * height * width).reshape(m, 1, height, width)
    logits = logits[:, :, torch.randperm(height, generator=torch.Generator().manual_seed(0))]
    discs = [disc(32, 6 + i, 5, 3 + i)[:height, :width] for i in range(m)]
    return logits.clone(), torch.from_numpy(np.stack(discs))[:, None] > 0, torch.rand(m)


def test_parts_of_a_batch_add_up_to_the_batch():
    logits, truth, iou = case()
    whole = mended_loss(logits, truth, iou).total
    parts = [mended_loss(logits[s], truth[s], iou[s], n_masks=4).total for s in ([0], [1, 2, 3])]
    assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-6)
    pooled = [released_loss(logits[s], truth[s], iou[s]).total / 2 for s in ([0], [1, 2, 3])]
    assert float(released_loss(logits, truth, iou).total) != pytest.approx(float(sum(pooled)))


def test_mended_iou_target_sends_no_gradient_into_the_mask():
    logits, truth, iou = case()
    logits.requires_grad_()
    iou.requires_grad_()
    mended_loss(logits, truth, iou).iou.backward()
    assert logits.grad is None or not logits.grad.any()
    assert iou.grad.abs().sum() > 0
    released_loss(logits, truth, iou).iou.backward()
    assert logits.grad.abs().sum() > 0


def test_confident_mistakes_keep_a_gradient_only_in_the_mended_loss():
    truth = torch.zeros(1, 1, 3, 5)
    for pooled, moves in ((True, False), (False, True)):
        logits = torch.full((1, 1, 3, 5), 40.0, requires_grad=True)
        interactive_loss(logits, truth, torch.zeros(1), pooled=pooled).backward()
        assert torch.isfinite(logits.grad).all()
        assert bool(logits.grad.abs().max() > 1e-3) is moves


def test_half_precision_is_computed_in_float32():
    logits, truth, iou = case()
    low = mended_loss(logits.bfloat16(), truth, iou.bfloat16()).total
    assert low.dtype == torch.float32
    assert float(low) == pytest.approx(float(mended_loss(logits, truth, iou).total), rel=0.02)


def test_small_masks_weigh_as_much_as_large_ones():
    """Pooled dice is nearly blind to a small mask that is missed; per mask it costs a half."""
    large, small = disc(40, 20, 20, 15), disc(40, 8, 8, 2)
    truth = torch.from_numpy(np.stack([large, small]))[:, None]
    logits = torch.stack([truth[0] * 40 - 20, torch.full((1, 40, 40), -20.0)])
    iou = torch.zeros(2)
    assert float(released_loss(logits, truth, iou).dice) < 0.05
    assert float(mended_loss(logits, truth, iou).dice) > 0.4


def test_hard_iou_of_empty_against_empty_is_one():
    logits = torch.tensor([[-1.0, -1, -1], [1, 1, -1], [1, -1, -1]])
    truth = torch.tensor([[0.0, 0, 0], [0, 1, 1], [1, 0, 0]])
    assert hard_iou(logits, truth).tolist() == pytest.approx([1, 1 / 3, 1])
