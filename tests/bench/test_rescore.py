"""Kept predictions give the same rows again, and metrics that were not asked for then."""

from __future__ import annotations

import bench_fakes
import pandas as pd
import pytest
import tiny_corpus

from sammed_bench import levels
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.models import Oracle
from sammed_bench.rescore import rescore
from sammed_bench.scores import read_scores
from sammed_data.types import CorpusError, UsageError


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rescore")
    tiny_corpus.write_corpus(folder / "c", patients={"train": 1, "test": 2}, slices=2)
    models = [
        bench_fakes.Bright(), bench_fakes.Bright("boxes", accepts=("box",), digest="2"),
        bench_fakes.Broken(), bench_fakes.Broken("nan", how="nan"), Oracle(),
    ]  # fmt: skip

    def run(name, **more):
        config = BenchConfig(modes=("bbox", "3pt", "clicks:3"), gallery=False, **more)
        return bench(folder / "c", models, config, out=folder / name).out

    plain = run("plain", keep_predictions=True)
    both = run("both", metrics=("dice", "iou", "nsd", "hd95"), tolerance=1.5)
    return folder, plain, both


def test_the_same_metrics_are_the_same_rows(kept, tmp_path):
    _, plain, _ = kept
    again = rescore(plain, tmp_path / "again")
    pd.testing.assert_frame_equal(read_scores(again), read_scores(plain))
    for level in levels.LEVELS:
        pd.testing.assert_frame_equal(levels.read(again, level), levels.read(plain, level))
    names = [sorted(p.name for p in (r / "scores").iterdir()) for r in (plain, again)]
    assert names[0] == names[1]


def test_other_metrics_need_no_model(kept, tmp_path):
    _, plain, both = kept
    wanted = ("dice", "iou", "nsd", "hd95")
    again = rescore(plain, tmp_path / "more", metrics=wanted, tolerance=1.5)
    pd.testing.assert_frame_equal(read_scores(again), read_scores(both))
    with pytest.raises(UsageError, match="give another --out"):
        rescore(plain, again)


def test_a_finished_benchmark_gets_its_predictions_when_they_are_asked_for(kept):
    folder, _, both = kept
    with pytest.raises(UsageError, match="--keep-predictions"):
        rescore(both, folder / "x")


def test_another_corpus_is_refused(kept, tmp_path):
    _, plain, _ = kept
    root = tiny_corpus.write_corpus(tmp_path / "other", patients={"test": 1}, slices=1)
    with pytest.raises(CorpusError, match="name it with --corpus"):
        rescore(plain, tmp_path / "x", corpus_root=root)
