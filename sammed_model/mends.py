"""What the released training did otherwise than is sound: each point can be mended alone.

Sources: the released code (OpenGVLab/SAM-Med2D at bfd2b93, ``train.py``, ``utils.py``,
``DataLoader.py``, ``loss.py``, ``prompt_encoder.py``) as read and run for `docs/training.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Recipe = Literal["mended", "released"]

# name -> (what the mend does, what was released and where).
MENDS: dict[str, tuple[str, str]] = {
    "one-step": (
        "one optimiser step a batch for the mean loss of all passes, each of which reaches the "
        "encoder",
        "train.py: a step after each of 9 passes; after the first the decoder alone learns",
    ),
    "prompt-encoder": (
        "all of the prompt encoder learns, in every pass",
        "prompt_encoder.py, train.py: click embeddings are made anew in each forward, passes 2-9 "
        "run it without gradient, so that clicks and mask prompt never learn",
    ),
    "fresh-momentum": (
        "what gets no gradient in a pass rests in its step",
        "train.py under torch 1: gradients are set to zero, not to none, so Adam's momentum moves "
        "adapters and prompt encoder in passes 2-9",
    ),
    "mask-loss": (
        "loss of each mask for itself; the target of the predicted IoU is the IoU of the cut mask",
        "loss.py: one dice ratio and one soft, undetached IoU of the whole batch; "
        "log(p + 1e-12) has no gradient for confident mistakes",
    ),
    "valid-loss": (
        "padding and pixels marked 'ignore' do not count",
        "loss.py: mean over all pixels, padding included",
    ),
    "inside-clicks": (
        "corrections are never clicked in the padding or on 'ignore'",
        "utils.py: drawn from all pixels where prediction and mask differ",
    ),
    "mask-draws": (
        "each mask draws box or point and its number of clicks",
        "train.py: one coin and one number of clicks for the whole batch",
    ),
    "box-jitter": (
        "each coordinate of a box moves for itself and stays in the image",
        "utils.py: the whole box is moved by up to 5 px, over the edge too",
    ),
    "whole-box": (
        "the box holds the whole mask",
        "utils.py: it holds the largest part, while the loss is over all parts",
    ),
    "distinct-masks": (
        "masks of an image are drawn without replacement",
        "DataLoader.py: 5 draws with replacement, repeats where there are fewer masks",
    ),
    "aspect": (
        "images keep their aspect, are resized with anti-aliasing and read as RGB",
        "DataLoader.py: stretched by the nearest pixel or padded, BGR under RGB constants",
    ),
    "quiet-adapters": (
        "a fresh adapter adds zero and opens ten times as fast: training starts from the "
        "pretrained model",
        "adapter initialisation: a LayerNorm'd random token on every residual from step 0",
    ),
    "clip": (
        "the norm of the gradient is clipped",
        "train.py: not clipped",
    ),
    "decay": (
        "matrices decay (AdamW)",
        "train.py: Adam without decay",
    ),
}


@dataclass(frozen=True)
class Choices:
    """Which mends a run has.

    Args:
        names: of ``MENDS``.
    """

    names: frozenset[str]

    @classmethod
    def of(cls, recipe: Recipe, mends: Iterable[str] = ()) -> Choices:
        """All of them under ``mended``, those named under ``released``."""
        return cls(frozenset(MENDS if recipe == "mended" else mends))

    def __contains__(self, name: str) -> bool:
        if name not in MENDS:
            raise KeyError(name)
        return name in self.names
