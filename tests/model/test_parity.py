"""The published code's numbers, on weights made from names (tests/golden)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_fill import PROMPTS_256, golden, image_tensor, weights

from sammed_model.adapters import drop_adapters
from sammed_model.attention import block_fast
from sammed_model.decode import encode_prompts
from sammed_model.naming import load_published, published_name, published_state
from sammed_model.sam import SamModel, spec_for
from sammed_model.types import Prompts

STORED = 5e-6
LIVE = 1.5e-6


def filled(spec):
    with torch.device("meta"):
        model = SamModel(spec)
    shapes = {k: tuple(v.shape) for k, v in published_state(model).items()}
    load_published(model, weights(shapes), Path("golden"))
    return model.eval()


def distance(got, want):
    got = got.detach().double().flatten()
    want = torch.as_tensor(np.asarray(want)).double().flatten()
    return float((got - want).norm() / want.norm())


@pytest.fixture(scope="module")
def sam_med2d():
    return filled(spec_for("vit_b", image_size=256, adapters="sam-med2d"))


def run(model, fast):
    """The embedding, and mean / std / norm of each block's output."""
    encoder, stats = model.image_encoder, []
    with torch.inference_mode():
        x = encoder.patch_embed(image_tensor(256)) + encoder.pos_embed
        for block in encoder.blocks:
            x = block_fast(block, x) if fast else block(x)
            stats.append([float(v) for v in (x.mean(), x.double().std(), x.double().norm())])
        return encoder.neck(x.permute(0, 3, 1, 2)), np.array(stats)


def check(model, embedding, stats, want, prefix, names):
    assert distance(embedding, want[prefix + "embedding"]) < STORED
    # Norms are sums of many; means nearly cancel and are compared on the scale of the spread.
    stored = want[prefix + "block_stats_mean_std_norm"]
    assert np.allclose(stats[:, 2], stored[:, 2], rtol=STORED)
    assert (np.abs(stats - stored)[:, :2] < 2e-5 * stored[:, 1:2]).all()
    for name in names:
        prompts = Prompts(image_index_M=torch.zeros(1, dtype=torch.int64), **PROMPTS_256[name])
        with torch.inference_mode():
            output = model.decode(embedding, prompts)
            sparse, dense = encode_prompts(model.prompt_encoder, prompts)
        at = f"{prefix}{name}/"
        assert distance(output.low_res_MKhw, want[at + "low_res_logits"]) < STORED
        assert distance(output.iou_MK, want[at + "iou"]) < STORED
        if at + "sparse" in want and want[at + "sparse"].size:
            assert distance(sparse, want[at + "sparse"]) < STORED
        if at + "dense" in want:
            assert distance(dense[:, ::8], want[at + "dense"]) < STORED
        if at + "chosen_token" in want:
            assert int(output.chosen()) == int(want[at + "chosen_token"])


@pytest.mark.parametrize("fast", [False, True])
def test_sam_med2d_gives_the_published_numbers(sam_med2d, fast):
    want = golden("sammed2d_vitb256")
    check(sam_med2d, *run(sam_med2d, fast), want, "", ("box", "point1", "mask"))
    assert distance(sam_med2d.prompt_encoder.get_dense_pe()[:, ::8], want["dense_pe"]) < STORED


@pytest.mark.parametrize("fast", [False, True])
def test_sam_gives_upstreams_numbers_once_adapters_are_dropped(sam_med2d, fast):
    """Weights come from names, so the model without its adapters is the golden SAM."""
    adapted = [block.mlp for block in sam_med2d.image_encoder.blocks]
    try:
        drop_adapters(sam_med2d)
        want = golden("sam_vitb256")
        check(sam_med2d, *run(sam_med2d, fast), want, "256/", ("box", "point1"))
    finally:
        for block, mlp in zip(sam_med2d.image_encoder.blocks, adapted, strict=True):
            block.mlp = mlp
        sam_med2d.spec = dataclasses.replace(sam_med2d.spec, adapters="sam-med2d")


def test_names_are_the_published_ones(sam_med2d):
    names = list(published_state(sam_med2d))
    assert len(names) == 386
    assert sum(".Adapter." in name for name in names) == 72
    assert "image_encoder.blocks.11.Adapter.spatial.2.weight" in names
    assert published_name("mask_decoder.iou_token.weight") == "mask_decoder.iou_token.weight"


@pytest.mark.slow
def test_at_1024_px_the_model_equals_live_upstream():
    from segment_anything import build_sam_vit_b

    model = filled(spec_for("vit_b"))
    live = build_sam_vit_b().eval()
    live.load_state_dict(published_state(model), strict=False)
    box = torch.tensor([[192.0, 240, 720, 800]])
    with torch.inference_mode():
        x = image_tensor(1024)
        embedding, wanted = model.encode(x), live.image_encoder(x)
        assert distance(embedding, wanted) < LIVE
        prompts = Prompts(image_index_M=torch.zeros(1, dtype=torch.int64), boxes_M4=box)
        output = model.decode(embedding, prompts)
        sparse, dense = live.prompt_encoder(points=None, boxes=box, masks=None)
        pe = live.prompt_encoder.get_dense_pe()
        low, iou = live.mask_decoder.predict_masks(wanted, pe, sparse, dense)
    assert distance(output.low_res_MKhw, low) < LIVE
    assert distance(output.iou_MK, iou) < LIVE
