"""Learning from batches: passes, losses and optimiser steps; knows no corpus and no files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from sammed_model.augment import augment
from sammed_model.config import TrainConfig
from sammed_model.dataset import Batch
from sammed_model.embeddings import Embedder, precision_of
from sammed_model.losses import interactive_loss
from sammed_model.meter import Meter
from sammed_model.optim import learning_rate, make_optimiser, set_rate, trainable
from sammed_model.parallel import ALONE, World
from sammed_model.passes import Session, predictions
from sammed_model.runs import Progress
from sammed_model.sam import SamModel

# A logit that contributes no loss against background: what 'ignored' pixels are given.
_SURELY_BACKGROUND = -20.0


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave: losses are means over its passes.

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


@dataclass(frozen=True, kw_only=True)
class Work:
    """What learns, how, and who watches."""

    model: SamModel
    config: TrainConfig
    optimiser: torch.optim.Optimizer
    embedder: Embedder
    meter: Meter
    world: World = ALONE

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device


def train_on_batches(
    model: SamModel,
    batches: Iterable[Batch],
    config: TrainConfig,
    *,
    total_steps: int | None,
    progress: Progress | None = None,
    optimiser: torch.optim.Optimizer | None = None,
    embedder: Embedder | None = None,
    meter: Meter | None = None,
    world: World = ALONE,
) -> Iterator[StepResult]:
    """Learn from batches until the run is done; yields after each step, all state consistent.

    Args:
        model: on its device, with ``requires_grad`` set on what learns.
        batches: on any device; as many as needed are taken, ``config.accumulate`` a step.
        config: of the run; its ``minutes`` count over all resumptions.
        total_steps: length of the schedule, None if only ``minutes`` limit it.
        progress: where to continue; updated in place.
        optimiser: with its state; default a new one.
        embedder: with what it has kept; default a new one.
        meter: of the time of stages.
        world: of the processes that learn together, each from its own batches; results are of all.
    """
    progress = progress or Progress()
    room = config.cache_bytes if config.augment == "none" else 0
    work = Work(
        model=model,
        config=config,
        optimiser=optimiser or make_optimiser(model, config),
        embedder=embedder or Embedder(model, room),
        meter=meter or Meter(),
        world=world,
    )
    learn = _one_step if "one-step" in config.choices else _step_a_pass
    source = iter(batches)
    while (done := done_fraction(config, progress, total_steps)) < 1:
        began = time.monotonic()
        with work.meter.stage("load"):
            parts = list(islice(source, config.accumulate))
        if not parts:
            return
        last = parts[-1].position
        progress.next_position = (last[0], last[1] + 1)
        parts = [part for part in parts if len(part.masks_M1SS)]
        n_masks, without = world.sums([sum(len(p.masks_M1SS) for p in parts), not parts])
        if without:  # a process has nothing to learn from here: all leave it out
            continue
        rate = learning_rate(config, progress.step, done)
        set_rate(work.optimiser, rate)
        losses, gradient = learn(work, parts, progress.step, int(n_masks))
        values = losses.tolist()
        images = sum(len(part.keys) for part in parts)
        seconds = (time.monotonic() - began) * world.leads  # one clock drives all schedules
        seconds, n_images, *values = world.sums([seconds, images, *values])
        progress.step += 1
        progress.seconds += seconds
        yield StepResult(
            loss=sum(values) / len(values),
            first=values[0],
            last=values[-1],
            rate=rate,
            gradient=float(gradient),
            images=int(n_images),
            masks=int(n_masks),
            seconds=seconds,
            position=parts[0].position,
        )


def done_fraction(config: TrainConfig, progress: Progress, total_steps: int | None) -> float:
    """How much of the run is done, by steps or by the clock, whichever is further."""
    by_steps = progress.step / total_steps if total_steps else 0.0
    by_clock = progress.seconds / (60 * config.minutes) if config.minutes else 0.0
    return max(by_steps, by_clock)


def _one_step(
    work: Work, parts: list[Batch], step: int, n_masks: int
) -> tuple[Tensor, Tensor | float]:
    """One optimiser step for the mean loss of all passes over all parts.

    Passes do not share a graph beyond the embedding, so each runs backward at once, into the
    decoder and into a leaf that stands for the embedding; the encoder's backward runs once, with
    the leaf's summed gradient. That is the gradient of the sum, for the memory of one pass.
    Each part's loss is its sum over masks by ``n_masks``, those of all parts of all processes: what
    they add up to is the loss of one large batch.
    """
    work.optimiser.zero_grad(set_to_none=True)
    losses = torch.zeros(work.config.passes, device=work.device)
    for part in parts:
        batch = _prepared(work, part)
        embedding = _embedding(work, batch)
        leaf = embedding.detach().float().requires_grad_(work.embedder.learns)
        for number, prediction in enumerate(_passes(work, batch, leaf, step)):
            with work.meter.stage("loss"):
                loss = _loss(work.config, batch, *prediction, n_masks=n_masks)
            with work.meter.stage("backward"):
                torch.autograd.backward(loss / work.config.passes)
            losses[number] += loss.detach()
        _backward_encoder(work, embedding, leaf)
    _exchange(work)
    with work.meter.stage("optimiser"):
        gradient = _clip(work)
        work.optimiser.step()
    return losses, gradient


def _step_a_pass(
    work: Work, parts: list[Batch], step: int, n_masks: int
) -> tuple[Tensor, Tensor | float]:
    """An optimiser step after each pass; after the first one the encoder rests."""
    batch = _prepared(work, parts[0])
    # With 'none', what has no gradient rests; with zeros, its momentum goes on moving it.
    rests = "fresh-momentum" in work.config.choices
    work.optimiser.zero_grad(set_to_none=rests)
    if not rests:
        _zeros_where_moments_are(work.optimiser)
    embedding = _embedding(work, batch)
    leaf = embedding.detach().float().requires_grad_(work.embedder.learns)
    losses: list[Tensor] = []
    gradient: Tensor | float = 0.0
    for number, prediction in enumerate(_passes(work, batch, leaf, step)):
        with work.meter.stage("loss"):
            loss = _loss(work.config, batch, *prediction, n_masks=n_masks)
        with work.meter.stage("backward"):
            torch.autograd.backward(loss)
        losses.append(loss.detach())
        if number == 0:
            _backward_encoder(work, embedding, leaf)
            leaf.requires_grad_(False)
        _exchange(work)
        with work.meter.stage("optimiser"):
            norm = _clip(work)
            gradient = gradient if number else norm
            work.optimiser.step()
            work.optimiser.zero_grad(set_to_none=rests)
    return torch.stack(losses), gradient


def _zeros_where_moments_are(optimiser: torch.optim.Optimizer) -> None:
    """What ``zero_grad`` leaves in a run that was never interrupted."""
    for parameter in optimiser.state:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def _prepared(work: Work, part: Batch) -> Batch:
    with work.meter.stage("augment"):
        return augment(part.to(work.device), work.config.augment)


def _embedding(work: Work, batch: Batch) -> Tensor:
    with work.meter.stage("encode"), precision_of(work.config, work.device):
        return work.embedder(batch)


def _passes(work: Work, batch: Batch, leaf: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Predictions of each pass; without the mend, the prompt encoder learns in the first alone."""
    session = Session(batch, work.config.choices, work.config.passes, step)
    source = predictions(work.model, leaf, session)
    for number in range(work.config.passes):
        rests = number > 0 and "prompt-encoder" not in work.config.choices
        with (
            work.meter.stage("decode"),
            precision_of(work.config, work.device),
            _frozen(work.model.prompt_encoder, rests),
        ):
            prediction = next(source)
        yield prediction


