"""Learning from batches: passes, losses and optimiser steps; knows no corpus and no files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sammed_model.config import TrainConfig
from sammed_model.dataset import Batch
from sammed_model.losses import interactive_loss
from sammed_model.optim import learning_rate, make_optimiser, set_rate, trainable
from sammed_model.passes import Session, predictions
from sammed_model.runs import Progress
from sammed_model.sam import SamModel

# A logit that contributes no loss against background: what 'ignored' pixels are given.
_SURELY_BACKGROUND = -20.0


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one batch gave: losses are means over its passes.

    Attributes:
        first: loss of the first pass, the one that trains the adapters.
        last: loss of the last pass.
        gradient: norm before clipping (0 where the recipe does not clip).
    """

    loss: float
    first: float
    last: float
    rate: float
    gradient: float
    images: int
    masks: int
    seconds: float
    position: tuple[int, int]


class Embedder:
    """Embeddings of images: with a graph if the encoder learns, else computed once and kept.

    Args:
        model: whose ``requires_grad`` flags are already set.
        cache_bytes: kept up to this size.
    """

    def __init__(self, model: SamModel, cache_bytes: int) -> None:
        self.model = model
        self.learns = any(p.requires_grad for p in model.image_encoder.parameters())
        self._room = cache_bytes
        self._cache: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> Tensor:
        """(B, C, h, w) embeddings of the batch's images."""
        if self.learns:
            return self.model.encode(batch.images_B3SS)
        missing = [i for i, key in enumerate(batch.keys) if key not in self._cache]
        # One image at a time on the CPU: the last bits must not depend on its company, or a
        # resumed run, which starts with an empty cache, would differ.
        chunk = 1 if batch.images_B3SS.device.type == "cpu" else max(1, len(missing))
        fresh: dict[str, Tensor] = {}
        with torch.no_grad():
            for first in range(0, len(missing), chunk):
                index = missing[first : first + chunk]
                made = self.model.encode(batch.images_B3SS[index])
                fresh |= {batch.keys[i]: e for i, e in zip(index, made.unbind(), strict=True)}
        together = torch.stack([fresh.get(k, self._cache.get(k)) for k in batch.keys])  # type: ignore[misc]
        for key, value in fresh.items():
            size = value.numel() * value.element_size()
            if size <= self._room:
                self._room -= size
                self._cache[key] = value.clone()
        return together


def train_on_batches(
    model: SamModel,
    batches: Iterable[Batch],
    config: TrainConfig,
    *,
    total_steps: int | None,
    progress: Progress | None = None,
    optimiser: torch.optim.Optimizer | None = None,
) -> Iterator[StepResult]:
    """Learn from batches until the run is done; yields after each, when all state is consistent.

    Args:
        model: on its device, with ``requires_grad`` set on what learns.
        batches: on any device; as many as needed are taken.
        config: of the run; its ``minutes`` count over all resumptions.
        total_steps: length of the schedule, None if only ``minutes`` limit it.
        progress: where to continue; updated in place.
        optimiser: with its state; default a new one.
    """
    progress = progress or Progress()
    optimiser = optimiser or make_optimiser(model, config)
    embedder = Embedder(model, config.cache_bytes)
    device = next(model.parameters()).device
    source = iter(batches)
    while (done := done_fraction(config, progress, total_steps)) < 1:
        began = time.monotonic()
        batch = next(source).to(device)
        rate = learning_rate(config, progress.step, done)
        set_rate(optimiser, rate)
        learn = _learn_released if config.recipe == "released" else _learn_mended
        losses, gradient = learn(model, batch, config, optimiser, embedder)
        values = losses.tolist()
        seconds = time.monotonic() - began
        progress.step += 1
        progress.next_position = (batch.position[0], batch.position[1] + 1)
        progress.seconds += seconds
        yield StepResult(
            loss=sum(values) / len(values),
            first=values[0],
            last=values[-1],
            rate=rate,
            gradient=gradient,
            images=len(batch.keys),
            masks=len(batch.masks_M1SS),
            seconds=seconds,
            position=batch.position,
        )


