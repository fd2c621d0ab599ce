"""Saved predictions: an nnU-Net run on our export comes back as a model without prompts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_corpus

from sammed_bench.bench import BenchConfig, bench
from sammed_bench.choose import load, parse_model
from sammed_bench.scores import read_scores
from sammed_data.codecs import encode_image
from sammed_data.corpus import Corpus
from sammed_data.export import safe_name
from sammed_data.types import ModelError


@pytest.fixture
def saved(tmp_path):
    """Truth as index maps, the smaller on top; one image is missing, one of another size."""
    root = tiny_corpus.write_corpus(tmp_path / "c", patients={"train": 1, "test": 2}, slices=2)
    corpus = Corpus(root)
    folder = tmp_path / "predicted"
    folder.mkdir()
    labels = {"background": 0, "ball": 1, "egg": 2}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    rows = [corpus.read(row) for row in corpus.index(["test"])]
    for number, row in enumerate(rows):
        index = np.zeros((row.height, row.width), np.uint8)
        for mask in sorted(row.masks, key=lambda m: -m.area_px):
            index[mask.mask_HW] = labels[mask.structure]
        index = index[1:] if number == 1 else index
        if number:
            (folder / f"{safe_name(row.sample_id)}.png").write_bytes(encode_image(index))
    return root, folder, rows


def test_index_maps_come_back_as_a_model_in_every_mode(saved, tmp_path):
    root, folder, samples = saved
    wanted = parse_model(f"nnunet=predictions:{folder}")
    config = BenchConfig(modes=("bbox", "3pt", "mask"), gallery=False, baselines=False, speed=True)
    result = bench(root, [wanted], config, out=tmp_path / "r")
    rows = read_scores(result.out)
    missing, cut = (row.sample_id for row in samples[:2])
    lost = rows["sample_id"].isin([missing, cut])
    assert result.failed == lost.sum() == 2 * 2 * 3
    assert (rows.loc[lost, "dice"] == 0).all()
    assert rows.loc[rows["sample_id"] == missing, "error"].str.contains("found none").all()
    assert rows.loc[rows["sample_id"] == cut, "error"].str.contains("pixels in").all()
    assert rows.loc[~lost, "dice"].mean() > 0.9
    assert set(rows["recipe"]) == {"no prompt"}
    modes = [rows.loc[rows["mode"] == mode, "dice"].tolist() for mode in ("bbox", "3pt", "mask")]
    assert modes[0] == modes[1] == modes[2]


def test_a_folder_that_cannot_be_used_is_named(saved, tmp_path):
    _, folder, _ = saved
    (folder / "dataset.json").unlink()
    with pytest.raises(ModelError, match=r"dataset\.json"):
        load(parse_model(f"x=predictions:{folder}"), "cpu")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "dataset.json").write_text('{"labels": {"a": 1}}')
    with pytest.raises(ModelError, match="index maps"):
        load(parse_model(f"x=predictions:{tmp_path / 'empty'}"), "cpu")
