"""Embeddings on disk: the same numbers, bounded, and not fooled by half files or other weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from tiny_corpus import write_corpus

from sammed_data.types import UsageError
from sammed_model.adapters import train_only
from sammed_model.config import TrainConfig
from sammed_model.embeddings import Embedder, EmbeddingFolder
from sammed_model.frame import Preprocessing
from sammed_model.sam import build_sam, spec_for
from sammed_model.train import train

BYTES = 64 * 4 * 4 * 4 + 4


def tiny(seed=0):
    model = build_sam(spec_for("vit_tiny", image_size=32), seed)
    train_only(model, "ft-sam")
    return model


def images(n=3):
    return torch.arange(n * 3 * 32 * 32).reshape(n, 3, 32, 32).float().mul(0.37).sin()


def embedder(root, model, *, limit=1 << 20, precision="fp32"):
    return Embedder(model, 0, EmbeddingFolder(root, model, precision, limit))


def files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file())


def test_found_again_by_content_and_not_computed(tmp_path):
    model = tiny()
    expected = model.encode(images())
    first = embedder(tmp_path, model)
    made = first.embed(images(), ("a", "b", "c"))
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
    assert first.encoded == 3
    assert len(files(tmp_path)) == 3
    again = embedder(tmp_path, model)
    assert torch.equal(again.embed(images(), ("x", "y", "z")), made)  # names do not count
    assert again.encoded == 0
    changed = images()
    changed[1, 0, 0, 0] += 1
    again.embed(changed, ("a", "b", "c"))
    assert again.encoded == 1


def test_other_weights_conventions_and_precisions_are_other_folders(tmp_path):
    model = tiny()
    folders = {EmbeddingFolder(tmp_path, model, p, 0).folder for p in ("fp32", "bf16")}
    folders.add(EmbeddingFolder(tmp_path, tiny(seed=1), "fp32", 0).folder)
    with torch.no_grad():
        next(model.mask_decoder.parameters()).add_(1)
    folders.add(EmbeddingFolder(tmp_path, model, "fp32", 0).folder)  # decoders do not count
    assert len(folders) == 3
    model.preprocessing = Preprocessing.named("released", 32)
    folders.add(EmbeddingFolder(tmp_path, model, "fp32", 0).folder)
    assert len(folders) == 4


def test_half_files_are_made_again(tmp_path):
    model = tiny()
    made = embedder(tmp_path, model).embed(images(), ("a", "b", "c"))
    cut, flipped, empty = files(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-9])
    data = bytearray(flipped.read_bytes())
    data[40] ^= 1
    flipped.write_bytes(data)
    empty.write_bytes(b"")
    again = embedder(tmp_path, model)
    assert torch.equal(again.embed(images(), ("a", "b", "c")), made)
    assert again.encoded == 3
    healed = embedder(tmp_path, model)
    healed.embed(images(), ("a", "b", "c"))
    assert healed.encoded == 0


def test_the_folder_is_bounded_and_left_overs_go(tmp_path):
    model = tiny()
    embedder(tmp_path, model, limit=2 * BYTES + 10).embed(images(), ("a", "b", "c"))
    assert len(files(tmp_path)) == 2
    assert sum(p.stat().st_size for p in files(tmp_path)) == 2 * BYTES
    embedder(tmp_path, model, limit=2 * BYTES + 10).embed(images(), ("a", "b", "c"))
    assert len(files(tmp_path)) == 2  # what is there counts
    half = files(tmp_path)[0].with_name("ab.1234.partial")
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    embedder(tmp_path, model)
    assert not half.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--cache-embeddings"):
        EmbeddingFolder(tmp_path / "file", model, "fp32", 0)


def test_runs_with_and_without_are_the_same(tmp_path):
    corpus = write_corpus(
        tmp_path / "corpus", patients={"train": 2, "validation": 1}, size=(30, 40), slices=1
    )
    quick = {
        "method": "ft-sam", "init": "random", "image_size": 32, "steps": 5, "passes": 2,
        "batch_images": 2, "validation_images": 2, "modes": ("bbox", "1pt"),
    }  # fmt: skip
    logs = []
    for n, folder in enumerate((None, str(tmp_path / "kept"), str(tmp_path / "kept"))):
        done = train(
            corpus, TrainConfig(**quick, cache_embeddings=folder), runs=tmp_path / f"runs{n}"
        )
        lines = map(json.loads, (done.folder / "log.jsonl").read_text().splitlines())
        logs.append([{k: v for k, v in line.items() if k != "images_per_s"} for line in lines])
    assert logs[0] == logs[1] == logs[2]
    assert len(files(tmp_path / "kept")) == 6  # four trained on, two validated on
    for wrong in ({"method": "lora"}, {"method": "ft-sam", "augment": "light"}):
        with pytest.raises(UsageError, match="--cache-embeddings"):
            TrainConfig(cache_embeddings="x", **wrong)