def done_fraction(config: TrainConfig, progress: Progress, total_steps: int | None) -> float:
    """How much of the run is done, by steps or by the clock, whichever is further."""
    by_steps = progress.step / total_steps if total_steps else 0.0
    by_clock = progress.seconds / (60 * config.minutes) if config.minutes else 0.0
    return max(by_steps, by_clock)


def _precision(config: TrainConfig, device: torch.device) -> torch.autocast | nullcontext[None]:
    if config.precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def _learn_mended(
    model: SamModel,
    batch: Batch,
    config: TrainConfig,
    optimiser: torch.optim.Optimizer,
    embedder: Embedder,
) -> tuple[Tensor, float]:
    """One optimiser step for the mean loss of all passes.

    Passes do not share a graph beyond the embedding, so each runs backward at once, into the
    decoder and into a leaf that stands for the embedding; the encoder's backward runs once, with
    the leaf's summed gradient. That is the gradient of the sum, for the memory of one pass.
    """
    session = Session(batch, config.recipe, config.passes)
    optimiser.zero_grad(set_to_none=True)
    losses = []
    with _precision(config, batch.images_B3SS.device):
        embedding = embedder(batch)
        leaf = embedding.detach().float().requires_grad_(embedder.learns)
        for logits, iou in predictions(model, leaf, session):
            loss = _loss(batch, logits, iou, pooled=False)
            torch.autograd.backward(loss / config.passes)
            losses.append(loss.detach())
    if embedder.learns:
        _backward_encoder(embedding, leaf)
    gradient = nn.utils.clip_grad_norm_(trainable(model).values(), config.clip_norm)
    optimiser.step()
    return torch.stack(losses), float(gradient)


def _learn_released(
    model: SamModel,
    batch: Batch,
    config: TrainConfig,
    optimiser: torch.optim.Optimizer,
    embedder: Embedder,
) -> tuple[Tensor, float]:
    """An optimiser step after each pass; after the first one the decoder alone learns."""
    session = Session(batch, config.recipe, config.passes)
    losses = []
    with _precision(config, batch.images_B3SS.device):
        embedding = embedder(batch)
        leaf = embedding.detach().float().requires_grad_(embedder.learns)
        steps = predictions(model, leaf, session)
        losses.append(_released_pass(batch, next(steps), optimiser))
        if embedder.learns:
            _backward_encoder(embedding, leaf)
            leaf.requires_grad_(False)
        optimiser.step()
        with _frozen(model.prompt_encoder):
            for prediction in steps:
                losses.append(_released_pass(batch, prediction, optimiser))
                optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return torch.stack(losses), 0.0


def _backward_encoder(embedding: Tensor, leaf: Tensor) -> None:
    if leaf.grad is not None:
        torch.autograd.backward(embedding, leaf.grad.to(embedding.dtype))


def _released_pass(
    batch: Batch, prediction: tuple[Tensor, Tensor], optimiser: torch.optim.Optimizer
) -> Tensor:
    optimiser.zero_grad(set_to_none=True)
    loss = _loss(batch, *prediction, pooled=True)
    torch.autograd.backward(loss)
    return loss.detach()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradient for a module's parameters within."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _loss(batch: Batch, logits_M1SS: Tensor, iou_M: Tensor, *, pooled: bool) -> Tensor:
    """Loss of one pass; outside the image and on 'ignore' only the released recipe counts."""
    truth = batch.masks_M1SS
    if not pooled:
        valid = batch.valid_B1SS[batch.image_index_M]
        logits_M1SS = logits_M1SS.masked_fill(~valid, _SURELY_BACKGROUND)
        truth = truth & valid
    return interactive_loss(logits_M1SS, truth, iou_M, pooled=pooled)
