"""One decoder call for prompts of different lengths: the numbers of a call for each length."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_models import small
from test_no_waiting import batch_of, work_of

from sammed_model import passes, step
from sammed_model.config import TrainConfig
from sammed_model.optim import trainable
from sammed_model.sam import build_sam, spec_for
from sammed_model.two_way import two_way
from sammed_model.types import DecoderOutput, Prompts

SIDE, LOW, IMAGES = 64, 32, 3
# (clicks, box, mask prompt) of each group.
CASES = {
    "clicks": [(1, False, False), (9, False, False), (3, False, False), (5, False, False)],
    "clicks+mask": [(3, False, True), (1, False, True), (9, False, True)],
    "clicks+box": [(1, True, False), (5, True, False), (3, True, False)],
    "clicks+box+mask": [(9, True, True), (1, True, True)],
    "box or clicks": [(0, True, False), (1, False, False), (3, False, False)],
    "all kinds": [(0, False, True), (0, True, False), (3, True, True), (5, False, False)],
}


@pytest.fixture(scope="module")
def model():
    spec = replace(spec_for("vit_tiny", image_size=SIDE), decoder_depth=3)
    return build_sam(spec, seed=5)


def group(m: int, clicks: int, box: bool, mask: bool, seed: int) -> Prompts:
    """Random prompts of one kind and length; some clicks are void."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    corner = uniform(m, 2) * 20
    return Prompts(
        image_index_M=(uniform(m) * IMAGES).long(),
        points_MN2=uniform(m, clicks, 2) * SIDE if clicks else None,
        point_labels_MN=(uniform(m, clicks) * 3).long() - 1 if clicks else None,
        boxes_M4=torch.cat([corner, corner + 9 + 30 * uniform(m, 2)], 1) if box else None,
        mask_M1hw=uniform(m, 1, LOW, LOW) if mask else None,
    )


def groups_of(case: str) -> list[Prompts]:
    return [group(2 + n % 2, *kind, seed=n) for n, kind in enumerate(CASES[case])]


def apart(model, embedding, groups) -> DecoderOutput:
    """A decoder call for each group, through upstream's transformer."""
    made = [model.decode(embedding, g) for g in groups]
    return DecoderOutput(
        low_res_MKhw=torch.cat([o.low_res_MKhw for o in made]),
        iou_MK=torch.cat([o.iou_MK for o in made]),
    )


def apart_in_order(model, embedding, groups):
    """What ``passes.decode`` gives by a call for each group."""
    best = [model.decode(embedding, g.prompts).best() for g in groups]
    low, iou = (torch.cat(parts) for parts in zip(*best, strict=True))
    index = [g.index_M for g in groups if g.index_M is not None]
    order = torch.cat(index).argsort() if index else slice(None)
    return low[order], iou[order]


def distance(got, want) -> float:
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("case", CASES)
def test_padded_prompts_answer_and_learn_as_each_length_alone(model, case):
    groups = groups_of(case)
    images = torch.linspace(-1, 1, IMAGES * 64 * 8 * 8).view(IMAGES, 64, 8, 8).sin()
    moved = []
    for way in (model.decode_together, lambda e, g: apart(model, e, g)):
        model.zero_grad(set_to_none=True)
        embedding = images.clone().requires_grad_()
        output = way(embedding, groups)
        weight = torch.arange(1, output.iou_MK.numel() + 1).view_as(output.iou_MK).cos()
        low = output.low_res_MKhw * weight[:, :, None, None]
        (low.square().mean() + low.sum() + (output.iou_MK * weight).sum()).backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        moved.append((output, gradients | {"embedding": embedding.grad}))
    (got, its), (want, others) = moved
    assert got.low_res_MKhw.shape == (sum(map(len, groups)), 4, LOW, LOW)
    assert distance(got.low_res_MKhw, want.low_res_MKhw) < 1.5e-6
    assert distance(got.iou_MK, want.iou_MK) < 1.5e-6
    assert its.keys() == others.keys()
    largest = max(float(g.abs().max()) for g in others.values())
    for name, gradient in its.items():
        assert float((gradient - others[name]).abs().max()) < 3e-6 * largest, name


