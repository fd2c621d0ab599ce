"""Dice of held-out patients by prompt mode, at the native size of the slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sammed_data.corpus import Row
from sammed_model import prompts
from sammed_model.config import CLICKS, ValidationMode
from sammed_model.dataset import Samples, patient_of, prepare
from sammed_model.parallel import ALONE, World
from sammed_model.passes import upsample
from sammed_model.prompts import prompt_seed
from sammed_model.sam import SamModel
from sammed_model.types import Prompts

_PROTOCOL = "sam-med2d"


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Mean Dice over masks by prompt mode, and over how much."""

    dice: dict[str, float]
    n_masks: int
    n_patients: int

    def mean(self, modes: Sequence[str]) -> float:
        """Mean over some modes: what picks the best checkpoint."""
        return float(np.mean([self.dice[mode] for mode in modes]))


# (1, 3, S, S) prepared image and the names of its pixels -> (1, C, h, w).
Embed = Callable[[Tensor, tuple[str, ...]], Tensor]


@torch.no_grad()
def validate(
    model: SamModel,
    samples: Samples,
    modes: Sequence[ValidationMode],
    *,
    masks_per_image: int,
    embed: Embed | None = None,
    world: World = ALONE,
) -> Validation:
    """Score every sample; clicks are those of the benchmark's protocol with seed 0.

    Args:
        model: on its device.
        samples: held-out rows.
        modes: prompt modes.
        masks_per_image: the largest ones are scored, at most so many.
        embed: instead of the model's encoder, one that remembers.
        world: of the processes that share the rows; each gets the result of all.
    """
    embed = embed or (lambda images, names: model.encode(images))
    # A process leaves zeros for the rows of others: their sum holds the same numbers in any world.
    dice_KRM = np.zeros((len(modes), len(samples), masks_per_image))
    for number in range(world.rank, len(samples), world.size):
        found = _score(model, embed, samples, samples.rows[number], modes, masks_per_image)
        for mode, scores in found.items():
            dice_KRM[modes.index(mode), number, : len(scores)] = scores
    n_R = np.array([len(samples.masks[row.sample_id]) for row in samples.rows], np.int64)
    there_RM = np.arange(masks_per_image) < n_R[:, None]
    dice_KN = world.added(dice_KRM)[:, there_RM]
    return Validation(
        dice={m: float(np.mean(d)) if d.size else 0.0 for m, d in zip(modes, dice_KN, strict=True)},
        n_masks=int(there_RM.sum()),
        n_patients=len({patient_of(row) for row in samples.rows}),
    )


def _score(
    model: SamModel,
    embed: Embed,
    samples: Samples,
    row: Row,
    modes: Sequence[ValidationMode],
    limit: int,
) -> dict[str, list[float]]:
    """Dice of some masks of one image, by mode."""
    device = model.device
    full, image, name = samples.pixels(row)
    image_3SS, frame = prepare(model.preprocessing, (row.height, row.width), image)
    chosen = sorted(samples.masks[row.sample_id], key=lambda m: (-m.area_px, m.index))[:limit]
    planes = [full.masks[m.index].mask_HW for m in chosen]
    native_MHW = torch.from_numpy(np.stack([plane for plane in planes if plane is not None]))
    valid_HW = torch.ones(row.height, row.width, dtype=torch.bool)
    if full.ignore_HW is not None:
        valid_HW = torch.from_numpy(~full.ignore_HW)
    user = _User(
        truth_MSS=frame.masks_to_model(native_MHW)[:, 0].to(device),
        valid_SS=frame.masks_to_model(valid_HW[None])[0, 0].to(device),
        keys=[(row.sample_id, m.index) for m in chosen],
    )
    embedding = embed(image_3SS[None].to(device), (name,))
    found: dict[str, list[float]] = {}
    for mode, low_res in user.answers(model, embedding, modes):
        predicted = (frame.logits_to_slice(low_res.float()) > 0).cpu() & valid_HW
        found[mode] = _dice(predicted, native_MHW & valid_HW)
    return found


def _dice(predicted_MHW: Tensor, truth_MHW: Tensor) -> list[float]:
    both = (predicted_MHW & truth_MHW).flatten(1).sum(dim=1)
    total = predicted_MHW.flatten(1).sum(dim=1) + truth_MHW.flatten(1).sum(dim=1)
    ones = torch.ones(len(total))
    return torch.where(total > 0, 2 * both / total.clamp(min=1), ones).tolist()


@dataclass(frozen=True, kw_only=True)
class _User:
    """Prompts one image's masks and corrects the answers."""

    truth_MSS: Tensor
    valid_SS: Tensor
    keys: list[tuple[str, int]]

    def _seeds(self, round: int) -> Tensor:
        made = [prompt_seed(sample, mask, _PROTOCOL, round, 0) for sample, mask in self.keys]
        return torch.tensor(made, dtype=torch.int64, device=self.truth_MSS.device)

    def answers(
        self, model: SamModel, embedding: Tensor, modes: Sequence[ValidationMode]
    ) -> list[tuple[str, Tensor]]:
        """``(mode, low-res logits)`` of each mode."""
        index = torch.zeros(len(self.keys), dtype=torch.int64, device=self.truth_MSS.device)
        found: list[tuple[str, Tensor]] = []
        if "bbox" in modes:
            boxes = prompts.tight_boxes(self.truth_MSS)
            made = model.decode(embedding, Prompts(image_index_M=index, boxes_M4=boxes))
            found.append(("bbox", made.best()[0]))
        wanted = {CLICKS[mode]: mode for mode in modes if mode in CLICKS}
        points, labels, feedback = [], [], None
        truth = self.truth_MSS
        predicted = torch.zeros_like(truth)
        for round in range(max(wanted, default=0)):
            xy, label = prompts.error_click(
                torch.where(self.valid_SS, predicted, truth), truth, self._seeds(round)
            )
            points.append(xy)
            labels.append(label)
            asked = Prompts(
                image_index_M=index,
                points_MN2=torch.stack(points, dim=1),
                point_labels_MN=torch.stack(labels, dim=1),
                mask_M1hw=feedback,
            )
            low_res = model.decode(embedding, asked).best()[0]
            feedback = model.feedback(low_res)
            predicted = upsample(low_res.float(), truth.shape[-1])[:, 0] > 0
            if round + 1 in wanted:
                found.append((wanted[round + 1], low_res))
        return found
