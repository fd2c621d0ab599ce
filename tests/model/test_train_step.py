"""One step of learning: what moves, what does not, and that the split backward is the whole one."""

from __future__ import annotations

import itertools

import pytest
import torch
from small_models import small
from tiny_corpus import write_corpus

from sammed_data.corpus import Corpus, View
from sammed_data.index import open_index
from sammed_model import passes, step
from sammed_model.adapters import adapters_of, add_adapters, leave_prompts, train_only
from sammed_model.config import TrainConfig
from sammed_model.dataset import Draw
from sammed_model.embeddings import Embedder
from sammed_model.feed import Loader, TrainingSet
from sammed_model.mends import Choices
from sammed_model.meter import Meter
from sammed_model.optim import learning_rate, make_optimiser, trainable


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return Corpus(write_corpus(tmp_path_factory.mktemp("corpus"), patients={"train": 2}))


MENDED = Choices.of("mended")


def work_of(model, config):
    """A step that moves nothing: gradients stay to be looked at."""
    return step.Work(
        model=model,
        config=config,
        optimiser=torch.optim.SGD(trainable(model).values(), lr=0.0),
        embedder=Embedder(model, 0),
        meter=Meter(),
    )


def batches(corpus, model, n, images=2):
    view = View()
    rows = TrainingSet(corpus, open_index(corpus).select(corpus, ["train"], view), view=view)
    draw = Draw(masks_per_image=2, seed=0)
    loader = Loader(rows, model.preprocessing, batch_images=images, draw=draw, workers=0)
    return list(itertools.islice(loader.batches(), n))


def learn(model, config, given):
    return list(step.train_on_batches(model, given, config, total_steps=len(given)))


