"""Prompt protocols: which prompts a mask gets, a function of the mask and its names alone.

``sam-med2d`` as released: prompts are found on a 256 x 256 grid (both sides under 256: padded in
the middle, else stretched by OpenCV's nearest rule) and handed over in slice pixels.

* ``bbox``: the tight box of the largest 8-connected part, one pass; edges of grid pixels are
  brought to the slice and out to whole pixels.
* ``1pt``, ``3pt``, ``5pt``: rounds 1, 3 and 5 of one dialogue. First a uniform pixel of the object,
  then each round one uniform pixel of the error of the model's last answer (label 1 where it
  missed, 0 where it went too far, -1 void when there is no error). Clicks accumulate and every
  later round also gives the model its own last low-resolution answer as mask prompt.
* ``mask``: a coarse mask. The object's share of each 4 x 4 cell of the grid (64 x 64 values),
  averaged over 3 x 3 cells, brought back to the slice (bilinear) and cut at half its maximum.

An object too thin for the grid is prompted at native size instead. Draws are seeded by (sample,
mask, protocol, round, seed), not by mode.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sammed_data.types import UsageError, nearest
from sammed_model import prompts
from sammed_model.frame import Frame, Preprocessing

MODES = ("bbox", "1pt", "3pt", "5pt", "mask")
_CELL = 4


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A versioned way to prompt; ``hash`` is its identity in the score rows.

    Attributes:
        grid_px: side of the grid on which prompts are found.
        largest_component: boxes of the largest part only.
        accumulate: clicks of earlier rounds stay.
    """

    name: str = "sam-med2d"
    version: int = 1
    grid_px: int = 256
    largest_component: bool = True
    accumulate: bool = True

    @property
    def hash(self) -> str:
        """SHA-256 of the fields."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


SAM_MED2D = Protocol()


def parse_modes(text: str) -> tuple[str, ...]:
    """``'1pt,bbox'`` -> modes in the order of MODES, without repeats.

    Raises:
        UsageError: a mode that does not exist, or none at all.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [mode for mode in asked if mode not in MODES]
    if unknown or not asked:
        found = ", ".join(f"{mode!r} ({nearest(mode, MODES)})" for mode in unknown) or "nothing"
        raise UsageError(
            f"expected prompt modes out of {', '.join(MODES)}, found {found}: "
            "write for example --prompts 1pt,bbox,5pt"
        )
    return tuple(mode for mode in MODES if mode in asked)


def kind_of(mode: str) -> str:
    """The prompt kind a model must accept for a mode: box, point or mask."""
    return {"bbox": "box", "mask": "mask"}.get(mode, "point")


def click_rounds(modes: Sequence[str]) -> dict[int, str]:
    """Number of clicks -> mode, for the modes of the dialogue."""
    found = ((re.fullmatch(r"(\d+)pt", mode), mode) for mode in modes)
    return {int(match[1]): mode for match, mode in found if match}


@dataclass(frozen=True, kw_only=True)
class Target:
    """The true masks of one image, ready to be prompted.

    Attributes:
        sample_id: row of the corpus.
        mask_keys: position of each mask in its row.
        truth_MHW: bool, ignored pixels removed.
        valid_HW: False where the corpus says 'ignore'.
        frame: slice to grid.
        grid_MSS: the truth on the grid.
    """

    sample_id: str
    mask_keys: tuple[int, ...]
    truth_MHW: Tensor
    valid_HW: Tensor
    frame: Frame
    grid_MSS: Tensor

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        sample_id: str,
        mask_keys: Sequence[int],
        truth_MHW: Tensor,
        valid_HW: Tensor,
    ) -> Target:
        """Bring the truth onto the grid of a protocol."""
        height, width = truth_MHW.shape[-2:]
        frame = Preprocessing.named("released", protocol.grid_px).frame(height, width)
        truth = truth_MHW & valid_HW
        return cls(
            sample_id=sample_id,
            mask_keys=tuple(mask_keys),
            truth_MHW=truth,
            valid_HW=valid_HW,
            frame=frame,
            grid_MSS=frame.masks_to_model(truth)[:, 0],
        )

    def __len__(self) -> int:
        return len(self.mask_keys)

    def seeds(self, protocol: Protocol, round: int, seed: int) -> Tensor:
        """(M,) seeds of one round."""
        made = [
            prompts.prompt_seed(self.sample_id, key, protocol.name, round, seed)
            for key in self.mask_keys
        ]
        return torch.tensor(made, dtype=torch.int64, device=self.truth_MHW.device)