def _backward_encoder(work: Work, embedding: Tensor, leaf: Tensor) -> None:
    if work.embedder.learns and leaf.grad is not None:
        with work.meter.stage("backward"):
            torch.autograd.backward(embedding, leaf.grad.to(embedding.dtype))
        leaf.grad = None


def _exchange(work: Work) -> None:
    """Gradients of all processes are summed; losses were divided by their number of masks."""
    with work.meter.stage("backward"):
        work.world.sum_gradients(list(trainable(work.model).values()))


def _clip(work: Work) -> Tensor | float:
    """Gradient norm before clipping, not waited for; 0 where the recipe does not clip."""
    if "clip" not in work.config.choices:
        return 0.0
    return nn.utils.clip_grad_norm_(trainable(work.model).values(), work.config.clip_norm)


@contextmanager
def _frozen(module: nn.Module, yes: bool) -> Iterator[None]:
    """No gradient for a module's parameters within."""
    learning = [p for p in module.parameters() if p.requires_grad] if yes else []
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _loss(
    config: TrainConfig,
    batch: Batch,
    logits_M1SS: Tensor,
    iou_M: Tensor,
    *,
    n_masks: int | None = None,
) -> Tensor:
    """Loss of one pass, of ``n_masks`` masks that it is part of."""
    truth = batch.masks_M1SS
    if "valid-loss" in config.choices:
        valid = batch.valid_B1SS[batch.image_index_M]
        logits_M1SS = logits_M1SS.masked_fill(~valid, _SURELY_BACKGROUND)
        truth = truth & valid
    if "mask-loss" in config.choices:
        return interactive_loss(logits_M1SS, truth, iou_M, pooled=False, n_masks=n_masks)
    share = len(truth) / n_masks if n_masks else 1.0
    return share * interactive_loss(logits_M1SS, truth, iou_M, pooled=True)