@pytest.mark.parametrize("recipe", ["mended", "released"])
@pytest.mark.parametrize("method", ["sam-med2d", "ft-sam", "lora", "full"])
def test_what_should_learn_moves_and_nothing_else(corpus, method, recipe):
    model = small(method)
    if recipe == "released":
        leave_prompts(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    identity = {id(p): name for name, p in model.named_parameters()}
    config = TrainConfig(method=method, recipe=recipe, steps=2, lr=1e-2, warmup=0, weight_decay=0)
    learn(model, config, batches(corpus, model, 2, images=4))
    assert {id(p): name for name, p in model.named_parameters()} == identity
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    wanted = set(trainable(model))
    assert moved <= wanted
    # Of the networks of the four mask tokens, those of the given answers learn, never token 0's.
    heads = [{n for n in wanted if f"hypernetworks_mlps.{k}." in n} for k in range(4)]
    answered = [head for head in heads if head & moved]
    assert answered
    assert not heads[0] & moved
    still = wanted - moved - set().union(*heads)
    assert all(head <= moved for head in answered)
    if recipe == "released":
        # It learns in the first pass alone, without a mask prompt; corners, if the coin said box.
        still -= {n for n in wanted if "point_embeddings" in n}
        assert not any("mask_downscaling" in n or "not_a_point" in n for n in moved)
    assert still == set()
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
    assert trainable(model).keys() == wanted


def test_backward_in_parts_is_the_backward_of_the_sum(corpus):
    """Passes run backward into a leaf; the encoder's gradient equals that of one whole graph."""
    config = TrainConfig(passes=4, steps=1)
    parts, whole = small("sam-med2d"), small("sam-med2d")
    batch = batches(corpus, parts, 1)[0]
    work = work_of(parts, TrainConfig(passes=4, clip_norm=1e9))
    step._one_step(work, [batch], 0, len(batch.masks_M1SS))
    session = passes.Session(batch, MENDED, config.passes)
    embedding = whole.encode(batch.images_B3SS)
    losses = [
        step._loss(config, batch, logits, iou)
        for logits, iou in passes.predictions(whole, embedding, session)
    ]
    torch.stack(losses).mean().backward()
    for name, parameter in trainable(whole).items():
        other = trainable(parts)[name].grad
        if parameter.grad is None:
            assert other is None, name
        else:
            torch.testing.assert_close(other, parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_loss_falls_and_steps_repeat(corpus):
    runs = []
    for _ in range(2):
        model = small("full")
        given = batches(corpus, model, 3) * 6
        results = learn(model, TrainConfig(steps=18, lr=2e-3, passes=3, warmup=3), given)
        runs.append([r.loss for r in results])
    assert runs[0] == runs[1]
    assert sum(runs[0][-3:]) < 0.95 * sum(runs[0][:3])


def test_embeddings_of_a_frozen_encoder_are_kept_within_the_budget(corpus):
    model = small("ft-sam")
    batch = batches(corpus, model, 1)[0]
    expected = model.encode(batch.images_B3SS)
    for budget, kept in ((1 << 20, 2), (64 * 64 * 4, 1), (0, 0)):
        embedder = Embedder(model, budget)
        assert not embedder.learns
        for _ in range(2):
            torch.testing.assert_close(embedder(batch), expected, rtol=1e-4, atol=1e-5)
        assert len(embedder._cache) == kept


def test_prompts_of_a_session(corpus):
    model = small("ft-sam")
    batch = batches(corpus, model, 1, images=12)[0]
    session = passes.Session(batch, MENDED, 9)
    kinds = session.first()
    assert sum(len(g.prompts) for g in kinds) == len(batch.masks_M1SS) == 24
    assert [g.prompts.boxes_M4 is None for g in kinds] == [False, True]
    logits = torch.ones_like(batch.masks_M1SS, dtype=torch.float32)
    feedback = torch.zeros(24, 1, 32, 32)
    alone = [n for n in range(1, 9) if session.later(n, logits, feedback)[0].index_M is None]
    assert len(alone) == 2
    assert alone[1] == 8
    assert 2 <= alone[0] < 8
    groups = session.later(1, logits, feedback)
    assert {g.prompts.points_MN2.shape[1] for g in groups} == {1, 3, 5, 9}
    for group in groups:
        # All is predicted as object: every error is a false positive, none lies in the padding.
        assert (group.prompts.point_labels_MN == 0).all()
        valid = batch.valid_B1SS[group.prompts.image_index_M, 0]
        for points, inside in zip(group.prompts.points_MN2.long(), valid, strict=True):
            assert inside[points[:, 1], points[:, 0]].all()
    one = passes.Session(batch, Choices.of("released"), 9)
    assert len(one.first()) == 1
    assert len(one.later(1, logits, feedback)) == 1


def test_groups_come_back_in_the_order_of_the_batch(corpus):
    model = small("ft-sam")
    batch = batches(corpus, model, 1, images=4)[0]
    session = passes.Session(batch, MENDED, 9)
    with torch.no_grad():
        embedding = model.encode(batch.images_B3SS)
        together, _ = passes.decode(model, embedding, session.first())
        for group in session.first():
            alone = model.decode(embedding, group.prompts).best()[0]
            torch.testing.assert_close(together[group.index_M], alone, rtol=1e-4, atol=1e-5)


def test_ignored_pixels_and_padding_carry_no_loss(corpus):
    model = small("ft-sam")
    batch = batches(corpus, model, 1)[0]
    logits = torch.full(batch.masks_M1SS.shape, 0.3)
    logits.requires_grad_(True)
    iou = torch.zeros(len(logits))
    step._loss(TrainConfig(), batch, logits, iou).backward()
    outside = ~batch.valid_B1SS[batch.image_index_M]
    assert outside.any()
    assert (logits.grad[outside] == 0).all()
    assert (logits.grad[~outside] != 0).all()


def test_schedules():
    config = TrainConfig(lr=1.0, warmup=4)
    rates = [learning_rate(config, s, s / 40) for s in range(41)]
    assert rates[:3] == sorted(rates[:3])
    assert rates[0] < 0.3
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[40] == pytest.approx(0.02)
    steps = TrainConfig(lr=1.0, warmup=0, schedule="step")
    assert [learning_rate(steps, 9, p) for p in (0.5, 0.6, 0.9)] == [1, 0.5, 0.25]


def test_vectors_are_not_decayed():
    model = small("ft-sam")
    groups = make_optimiser(model, TrainConfig(weight_decay=0.1)).param_groups
    assert [(g["name"], g["weight_decay"]) for g in groups] == [
        ("prompt", 0.1),
        ("prompt", 0.0),
        ("decoder", 0.1),
        ("decoder", 0.0),
    ]
    assert all((p.ndim > 1) == (g["weight_decay"] > 0) for g in groups for p in g["params"])
    released = make_optimiser(model, TrainConfig(weight_decay=0.1, recipe="released"))
    assert {g["weight_decay"] for g in released.param_groups} == {0.0}


def test_gains_that_start_at_zero_learn_faster():
    """At the common rate Adam would leave a fresh adapter all but shut."""
    for zero_init, factors in ((True, {1.0: 6, 10.0: 6}), (False, {1.0: 12})):
        model = small("ft-sam")
        add_adapters(model, zero_init=zero_init)
        train_only(model, "sam-med2d")
        gains = {id(a.norm.weight) for a in adapters_of(model)}
        biases = {id(a.norm.bias) for a in adapters_of(model)}
        found = {}
        for group in make_optimiser(model, TrainConfig()).param_groups:
            own = sum(id(p) in gains | biases for p in group["params"])
            if own:
                found[group["factor"]] = own
                assert group["factor"] == 1 or {id(p) for p in group["params"]} == gains
        assert found == factors
