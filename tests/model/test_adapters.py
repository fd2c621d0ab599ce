"""Adapters: their arithmetic, how they come and go, and what trains."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from sammed_data.types import ModelError
from sammed_model.adapters import (
    Adapter,
    adapters_of,
    add_adapters,
    drop_adapters,
    has_adapters,
    train_only,
)
from sammed_model.checkpoint import weight_digest
from sammed_model.sam import build_sam, spec_for
from sammed_model.types import Prompts


@pytest.fixture
def plain():
    return build_sam(spec_for("vit_tiny", image_size=64), seed=4)


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_arithmetic_written_out():
    adapter = Adapter(16)
    adapter.reset(zero_init=False)
    n = torch.randn(2, 6, 10, 16, generator=torch.Generator().manual_seed(1))
    w = dict(adapter.named_parameters())
    pooled = n.mean(dim=(1, 2))
    gate = (pooled @ w["channel.0.weight"].T).relu() @ w["channel.2.weight"].T
    gated = (n * gate.sigmoid()[:, None, None]).permute(0, 3, 1, 2)
    half = functional.conv2d(gated, w["spatial.0.weight"], stride=2, padding=1).relu()
    full = functional.conv_transpose2d(half, w["spatial.2.weight"], stride=2, padding=1).relu()
    # The skip adds the input before the gate.
    summed = n + full.permute(0, 2, 3, 1)
    centred = summed - summed.mean(dim=-1, keepdim=True)
    want = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(adapter(n), want, atol=1e-5)


def test_eps_and_names_are_the_published_ones():
    adapter = Adapter(768)
    assert adapter.norm.eps == 1e-5
    assert {n: tuple(p.shape) for n, p in adapter.named_parameters()} == {
        "norm.weight": (768,),
        "norm.bias": (768,),
        "channel.0.weight": (192, 768),
        "channel.2.weight": (768, 192),
        "spatial.0.weight": (768, 768, 3, 3),
        "spatial.2.weight": (768, 768, 4, 4),
    }


def test_an_odd_grid_keeps_its_size():
    adapter = Adapter(8)
    adapter.reset(zero_init=False)
    assert adapter(torch.randn(1, 5, 7, 8)).shape == (1, 5, 7, 8)


def test_released_initialisation_is_kaiming_fan_out():
    adapter = Adapter(128)
    adapter.reset(zero_init=False)
    conv = adapter.spatial[0].weight
    assert float(conv.detach().std()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.05)
    assert torch.equal(adapter.norm.weight, torch.ones(128))


def test_a_fresh_adapter_disturbs_sam_unless_it_starts_at_zero(plain, x):
    with torch.inference_mode():
        before = plain.encode(x)
        add_adapters(plain, zero_init=True)
        assert torch.equal(plain.encode(x), before)
        released = add_adapters(drop_adapters(plain), zero_init=False)
        assert (released.encode(x) - before).norm() / before.norm() > 0.1


def test_zero_start_still_learns(plain, x):
    add_adapters(plain, zero_init=True)
    train_only(plain, "sam-med2d")
    plain.encode(x).square().mean().backward()
    adapter = next(adapters_of(plain))
    assert adapter.norm.weight.grad.abs().max() > 0


def test_dropping_returns_to_the_base(plain, x):
    digest = weight_digest(plain)
    with torch.inference_mode():
        before = plain.encode(x)
        add_adapters(plain)
        assert has_adapters(plain)
        assert plain.spec.adapters == "sam-med2d"
        assert weight_digest(plain) != digest
        drop_adapters(plain)
        assert torch.equal(plain.encode(x), before)
    assert plain.spec.adapters == "none"
    assert not has_adapters(plain)
    assert weight_digest(plain) == digest
    drop_adapters(plain)


def test_seed_decides_and_the_global_stream_is_left(plain):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    made = [weight_digest(add_adapters(copy.deepcopy(plain), seed=s)) for s in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    assert made[0] == made[1] != made[2]


def moved_by_a_step(model, x):
    """Top-level parts and adapters that an optimiser over everything moves."""
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    index = torch.tensor([0, 1, 1])
    points = torch.rand(3, 3, 2) * 60
    labels = torch.tensor([[1, 0, -1]] * 3)
    low = 4 * model.spec.embedding_size
    for given in (
        {"points_MN2": points, "point_labels_MN": labels, "mask_M1hw": torch.rand(3, 1, low, low)},
        {"boxes_M4": torch.tensor([[4.0, 5, 40, 50]] * 3)},
    ):
        output = model.decode(model.encode(x), Prompts(image_index_M=index, **given))
        (output.low_res_MKhw.square().mean() + output.iou_MK.square().mean()).backward()
    optimiser.step()
    return {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}


@pytest.mark.parametrize("method", ["sam-med2d", "ft-sam", "full"])
def test_a_method_trains_its_parts_and_nothing_else(plain, x, method):
    add_adapters(plain, zero_init=False)
    names = set(train_only(plain, method))
    assert names == {n for n, p in plain.named_parameters() if p.requires_grad}
    moved = moved_by_a_step(plain, x)
    assert moved <= names
    adapters = {n for n in names if ".adapter." in n}
    encoder = {n for n in names if n.startswith("image_encoder.")}
    assert bool(adapters) is (method != "ft-sam")
    assert encoder == adapters or method == "full"
    # What the published code never trained: the prompt encoder's own embeddings.
    prompt = {n for n in names if n.startswith("prompt_encoder.")}
    assert prompt <= moved
    assert any(n.startswith("mask_decoder.transformer.") for n in moved)
    assert plain.kind == ("sam" if method == "full" else method)


def test_parts_are_chosen_by_object_not_by_name(plain):
    """A module of the encoder that is called like an adapter stays frozen."""
    add_adapters(plain)
    plain.image_encoder.Adapter = torch.nn.Linear(2, 2)
    assert not any("encoder.Adapter" in n for n in train_only(plain, "sam-med2d"))


def test_refusals(plain):
    with pytest.raises(ModelError, match="found none: add_adapters first"):
        train_only(plain, "sam-med2d")
    with pytest.raises(ModelError, match="did you mean"):
        train_only(plain, "ftsam")
    add_adapters(plain)
    with pytest.raises(ModelError, match="drop them first"):
        add_adapters(plain)
