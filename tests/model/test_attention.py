"""The fast encoder path against upstream's forward: the same numbers, the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch

from sammed_model import attention
from sammed_model.adapters import Adapter, adapters_of, add_adapters
from sammed_model.attention import adapter_fast, attention_fast, encode_fast
from sammed_model.checkpoint import load_model, save_model
from sammed_model.sam import SamModel, build_sam, spec_for
from sammed_model.types import SamSpec

LIVE = 1.5e-6


def narrow(image_size, window=14):
    """A SAM of few channels whose grids and windows are those of the large ones."""
    return SamSpec(
        name="narrow",
        image_size=image_size,
        embed_dim=48,
        depth=3,
        num_heads=3,
        global_attn_indexes=(1,),
        window_size=window,
        out_chans=16,
        decoder_heads=2,
        decoder_mlp_dim=16,
        iou_hidden=8,
    )


# Grid 16 in windows of 14 has all four sorts of window; 28 is whole; 9 is less than one; 15 is odd
# with adapters; 40 has several whole windows in a row.
SPECS = {
    "16 in 14": narrow(256),
    "28 in 14": narrow(448),
    "9 in 14": narrow(144),
    "15 in 4": narrow(240, window=4),
    "40 in 14": narrow(640),
    "vit_tiny": spec_for("vit_tiny"),
    "vit_tiny at 72 px": spec_for("vit_tiny", image_size=72),
}


def random_model(spec, adapters):
    """No weight is zero, as the position tables of a fresh model are."""
    model = build_sam(spec, seed=1)
    if adapters:
        add_adapters(model, seed=2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.image_encoder.named_parameters():
            spread = 0.5 if "rel_pos" in name else 0.05
            parameter += spread * torch.randn(parameter.shape, generator=generator)
    return model


def distance(got, want):
    return float((got.double() - want.double()).norm() / want.double().norm())


def gradients(encode, encoder, x):
    encoder.zero_grad()
    x = x.clone().requires_grad_()
    out = encode(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
    (out * weights).sum().backward()
    return out.detach(), {n: p.grad.clone() for n, p in encoder.named_parameters()}, x.grad


@pytest.mark.parametrize("adapters", [False, True], ids=["plain", "adapters"])
@pytest.mark.parametrize("name", SPECS)
def test_values_and_gradients_are_upstreams(name, adapters):
    spec = SPECS[name]
    model = random_model(spec, adapters)
    side = spec.image_size
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(4))
    encoder = model.image_encoder
    wanted, grads, grad_x = gradients(encoder, encoder, x)
    assert model.fast
    got, fast_grads, fast_grad_x = gradients(model.encode, encoder, x)
    assert distance(got, wanted) < LIVE
    # Sums over all tokens and, back through the blocks, of many roundings.
    assert distance(fast_grad_x, grad_x) < 2 * LIVE
    assert fast_grads.keys() == grads.keys()
    whole = torch.cat([g.flatten() for g in grads.values()])
    for n, grad in grads.items():
        # A bias of keys has no effect on a softmax without padding: its gradient is rounding alone.
        assert (fast_grads[n] - grad).norm() < max(5 * LIVE * grad.norm(), 1e-6 * whole.norm()), n
    with torch.inference_mode():
        assert distance(model.encode(x), wanted) < LIVE
        model.fast = False
        assert torch.equal(model.encode(x), encoder(x))


@pytest.mark.parametrize("hw", [(16, 16), (17, 30), (5, 14), (29, 3)])
def test_windows_on_grids_that_are_not_square(hw):
    block = random_model(narrow(256), adapters=False).image_encoder.blocks[0]
    n = torch.randn(2, *hw, 48, generator=torch.Generator().manual_seed(6))
    from segment_anything.modeling.image_encoder import window_partition, window_unpartition

    with torch.inference_mode():
        tiles, padded = window_partition(n, 14)
        wanted = window_unpartition(block.attn(tiles), 14, padded, hw)
        assert distance(attention_fast(block.attn, n, 14), wanted) < LIVE


def test_a_wrapped_projection_is_asked_for_its_padding():
    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    block = random_model(narrow(256), adapters=False).image_encoder.blocks[0]
    n = torch.randn(1, 16, 16, 48, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        before = attention_fast(block.attn, n, 14)
        block.attn.qkv = Wrapped(block.attn.qkv)
        assert distance(attention_fast(block.attn, n, 14), before) < LIVE


@pytest.mark.parametrize("fuse", [False, True])
def test_fused_and_written_out_attention_agree(monkeypatch, fuse):
    model = random_model(narrow(256), adapters=False)
    x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(attention, "_fuse", lambda q: fuse)
    wanted, grads, _ = gradients(model.image_encoder, model.image_encoder, x)
    got, fast, _ = gradients(model.encode, model.image_encoder, x)
    assert distance(got, wanted) < LIVE
    name = "blocks.0.attn.rel_pos_h"
    assert distance(fast[name], grads[name]) < 5 * LIVE
    with torch.inference_mode():
        assert distance(encode_fast(model.image_encoder, x), wanted) < LIVE


@pytest.mark.parametrize("hw", [(6, 10), (5, 7), (1, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_adapter_products_equal_convolutions_in_any_layout(hw, layout):
    adapter = Adapter(16)
    adapter.reset(zero_init=False)
    adapter.spatial.to(memory_format=layout)
    n = torch.randn(3, *hw, 16, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        assert distance(adapter_fast(adapter, n), adapter(n)) < LIVE


def ordered(model):
    return all(
        adapter.spatial[i].weight.is_contiguous(memory_format=torch.channels_last)
        for adapter in adapters_of(model)
        for i in (0, 2)
    )


def test_weights_lie_as_the_products_read_them_wherever_a_model_comes_from(tmp_path):
    spec = spec_for("vit_tiny", adapters="sam-med2d")
    model = build_sam(spec)
    save_model(model, tmp_path / "model.safetensors")
    assert ordered(model)
    assert ordered(copy.deepcopy(model))
    assert ordered(load_model(tmp_path / "model.safetensors"))


def test_weights_that_change_are_seen():
    model = random_model(spec_for("vit_tiny"), adapters=True)
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(8))
    with torch.inference_mode():
        before = model.encode(x)
        # Behind autograd's back: no version counter moves.
        next(adapters_of(model)).spatial[0].weight.data.mul_(-1)
        after = model.encode(x)
        assert distance(after, before) > 1e-3
        assert distance(after, model.image_encoder(x)) < LIVE


def test_bf16_autocast_stays_as_near_as_upstreams():
    model: SamModel = random_model(spec_for("vit_tiny"), adapters=True)
    x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        wanted = model.image_encoder(x)
        with torch.autocast("cpu", torch.bfloat16):
            theirs = distance(model.image_encoder(x), wanted)
            ours = distance(model.encode(x), wanted)
    assert ours < max(1.5e-2, 1.3 * theirs)
