"""Each fault of the released recipe is mended alone: its switch changes its point and no other."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from tiny_corpus import write_corpus

from sammed_data.types import UsageError
from sammed_model import passes, prompts, step
from sammed_model.adapters import adapters_of
from sammed_model.config import TrainConfig
from sammed_model.dataset import Batch
from sammed_model.mends import MENDS, Choices
from sammed_model.prompts import prompt_seed
from sammed_model.setup import Silent, set_up

SIDE, MASKS = 32, 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    counts = {"train": 2, "validation": 1}
    return write_corpus(tmp_path_factory.mktemp("c") / "corpus", patients=counts, size=(24, 30))


def toy_batch() -> Batch:
    """Two images with padding at the right; every mask has a large and a small part."""
    masks = torch.zeros(MASKS, 1, SIDE, SIDE, dtype=torch.bool)
    for m in range(MASKS):
        masks[m, 0, 4 + m % 3 : 12, 3 : 9 + m % 4] = True
        masks[m, 0, 20:23, 14:17] = True
    valid = torch.ones(2, 1, SIDE, SIDE, dtype=torch.bool)
    valid[..., 24:] = False
    grey = torch.arange(2 * 3 * SIDE * SIDE).reshape(2, 3, SIDE, SIDE).float().sin()
    return Batch(
        images_B3SS=grey * valid,
        masks_M1SS=masks,
        valid_B1SS=valid,
        image_index_M=torch.arange(MASKS) % 2,
        seeds_M=torch.tensor([prompt_seed("toy", m, "train", 0, 0) for m in range(MASKS)]),
        keys=("a", "b"),
    )


def config_of(recipe: str, *mends: str) -> TrainConfig:
    return TrainConfig(
        recipe=recipe, mends=mends, init="random", image_size=SIDE, steps=1, passes=3, warmup=0,
        validation_images=1, batch_images=2,
    )  # fmt: skip


def fingerprint(corpus, folder, config: TrainConfig) -> dict[str, bool]:
    """Point -> whether it behaves as mended, seen from outside."""
    run = set_up(corpus, config, folder, None, Silent())
    model, batch = run.model, toy_batch()
    seen = {
        "aspect": model.preprocessing.name == "default",
        "quiet-adapters": all((a.norm.weight == 0).all() for a in adapters_of(model)),
        "decay": any(g["weight_decay"] > 0 for g in run.optimiser.param_groups),
        "distinct-masks": not run.loader.draw.replacement,
        "prompt-encoder": all(
            model.prompt_encoder.point_embeddings[n].weight.requires_grad for n in (0, 1)
        ),
    }
    seen |= _user(passes.Session(batch, config.choices, 3, step=5), config.choices)
    seen |= _losses(config, batch)
    seen |= _steps(run, config, batch)
    return seen


def _user(session, choices) -> dict[str, bool]:
    everything = torch.arange(MASKS)
    masks = session.batch.masks_M1SS[:, 0]
    boxes = session._boxes(everything).prompts.boxes_M4
    tight = [prompts.tight_boxes(masks, largest_component=part) for part in (False, True)]
    base = tight[0 if "whole-box" in choices else 1]
    shift = boxes - base
    near = [(boxes - t).abs().max() <= 5 for t in tight]
    wrong = torch.ones(MASKS, 1, SIDE, SIDE)
    clicks = session.later(1, wrong, torch.zeros(MASKS, 1, SIDE // 2, SIDE // 2))
    outside = [(group.prompts.points_MN2[..., 0] >= 24).any() for group in clicks]
    return {
        "mask-draws": sum(len(index) > 0 for _, index in session._counts) > 1,
        "whole-box": bool(near[0]),
        "box-jitter": not torch.equal(shift[:, :2], shift[:, 2:]),
        "inside-clicks": not any(outside),
    }


def _losses(config, batch) -> dict[str, bool]:
    gradients = []
    for other in (0.2, 3.0):
        logits = torch.full((MASKS, 1, SIDE, SIDE), 0.2)
        logits[1] = other
        logits.requires_grad_(True)
        step._loss(config, batch, logits, torch.zeros(MASKS)).backward()
        gradients.append(logits.grad)
    return {
        "mask-loss": torch.equal(gradients[0][0], gradients[1][0]),
        "valid-loss": bool((gradients[0][..., 24:] == 0).all()),
    }


def _steps(run, config, batch) -> dict[str, bool]:
    moving = next(adapters_of(run.model)).norm.bias
    taken: list[torch.Tensor] = []

    class Counting(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            result = super().step(*args, **kwargs)
            taken.append(moving.detach().clone())
            return result

    learning = [p for p in run.model.parameters() if p.requires_grad]
    optimiser = Counting(learning, lr=1e-3, weight_decay=0.0)
    list(step.train_on_batches(run.model, [batch], config, total_steps=1, optimiser=optimiser))
    count = len(taken)
    taken.clear()
    work = step.Work(
        model=run.model,
        config=config,
        optimiser=Counting(learning, lr=1e-3, weight_decay=0.0),
        embedder=run.embedder,
        meter=run.meter,
    )
    _, gradient = step._step_a_pass(work, [batch], 0, MASKS)
    return {
        "one-step": count == 1,
        "fresh-momentum": torch.equal(taken[0], taken[1]),
        "clip": float(gradient) > 0,
    }


def test_each_mend_changes_its_point_and_no_other(corpus, tmp_path):
    released = fingerprint(corpus, tmp_path, config_of("released"))
    assert released == dict.fromkeys(MENDS, False)
    for name in MENDS:
        mended = fingerprint(corpus, tmp_path, config_of("released", name))
        changed = {point for point in MENDS if mended[point] != released[point]}
        assert changed == {name}
    assert fingerprint(corpus, tmp_path, config_of("mended")) == dict.fromkeys(MENDS, True)


def test_all_mends_together_are_the_mended_recipe():
    assert Choices.of("released", MENDS) == Choices.of("mended")
    with pytest.raises(KeyError):
        assert "clipp" in Choices.of("mended")


def test_click_embeddings_learn_when_mended(corpus, tmp_path):
    """Released: never, whatever the coin; mended alone: in later passes too."""
    for mends, learns in (((), False), (("prompt-encoder",), True)):
        config = replace(config_of("released", *mends), passes=9, lr=1e-2)
        run = set_up(corpus, config, tmp_path, None, Silent())
        encoder = run.model.prompt_encoder
        watched = [encoder.point_embeddings[1].weight, encoder.mask_downscaling[0].weight]
        before = [w.detach().clone() for w in watched]
        batches = itertools.repeat(toy_batch(), 2)
        list(step.train_on_batches(run.model, batches, config, total_steps=2))
        assert [not torch.equal(a, b) for a, b in zip(watched, before, strict=True)] == [learns] * 2


def test_wrong_mends_are_sentences():
    with pytest.raises(UsageError, match="did you mean 'one-step'"):
        TrainConfig(recipe="released", mends=("onestep",))
    with pytest.raises(UsageError, match="has all of them"):
        TrainConfig(mends=("clip",))
    with pytest.raises(UsageError, match="--mend one-step"):
        TrainConfig(recipe="released", accumulate=2)
    assert TrainConfig(recipe="released", accumulate=2, mends=("one-step",)).accumulate == 2
    assert TrainConfig(recipe="released", mends=("clip",)).recipe_name == "released recipe + clip"
