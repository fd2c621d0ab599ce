"""Several small batches make the step of a large one; half precision and groups of parameters."""

from __future__ import annotations

import itertools

import pytest
import torch
from small_models import small
from tiny_corpus import write_corpus

from sammed_data.corpus import Corpus, View
from sammed_data.index import open_index
from sammed_data.types import UsageError
from sammed_model import step
from sammed_model.config import TrainConfig
from sammed_model.dataset import Draw
from sammed_model.feed import Loader, TrainingSet
from sammed_model.optim import group_of, make_optimiser, set_rate, trainable


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return Corpus(write_corpus(tmp_path_factory.mktemp("corpus"), patients={"train": 2}))


def batches(corpus, model, n, images):
    rows = TrainingSet(corpus, open_index(corpus).select(corpus, ["train"], View()), view=View())
    draw = Draw(masks_per_image=2, seed=0)
    loader = Loader(rows, model.preprocessing, batch_images=images, draw=draw, workers=0)
    return list(itertools.islice(loader.batches(), n))


@pytest.mark.parametrize("method", ["sam-med2d", "lora", "ft-sam"])
def test_accumulation_is_the_large_batch(corpus, method):
    """Three batches of two images give gradient and loss of one of six, to rounding."""
    found = []
    for images, accumulate in ((6, 1), (2, 3)):
        model = small(method, 32)
        config = TrainConfig(
            method=method, batch_images=images, accumulate=accumulate, passes=7, clip_norm=1e9
        )
        optimiser = torch.optim.SGD(trainable(model).values(), lr=0.0)
        given = batches(corpus, model, accumulate, images)
        results = list(
            step.train_on_batches(model, given, config, total_steps=1, optimiser=optimiser)
        )
        assert [(r.images, r.masks) for r in results] == [(6, 12)]
        gradients = {n: p.grad for n, p in trainable(model).items()}
        found.append((results[0], gradients))
    (large, whole), (parts, added) = found
    assert parts.loss == pytest.approx(large.loss, rel=1e-5)
    assert parts.gradient == pytest.approx(large.gradient, rel=1e-4)
    for name, gradient in whole.items():
        if gradient is None:
            assert added[name] is None, name
        else:
            scale = max(float(gradient.abs().max()), 1e-3)
            torch.testing.assert_close(added[name], gradient, rtol=1e-3, atol=1e-4 * scale)


def test_a_step_is_counted_over_unequal_parts(corpus):
    """The divisor is the number of masks of the whole step, not of each part."""
    model = small("ft-sam", 32)
    one, two = batches(corpus, model, 2, 3)
    half = batches(corpus, model, 1, 1)[0]
    config = TrainConfig(method="ft-sam", accumulate=2, passes=1)
    result = next(step.train_on_batches(model, [one, half], config, total_steps=1))
    assert (result.images, result.masks) == (4, 8)
    assert two.position == (0, 1)


@pytest.mark.parametrize("recipe", ["mended", "released"])
def test_bf16_trains_over_fp32_weights(corpus, recipe):
    losses = {}
    for precision in ("fp32", "bf16"):
        model = small("sam-med2d", 32)
        config = TrainConfig(recipe=recipe, precision=precision, passes=3, lr=2e-3, warmup=0)
        given = batches(corpus, model, 1, 4) * 8
        optimiser = make_optimiser(model, config)
        results = list(
            step.train_on_batches(model, given, config, total_steps=8, optimiser=optimiser)
        )
        losses[precision] = [r.loss for r in results]
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        moments = [v for s in optimiser.state.values() for v in s.values()]
        assert {m.dtype for m in moments} == {torch.float32}
    assert losses["bf16"][-1] < 0.9 * losses["bf16"][0]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], rel=0.05)


def test_groups_have_their_own_rate_and_decay(corpus):
    model = small("lora", 32)
    config = TrainConfig(
        method="lora", weight_decay=0.1, groups=("adapters:lr=0.5:decay=0", "prompt:lr=0")
    )
    optimiser = make_optimiser(model, config)
    set_rate(optimiser, 2.0)
    names = {id(p): n for n, p in model.named_parameters()}
    for group in optimiser.param_groups:
        kinds = {group_of(names[id(p)]) for p in group["params"]}
        assert kinds == {group["name"]}
        assert group["lr"] == {"adapters": 1.0, "prompt": 0.0, "decoder": 2.0}[group["name"]]
    decays = {g["name"]: g["weight_decay"] for g in optimiser.param_groups if g["weight_decay"]}
    assert decays == {"prompt": 0.1, "decoder": 0.1}
    before = {n: p.detach().clone() for n, p in trainable(model).items()}
    given = batches(corpus, model, 1, 2) * 2
    list(step.train_on_batches(model, given, config, total_steps=2, optimiser=optimiser))
    moved = {group_of(n) for n, p in trainable(model).items() if not torch.equal(p, before[n])}
    assert moved == {"adapters", "decoder"}


@pytest.mark.parametrize("text", ["heads:lr=1", "decoder", "decoder:lr=x", "prompt:rate=2"])
def test_a_wrong_group_is_a_sentence(text):
    with pytest.raises(UsageError, match="group"):
        TrainConfig(groups=(text,))
