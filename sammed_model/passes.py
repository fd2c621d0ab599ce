"""The simulated user of interactive training: which prompts each of the 1 + 8 passes gets.

Pass 0 gives a box or one point. Later passes give 1, 3, 5 or 9 points in the error of the last
prediction, replacing the points before, plus the last low-res mask; one pass in between and the
last get that mask alone. What is decided for each mask (mended) is decided by its seed, what for
the whole batch (released) by the number of the step, on which all parts of a step agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sammed_model import prompts
from sammed_model.dataset import Batch, hash_unit
from sammed_model.mends import Choices
from sammed_model.sam import SamModel
from sammed_model.types import Prompts

CLICK_COUNTS = (1, 3, 5, 9)
_MANY = 4
# Streams of the draws of one mask; pass p uses _FIRST_CLICKS + p.
_COIN, _CORNERS, _POINT, _COUNT, _FIRST_CLICKS = 1, 2, 3, 4, 16


@dataclass(frozen=True, kw_only=True)
class Group:
    """Prompts of one kind and length for some of the masks.

    Attributes:
        index_M: which masks, or None for all of them in order.
        prompts: in model pixels.
    """

    index_M: Tensor | None
    prompts: Prompts


class Session:
    """The prompts of one batch, pass by pass.

    Args:
        batch: on the model's device.
        choices: which mends the simulated user has.
        passes: how many there will be.
        step: of the run; the same for all parts of a step.
    """

    def __init__(self, batch: Batch, choices: Choices, passes: int, step: int = 0) -> None:
        self.batch = batch
        self.choices = choices
        self.passes = passes
        self.step = step
        self._valid_M = batch.valid_B1SS[batch.image_index_M, 0]
        self._seeds_M = self._on_device(batch.seeds_M)
        # Decisions are drawn on the CPU: the device need not be waited for.
        counts = self._draw(_COUNT).mul(len(CLICK_COUNTS)).long()
        self._counts = [
            (n, self._on_device(torch.nonzero(counts == i)[:, 0]))
            for i, n in enumerate(CLICK_COUNTS)
            if (counts == i).any()
        ]
        self._alone = self._passes_alone()

    def _draw(self, stream: int) -> Tensor:
        """One number in (0, 1) for each mask, or the same one for all (released)."""
        seeds = self.batch.seeds_M
        if "mask-draws" not in self.choices:
            seeds = torch.full_like(seeds, prompts.prompt_seed("step", 0, "train", self.step, 0))
        return prompts.uniform(prompts.derive_seeds(seeds, stream), 1)[:, 0]

    def _passes_alone(self) -> set[int]:
        """Passes with the mask prompt alone: the last, and one more if there are many."""
        last = self.passes - 1
        if last < _MANY:
            return {last} if last > 1 else set()
        # Drawn for the step, not from its masks: parts of one step must agree.
        return {last, 2 + int(hash_unit("alone", self.step) * (last - 2))}

    def _on_device(self, index: Tensor) -> Tensor:
        # Without 'non_blocking' even a copy to a GPU waits until the GPU has nothing to do.
        return index.to(self.batch.masks_M1SS.device, non_blocking=True)

    def _seeds(self, index: Tensor, stream: int) -> Tensor:
        return prompts.derive_seeds(self._seeds_M[index], stream)

    def first(self) -> list[Group]:
        """Pass 0: a box or a point."""
        coin = self._draw(_COIN) < 0.5
        sides = [self._on_device(torch.nonzero(c)[:, 0]) for c in (coin, ~coin)]
        groups = [self._boxes(sides[0]), self._points(sides[1])]
        return [group for group, side in zip(groups, sides, strict=True) if len(side)]

    def _boxes(self, index: Tensor) -> Group:
        masks = self.batch.masks_M1SS[index, 0]
        tight = prompts.tight_boxes(masks, largest_component="whole-box" not in self.choices)
        size = (masks.shape[1], masks.shape[2])
        boxes = prompts.jitter_boxes(
            tight,
            self._seeds(index, _CORNERS),
            size,
            released="box-jitter" not in self.choices,
        )
        return Group(index_M=index, prompts=self._prompts(index, boxes_M4=boxes))

    def _points(self, index: Tensor) -> Group:
        masks = self.batch.masks_M1SS[index, 0]
        xy, label = prompts.first_click(masks, self._seeds(index, _POINT))
        made = self._prompts(index, points_MN2=xy[:, None], point_labels_MN=label[:, None])
        return Group(index_M=index, prompts=made)

    def later(self, number: int, logits_M1SS: Tensor, feedback_M1hw: Tensor) -> list[Group]:
        """Pass ``number`` >= 1, from the prediction of the pass before.

        Args:
            number: of the pass.
            logits_M1SS: prediction at model size; above 0 is object.
            feedback_M1hw: the mask prompt.
        """
        everything = self.batch.image_index_M
        if number in self._alone:
            alone = Prompts(image_index_M=everything, mask_M1hw=feedback_M1hw)
            return [Group(index_M=None, prompts=alone)]
        truth = self.batch.masks_M1SS[:, 0]
        predicted = logits_M1SS[:, 0] > 0
        if "inside-clicks" in self.choices:
            # Outside the image and where the corpus says 'ignore' there is no error to click on.
            predicted = torch.where(self._valid_M, predicted, truth)
        seeds = prompts.derive_seeds(self._seeds_M, _FIRST_CLICKS + number)
        # A mask's first clicks do not depend on how many are drawn.
        most = self._counts[-1][0]
        xy, label = prompts.error_clicks(predicted, truth, seeds, most)
        groups = []
        for count, index in self._counts:
            made = self._prompts(
                index,
                points_MN2=xy[index, :count],
                point_labels_MN=label[index, :count],
                mask_M1hw=feedback_M1hw[index],
            )
            groups.append(Group(index_M=index, prompts=made))
        return groups

    def _prompts(self, index: Tensor, **given: Tensor) -> Prompts:
        return Prompts(image_index_M=self.batch.image_index_M[index], **given)


def decode(model: SamModel, embedding: Tensor, groups: list[Group]) -> tuple[Tensor, Tensor]:
    """The best mask of each prompt, in the order of the batch: (M, 1, h, w) and (M,) IoU."""
    asked = [group.prompts for group in groups]
    if model.fast:
        low, iou = model.decode_together(embedding, asked).best()
    else:
        best = [model.decode(embedding, prompts).best() for prompts in asked]
        low, iou = (torch.cat(parts) for parts in zip(*best, strict=True))
    index = [group.index_M for group in groups if group.index_M is not None]
    if not index:
        return low, iou
    order = torch.cat(index).argsort()
    return low[order], iou[order]


def upsample(low_res_M1hw: Tensor, size: int) -> Tensor:
    """Low-res logits at model size."""
    return functional.interpolate(low_res_M1hw, (size, size), mode="bilinear", align_corners=False)


def predictions(
    model: SamModel, embedding: Tensor, session: Session
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (M, 1, S, S) and predicted IoU (M,) of each pass; passes do not share a graph.

    The caller may run backward and step between passes.
    """
    size = session.batch.masks_M1SS.shape[-1]
    groups = session.first()
    for number in range(1, session.passes + 1):
        low_res, iou = decode(model, embedding, groups)
        logits = upsample(low_res.float(), size)
        yield logits, iou.float()
        if number < session.passes:
            groups = session.later(number, logits.detach(), model.feedback(low_res.detach()))
