"""A step never asks the device: it runs on 'meta', which has no values to ask for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from small_models import small
from torch.utils._python_dispatch import TorchDispatchMode

from sammed_model import step
from sammed_model.config import TrainConfig
from sammed_model.dataset import Batch
from sammed_model.embeddings import Embedder
from sammed_model.meter import Meter
from sammed_model.optim import make_optimiser
from sammed_model.passes import Session, decode, predictions

META = torch.device("meta")


class Waits(TorchDispatchMode):
    """Names of the copies to the device that would wait for it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            moved = out.device.type == "meta"
            if moved and not (kwargs or {}).get("non_blocking"):
                self.found.append(tuple(out.shape))
        return out


def work_of(model, config: TrainConfig) -> step.Work:
    return step.Work(
        model=model,
        config=config,
        optimiser=make_optimiser(model, config),
        embedder=Embedder(model, 0),
        meter=Meter(),
    )


def batch_of(images: int = 3, masks: int = 4) -> Batch:
    """Real ones, on the CPU: (x + mask number) decides."""
    grid = torch.arange(64)
    planes = [(grid[:, None] > 4 * n) & (grid[None] < 40 - n) for n in range(images * masks)]
    return Batch(
        images_B3SS=torch.linspace(-1, 1, images * 3 * 64 * 64).view(images, 3, 64, 64),
        masks_M1SS=torch.stack(planes)[:, None],
        valid_B1SS=torch.ones(images, 1, 64, 64, dtype=torch.bool),
        image_index_M=torch.arange(images).repeat_interleave(masks),
        seeds_M=torch.arange(images * masks) * 7919,
        keys=tuple("abc"[:images]),
        visit_seeds_B=torch.arange(images),
        sided_B=torch.tensor([True, False, False][:images]),
    )


@pytest.mark.parametrize(
    ("method", "augment"),
    [("sam-med2d", "strong"), ("ft-sam", "none"), ("lora", "light"), ("full", "none")],
)
def test_a_step_has_no_host_round_trip(method, augment, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # none for 'meta'
    model = small(method).to(META)
    config = TrainConfig(method=method, passes=5, steps=1, augment=augment)
    work = work_of(model, config)
    with Waits() as waits:
        losses, gradient = step._one_step(work, [batch_of()], 0, 12)
    assert waits.found == []
    assert losses.shape == (5,)
    assert gradient.device == META


def test_the_probe_sees_what_would_wait():
    with Waits() as waits:
        torch.zeros(3).to(META)
        torch.zeros(2).to(META, non_blocking=True)
    assert waits.found == [(3,)]
    for ask in (torch.Tensor.item, torch.nonzero, lambda x: x[x > 0], torch.Tensor.cpu, bool):
        with pytest.raises((RuntimeError, NotImplementedError)):
            ask(torch.zeros(1, device=META))


def test_the_way_of_the_gpu_gives_the_prompts_of_the_cpu(monkeypatch):
    from sammed_model import prompts

    model, batch = small("ft-sam"), batch_of()
    choices = TrainConfig().choices
    with torch.no_grad():
        embedding = model.encode(batch.images_B3SS)
        wanted = [low for low, _ in predictions(model, embedding, Session(batch, choices, 4))]
        monkeypatch.setattr(prompts, "_highest_in_region", prompts._highest)
        found = [low for low, _ in predictions(model, embedding, Session(batch, choices, 4))]
        first = decode(model, embedding, Session(replace(batch), choices, 4).first())
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert first[0].shape[0] == 12
