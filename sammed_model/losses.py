"""Focal, dice and IoU losses of interactive training; pure functions of logits, in float32.

Two flavours. ``released``: what the published training computed (all masks of the batch pooled into
one dice ratio and one IoU, the IoU's target not detached). ``mended``: each mask for itself, summed
and divided by the number of masks, so that accumulated batches add up to a big one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

GAMMA = 2.0
ALPHA = 0.25
FOCAL_WEIGHT = 20.0
_LOG_EPS = 1e-12
_SMOOTH = 1.0
_IOU_EPS = 1e-7


@dataclass(frozen=True, kw_only=True)
class LossParts:
    """Scalars; ``total`` = 20 focal + dice + iou."""

    focal: Tensor
    dice: Tensor
    iou: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return FOCAL_WEIGHT * self.focal + self.dice + self.iou


def interactive_loss(
    logits_M1HW: Tensor,
    truth_M1HW: Tensor,
    iou_M: Tensor,
    *,
    pooled: bool,
    n_masks: int | None = None,
) -> Tensor:
    """Total loss of one pass: ``released_loss`` where pooled, else ``mended_loss``."""
    if pooled:
        return released_loss(logits_M1HW, truth_M1HW, iou_M).total
    return mended_loss(logits_M1HW, truth_M1HW, iou_M, n_masks=n_masks).total


def released_loss(logits_M1HW: Tensor, truth_M1HW: Tensor, iou_M: Tensor) -> LossParts:
    """The published loss, in the floating type given (float64 stays).

    The logarithm of p + 1e-12 loses the gradient of confident mistakes above logit 16.7; kept
    because published weights were trained so.
    """
    logits = _at_least_float32(logits_M1HW)
    truth = truth_M1HW.to(logits.dtype)
    p = logits.sigmoid()
    on_object = ALPHA * truth * (1 - p) ** GAMMA * torch.log(p + _LOG_EPS)
    on_background = (1 - ALPHA) * (1 - truth) * p**GAMMA * torch.log(1 - p + _LOG_EPS)
    focal = -(on_object + on_background).mean()
    both = (p * truth).sum()
    sizes = p.sum() + truth.sum()
    dice = 1 - (2 * both + _SMOOTH) / (sizes + _SMOOTH)
    target = (both + _IOU_EPS) / (sizes - both + _IOU_EPS)
    return LossParts(focal=focal, dice=dice, iou=((iou_M - target) ** 2).mean())


def mended_loss(
    logits_M1HW: Tensor, truth_M1HW: Tensor, iou_M: Tensor, *, n_masks: int | None = None
) -> LossParts:
    """Loss per mask, summed, divided by ``n_masks`` (default: these; else of all ranks and parts).

    The target of the predicted IoU is the IoU of the mask as it would be cut, detached.
    """
    logits = _at_least_float32(logits_M1HW).flatten(1)
    truth = truth_M1HW.to(logits.dtype).flatten(1)
    divisor = max(n_masks if n_masks is not None else len(logits), 1)
    target = hard_iou(logits, truth)
    return LossParts(
        focal=focal_per_mask(logits, truth).sum() / divisor,
        dice=dice_per_mask(logits, truth).sum() / divisor,
        iou=((_at_least_float32(iou_M).flatten() - target) ** 2).sum() / divisor,
    )


def focal_per_mask(logits_MP: Tensor, truth_MP: Tensor) -> Tensor:
    """(M,) focal loss from logits: finite, with a gradient however wrong the pixel."""
    cross = functional.binary_cross_entropy_with_logits(logits_MP, truth_MP, reduction="none")
    p = logits_MP.sigmoid()
    wrong = p + truth_MP - 2 * p * truth_MP
    alpha = (1 - ALPHA) + (2 * ALPHA - 1) * truth_MP
    return (alpha * wrong**GAMMA * cross).mean(dim=1)


def dice_per_mask(logits_MP: Tensor, truth_MP: Tensor) -> Tensor:
    """(M,) soft dice loss, smoothed by 1 px."""
    p = logits_MP.sigmoid()
    both = (p * truth_MP).sum(dim=1)
    return 1 - (2 * both + _SMOOTH) / (p.sum(dim=1) + truth_MP.sum(dim=1) + _SMOOTH)


@torch.no_grad()
def hard_iou(logits_MP: Tensor, truth_MP: Tensor) -> Tensor:
    """(M,) IoU of the mask cut at logit 0; 1 for empty against empty."""
    predicted, truth = logits_MP > 0, truth_MP > 0.5
    both = (predicted & truth).sum(dim=1)
    either = (predicted | truth).sum(dim=1)
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(logits_MP[:, 0]))


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