def test_what_pads_is_never_seen():
    """Not to rounding: whatever lies in the padding, the numbers are the same, and it gets none."""
    model = build_sam(spec_for("vit_tiny", image_size=SIDE), seed=5)
    transformer = model.mask_decoder.transformer
    generator = torch.Generator().manual_seed(3)
    src, pe = (torch.randn(n, 64, 4, 6, generator=generator) for n in (3, 1))
    bias = torch.zeros(3, 11)
    bias[0, 7:] = bias[2, 9:] = float("-inf")
    pads = torch.isinf(bias)
    tokens = torch.randn(3, 11, 64, generator=generator)
    found = []
    for fill in (0.0, 1e3):
        given = tokens.masked_fill(pads[..., None], fill).requires_grad_()
        hidden, image = two_way(transformer, src, pe, given, bias)
        (hidden[~pads].square().sum() + image.square().sum()).backward()
        assert not given.grad[pads].any()
        found.append((hidden[~pads], image, given.grad[~pads]))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_without_padding_it_is_upstreams_transformer(model):
    transformer = model.mask_decoder.transformer
    generator = torch.Generator().manual_seed(3)
    src, pe = (torch.randn(n, 64, 4, 6, generator=generator) for n in (3, 1))
    tokens = torch.randn(3, 11, 64, generator=generator)
    with torch.no_grad():
        wanted = transformer(src, pe, tokens)
        found = two_way(transformer, src, pe, tokens, torch.zeros(3, 11))
    for got, want in zip(found, wanted, strict=True):
        assert distance(got, want) < 1.5e-6


def test_bf16_is_near_float32(model):
    groups = groups_of("clicks+mask")
    embedding = torch.linspace(-1, 1, IMAGES * 64 * 8 * 8).view(IMAGES, 64, 8, 8).sin()
    with torch.no_grad():
        full = model.decode_together(embedding, groups)
        with torch.autocast("cpu", torch.bfloat16):
            half = model.decode_together(embedding, groups)
    assert distance(half.low_res_MKhw.float(), full.low_res_MKhw) < 3e-2


def step_of(model, passes_: int):
    config = TrainConfig(passes=passes_, steps=1, clip_norm=1e9)
    work = work_of(model, config)
    losses, _ = step._one_step(work, [batch_of()], 0, 12)
    return losses, {n: p.grad for n, p in trainable(model).items()}


def test_a_step_is_that_of_a_call_for_each_number_of_clicks(monkeypatch):
    losses, gradients = step_of(small("sam-med2d"), 7)
    monkeypatch.setattr(passes, "decode", apart_in_order)
    wanted, others = step_of(small("sam-med2d"), 7)
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-6)
    largest = max(float(g.abs().max()) for g in others.values() if g is not None)
    for name, gradient in others.items():
        assert (gradients[name] is None) == (gradient is None), name
        if gradient is not None:
            assert float((gradients[name] - gradient).abs().max()) < 1e-4 * largest, name


@pytest.mark.parametrize(("fast", "most"), [(True, 1), (False, 4)])
def test_a_pass_is_one_call_of_the_decoder(monkeypatch, fast, most):
    model = small("ft-sam")
    model.fast = fast
    calls = []
    upscaling = model.mask_decoder.output_upscaling
    upscaling.register_forward_hook(lambda *_: calls.append(1))
    batch = batch_of()
    session = passes.Session(batch, TrainConfig().choices, 4)
    counted = []
    with torch.no_grad():
        embedding = model.encode(batch.images_B3SS)
        for _ in passes.predictions(model, embedding, session):
            counted.append(len(calls))
            calls.clear()
    assert max(counted) == most
    assert counted[-1] == 1