def boxes(protocol: Protocol, target: Target) -> Tensor:
    """(M, 4) half-open boxes in slice pixels."""
    grid = prompts.tight_boxes(target.grid_MSS, protocol.largest_component)
    found = _outwards(target.frame.boxes_to_slice(grid.double()))
    thin = ~target.grid_MSS.flatten(1).any(dim=1)
    if bool(thin.any()):
        native = prompts.tight_boxes(target.truth_MHW[thin], protocol.largest_component)
        found[thin] = native.to(found.dtype)
    return found


def _outwards(boxes_M4: Tensor) -> Tensor:
    """To whole pixels; what is whole but for rounding stays."""
    low, high = (boxes_M4[:, :2] + 1e-6).floor(), (boxes_M4[:, 2:] - 1e-6).ceil()
    return torch.cat([low, high], dim=1).float()


def coarse_masks(protocol: Protocol, target: Target) -> Tensor:
    """(M, H, W) bool mask prompts: the object seen through 64 x 64 blurred cells."""
    cells = functional.avg_pool2d(target.grid_MSS[:, None].float(), _CELL)
    blurred = functional.avg_pool2d(cells, 3, stride=1, padding=1)
    share = target.frame.logits_to_slice(blurred)
    top = share.flatten(1).max(dim=1).values
    coarse = share > (top / 2)[:, None, None]
    thin = (top <= 0)[:, None, None]
    return torch.where(thin, target.truth_MHW, coarse)


def first_clicks(protocol: Protocol, target: Target, seed: int) -> tuple[Tensor, Tensor]:
    """(M, 2) points inside the objects and (M,) labels; -1 only for an empty mask."""
    seeds = target.seeds(protocol, 0, seed)
    xy, label = prompts.first_click(target.grid_MSS, seeds)
    xy = to_pixels(target.frame, xy)
    thin = label < 0
    if bool(thin.any()):
        native, native_label = prompts.first_click(target.truth_MHW[thin], seeds[thin])
        xy[thin], label[thin] = native.to(xy.dtype), native_label
    return xy, label


def next_clicks(
    protocol: Protocol, target: Target, predicted_MHW: Tensor, round: int, seed: int
) -> tuple[Tensor, Tensor]:
    """(M, 2) points in the error of the last answer and (M,) labels 1, 0 or -1.

    Args:
        protocol: grid and seeds.
        target: truth.
        predicted_MHW: bool answer of the round before, at slice size.
        round: 1 for the second click.
        seed: of the run.
    """
    predicted = target.frame.masks_to_model(predicted_MHW & target.valid_HW)[:, 0]
    xy, label = prompts.error_click(predicted, target.grid_MSS, target.seeds(protocol, round, seed))
    return to_pixels(target.frame, xy), label


def to_pixels(frame: Frame, xy_M2: Tensor) -> Tensor:
    """Grid pixels -> the slice pixels that they were sampled from, by OpenCV's nearest rule."""
    inner = torch.tensor([frame.inner_width, frame.inner_height], dtype=torch.float64)
    size = torch.tensor([frame.width, frame.height], dtype=torch.float64)
    pad = torch.tensor([frame.pad_left, frame.pad_top], dtype=torch.float64)
    step = (1.0 / (inner / size)).to(xy_M2.device)
    last = (size - 1).to(xy_M2.device)
    position = ((xy_M2.double() - pad.to(xy_M2.device)) * step).floor()
    return torch.minimum(position.clamp(min=0), last).float()
