"""One of two processes of ``test_parallel.py``: ``parallel_worker.py CORPUS OUT``."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from sammed_data.corpus import VIEWS, Corpus
from sammed_data.index import open_index
from sammed_data.types import InterruptedRun, SammedError, UsageError
from sammed_model.adapters import add_adapters, train_only
from sammed_model.config import TrainConfig
from sammed_model.dataset import Batch, Draw, Samples
from sammed_model.feed import Loader, TrainingSet
from sammed_model.optim import trainable
from sammed_model.parallel import World, joined
from sammed_model.sam import build_sam, spec_for
from sammed_model.selection import Selection, rows_of
from sammed_model.step import train_on_batches
from sammed_model.train import train
from sammed_model.validate import validate

STEPS = 4
RUN = {
    "image_size": 32,
    "init": "random",
    "steps": 5,
    "passes": 3,
    "batch_images": 2,
    "validate_every": 2,
    "validation_images": 3,
    "modes": ("bbox", "1pt"),
    "lr": 1e-3,
    "warmup": 2,
    "method": "ft-sam",
}


def model_of():
    """Two and a half blocks' worth of everything: small, all groups of parameters."""
    model = build_sam(spec_for("vit_tiny", image_size=32), seed=1)
    add_adapters(model, seed=1)
    train_only(model, "sam-med2d")
    return model


def batches(corpus: Corpus, model, rank: int) -> list[Batch]:
    """Batches of one process; the other's have another number of masks, the third none."""
    numbers = open_index(corpus).select(corpus, ["train"], VIEWS["sam-med2d"])
    rows = TrainingSet(corpus, numbers, rank=rank, world=2)
    draw = Draw(masks_per_image=1 + rank, seed=0)
    loader = Loader(rows, model.preprocessing, batch_images=2 - rank, draw=draw, workers=0)
    found = list(itertools.islice(loader.batches(), STEPS))
    if rank:
        found[2] = Batch.empty(found[2].position)
    return found


def joint(parts: list[Batch]) -> Batch:
    """One batch that holds those of all processes."""
    before = itertools.accumulate((len(p.keys) for p in parts), initial=0)
    return replace(
        parts[0],
        images_B3SS=torch.cat([p.images_B3SS for p in parts]),
        masks_M1SS=torch.cat([p.masks_M1SS for p in parts]),
        valid_B1SS=torch.cat([p.valid_B1SS for p in parts]),
        image_index_M=torch.cat([p.image_index_M + n for p, n in zip(parts, before, strict=False)]),
        seeds_M=torch.cat([p.seeds_M for p in parts]),
        keys=tuple(k for p in parts for k in p.keys),
    )


def learned(recipe: str, given: list[Batch], world: World) -> tuple[dict, dict]:
    """Gradients after the first step, and numbers and weights after all."""
    model = model_of()
    config = TrainConfig(recipe=recipe, passes=3, steps=STEPS, lr=1e-3, warmup=0)
    if recipe == "released":  # pooled losses do not add up to that of a joint batch
        config = replace(config, mends=("mask-loss", "mask-draws", "clip"))
    results, gradients = [], {}
    for result in train_on_batches(model, given, config, total_steps=STEPS, world=world):
        if not results:
            grads = {name: p.grad for name, p in trainable(model).items()}
            gradients = {n: g.clone() for n, g in grads.items() if g is not None}
        results.append([result.loss, result.first, result.last, result.images, result.masks])
        results[-1].append(result.gradient)
    weights = {name: p.detach().clone() for name, p in trainable(model).items()}
    return {"results": results}, {
        **{f"gradient/{n}": g.contiguous() for n, g in gradients.items()},
        **{f"weight/{n}": w.contiguous() for n, w in weights.items()},
    }


def scores(corpus: Corpus, world: World) -> list:
    """Validation over five rows, shared out unevenly."""
    chosen = Selection.of(corpus, lambda _: None)
    rows = rows_of(corpus, chosen.index, chosen.training_E[:5])
    found = validate(
        model_of(), Samples(corpus, rows), ("bbox", "3pt"), masks_per_image=2, world=world
    )
    return [found.dice, found.n_masks, found.n_patients]


def compare(corpus: Path, out: Path) -> None:
    with joined("cpu") as world:
        opened = Corpus(corpus)
        with world.leader_first():
            open_index(opened)
        own = batches(opened, model_of(), world.rank)
        said = {"scores": scores(opened, world)}
        for recipe in ("mended", "released"):
            numbers, tensors = learned(recipe, own, world)
            said[recipe] = numbers
            save_file(tensors, out / f"{recipe}-{world.rank}.safetensors")
        said["text"] = world.text("of the leader" if world.leads else "of nobody")
        try:
            world.same("thing", str(world.rank))
        except UsageError as err:
            said["differs"] = str(err)
        (out / f"said-{world.rank}.json").write_text(json.dumps(said))


def runs(corpus: Path, out: Path) -> None:
    """A whole run, and one that process 1 wants to stop and that is resumed."""
    rank = int(os.environ["RANK"])
    wrote = []
    if rank:
        sys.addaudithook(
            lambda name, args: wrote.append(said) if (said := _written(name, args)) else None
        )
    config = TrainConfig(**RUN)
    train(corpus, config, runs=out / "whole")
    asked = itertools.count(1)
    try:
        train(
            corpus, config, runs=out / "parts", should_stop=lambda: next(asked) == 3 and rank == 1
        )
    except InterruptedRun as err:
        (out / f"stopped-{rank}").write_text(str(err))
    train(corpus, TrainConfig(), resume=out / "parts" / "001-ft-sam")
    if rank:
        (out / "wrote.json").write_text(json.dumps([w for w in wrote if str(out) in w]))


def _written(name: str, args: tuple) -> str:
    if name == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        return str(args[0])
    return str(args[0]) if name in ("os.mkdir", "os.rename", "os.remove", "os.truncate") else ""


def dies(corpus: Path, out: Path) -> None:
    """Process 1 is killed after its second step."""
    asked = itertools.count(1)

    def kill() -> bool:
        if os.environ["RANK"] == "1" and next(asked) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    try:
        train(corpus, TrainConfig(**RUN), runs=out / "dies", should_stop=kill)
    except SammedError as err:
        (out / "died").write_text(f"{type(err).__name__}: {err}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu"):
        for task in (compare, runs, dies):
            task(Path(sys.argv[1]), Path(sys.argv[2]))
