"""LoRA: silent at first, merged exactly, with names that stay; and what runs leave of it."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tiny_corpus import write_corpus

from sammed_data.types import ModelError
from sammed_model.adapters import train_only
from sammed_model.checkpoint import load_model, save_model, weight_digest
from sammed_model.config import TrainConfig
from sammed_model.lora import PARTS, LowRankQkv, add_lora, lora_of, merge_lora
from sammed_model.naming import published_state
from sammed_model.sam import build_sam, spec_for
from sammed_model.train import train


def tiny(seed=0, kind="sam"):
    return build_sam(spec_for("vit_tiny", image_size=32), seed, kind=kind)


def images(n=2):
    return torch.arange(n * 3 * 32 * 32).reshape(n, 3, 32, 32).float().mul(0.37).sin()


def test_fresh_lora_changes_nothing_and_keeps_names_and_objects():
    model = tiny()
    before = {name: id(p) for name, p in model.named_parameters()}
    expected = model.encode(images())
    add_lora(model, rank=3, alpha=6.0)
    after = {name: id(p) for name, p in model.named_parameters()}
    assert {n: after[n] for n in before} == before
    added = after.keys() - before.keys()
    assert added == {
        f"image_encoder.blocks.{b}.attn.qkv.{part}" for b in range(6) for part in PARTS
    }
    assert published_state(model).keys() >= added
    torch.testing.assert_close(model.encode(images()), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="merge it first"):
        add_lora(model, rank=3, alpha=6.0)


@pytest.mark.parametrize("fast", [True, False])
def test_merged_weights_give_the_same_embeddings(fast):
    model = add_lora(tiny(), rank=2, alpha=8.0, seed=4)
    model.fast = fast
    with torch.no_grad():
        for layer in lora_of(model):
            for part in ("lora_q_b", "lora_v_b"):
                getattr(layer, part).add_(0.05)
    expected = model.encode(images())
    keys = [layer.weight[128:256].clone() for layer in lora_of(model)]
    merged = merge_lora(copy.deepcopy(model))
    torch.testing.assert_close(merged.encode(images()), expected, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(m, LowRankQkv) for m in merged.modules())
    assert merged.state_dict().keys() == tiny().state_dict().keys()
    for block, key in zip(merged.image_encoder.blocks, keys, strict=True):
        assert torch.equal(block.attn.qkv.weight[128:256], key)  # keys are not touched
    plain = tiny().encode(images())
    assert (expected - plain).abs().max() > 1e-2


def test_kinds_after_a_method():
    model = tiny()
    with pytest.raises(ModelError, match="add_lora"):
        train_only(model, "lora")
    names = train_only(add_lora(model, rank=2, alpha=4.0), "lora")
    assert model.kind == "sam"
    assert {n for n in names if n.startswith("image_encoder")} == {
        n for n, _ in model.named_parameters() if ".lora_" in n
    }
    box_only = tiny(kind="medsam")
    train_only(box_only, "full")
    assert box_only.kind == "ft-sam"


def test_a_run_leaves_merged_weights_and_the_parts_alone(tmp_path):
    corpus = write_corpus(
        tmp_path / "corpus", patients={"train": 2, "validation": 1}, size=(30, 40), slices=1
    )
    start = tmp_path / "start.safetensors"
    save_model(tiny(), start, recipe="tiny")
    config = TrainConfig(
        method="lora", lora_rank=2, lora_alpha=4.0, init=str(start), image_size=32, steps=4,
        passes=2, batch_images=2, validation_images=1, lr=1e-2, warmup=0, modes=("bbox", "1pt"),
    )  # fmt: skip
    done = train(corpus, config, runs=tmp_path / "runs")
    assert done.folder.name == "001-lora"
    merged = load_model(done.weights)
    assert merged.kind == "sam"
    assert "lora" not in merged.metadata
    parts = load_model(done.folder / "trained.safetensors")
    assert weight_digest(parts) == weight_digest(merged)
    record = json.loads((done.folder / "run.json").read_text())
    assert record["weights_sha256"] == weight_digest(merged)
    assert record["base_sha256"] == weight_digest(load_model(start))
    other = tmp_path / "other.safetensors"
    save_model(tiny(seed=9), other, recipe="tiny")
    with pytest.raises(ModelError, match="the base it was trained on"):
        load_model(done.folder / "trained.safetensors", base=other)
