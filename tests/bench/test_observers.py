"""A second observer: scored where there is one, 'not supported' where there is none."""

from __future__ import annotations

import copy
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_corpus

from sammed_bench import levels
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.choose import Wanted
from sammed_bench.clicks import read_clicks
from sammed_bench.rescore import rescore
from sammed_bench.scores import read_scores
from sammed_data import codecs
from sammed_data.build import build
from sammed_data.corpus import SCHEMA, Corpus

MODES = ("bbox", "mask", "1pt", "3pt", "bbox+3pt", "scribble")
OBSERVER = Wanted(label="second-observer")


def _moved(mask, by=2):
    """The same mask as somebody else draws it: two columns to the right."""
    other = copy.deepcopy(mask)
    plane = np.roll(codecs.decode_mask(mask["mask"]["bytes"]), by, axis=1)
    return other | {"annotator": 2, "mask": {"bytes": codecs.encode_mask(plane), "path": None}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Every second image has the ball by a second observer, the egg never."""
    root = tiny_corpus.write_corpus(
        tmp_path_factory.mktemp("corpus"), patients={"train": 1, "test": 2}, slices=2
    )
    manifest = json.loads((root / "manifest.json").read_text())
    for shard in manifest["shards"]:
        rows = pq.read_table(root / shard["path"]).to_pylist()
        for row in rows:
            ball = next(m for m in row["masks"] if m["structure"] == "ball")
            if row["slice_index"] == 0:
                row["masks"].append(_moved(ball))
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), root / shard["path"])
    return root


@pytest.fixture(scope="module")
def results(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "r"
    config = BenchConfig(modes=MODES, gallery=False, keep_predictions=True, batch=3, threads=1)
    bench(root, [OBSERVER, Wanted(label="oracle")], config, out=out)
    return out


def test_only_what_was_drawn_twice_is_scored(results, root):
    rows = read_scores(results)
    own = rows[rows["model"] == "second-observer"]
    assert len(own) == len(rows[rows["model"] == "oracle"]) == 8 * 2 * len(MODES)
    drawn = own["structure"].eq("ball") & own["sample_id"].str.endswith("0000")
    assert set(own.loc[drawn, "status"]) == {"ok"}
    assert set(own.loc[~drawn, "status"]) == {"unsupported"}
    assert own.loc[~drawn, "dice"].isna().all()
    expected = {}
    corpus = Corpus(root)
    for row in map(corpus.read, corpus.index(["test"])):
        planes = {m.annotator: m.mask_HW for m in row.masks if m.structure == "ball"}
        if len(planes) == 2:
            both = (planes[1] & planes[2]).sum()
            expected[row.sample_id] = 2 * both / (planes[1].sum() + planes[2].sum())
    found = own[drawn].groupby("mode")
    for _, part in found:
        assert dict(zip(part["sample_id"], part["dice"], strict=True)) == pytest.approx(expected)
    assert len(found) == len(MODES)
    assert 0.5 < min(expected.values()) < max(expected.values()) < 1


def test_click_rounds_images_and_volumes_hold_what_was_answered(results):
    clicks = read_clicks(results)
    own = clicks[clicks["model"] == "second-observer"]
    assert set(own["mask_index"]) == {1}
    assert set(own["status"]) == {"ok"}
    images = levels.read(results, "images")
    structures = images.groupby("model")["structure"].agg(set)
    assert structures["second-observer"] == {"ball"}
    assert structures["oracle"] == {"ball", "egg"}


def test_other_metrics_of_kept_answers(results, tmp_path):
    out = rescore(results, tmp_path / "again", metrics=("nsd",))
    before, after = read_scores(results), read_scores(out)
    assert before["status"].tolist() == after["status"].tolist()
    own = after[after["model"] == "second-observer"]
    assert own["nsd"].notna().equals(own["status"] == "ok")


def test_where_nobody_looked_twice_nothing_is_scored(tmp_path):
    plain = tiny_corpus.write_corpus(tmp_path / "c", patients={"train": 1, "test": 1}, slices=1)
    config = BenchConfig(modes=("bbox",), gallery=False, threads=1)
    bench(plain, [OBSERVER], config, out=tmp_path / "r")
    rows = read_scores(tmp_path / "r")
    assert set(rows.loc[rows["model"] == "second-observer", "status"]) == {"unsupported"}


def test_two_people_drew_the_vessels_of_chase(samples, tmp_path):
    if not (samples / "CHASEDB1").is_dir():
        pytest.skip("CHASEDB1 is not among the samples")
    build(None, samples, tmp_path / "corpus", only=["chase_db1"])
    corpus = Corpus(tmp_path / "corpus")
    splits = tuple({row.split for row in corpus.index()})
    config = BenchConfig(modes=("bbox",), splits=splits, gallery=False, threads=1)
    bench(corpus.root, [OBSERVER], config, out=tmp_path / "r")
    rows = read_scores(tmp_path / "r")
    own = rows[rows["model"] == "second-observer"]
    assert len(own) == 10
    assert set(own["status"]) == {"ok"}
    assert own["dice"].between(0.7, 0.9).all()
