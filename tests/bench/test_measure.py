"""Rows hold what was asked for: units, failures, tables of all metrics."""

from __future__ import annotations

import math

import bench_fakes
import numpy as np
import pytest
import tiny_corpus

from sammed_bench import scores
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.conditions import Conditions
from sammed_bench.metric_cards import METRICS, parse_metrics
from sammed_bench.metric_tables import metric_tables
from sammed_bench.models import Oracle
from sammed_bench.report import write_report
from sammed_bench.run import bench_corpus
from sammed_bench.surface import Ruler, surface_scores
from sammed_data.corpus import Corpus
from sammed_data.types import UsageError

ALL = tuple(METRICS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    return Corpus(tiny_corpus.write_corpus(root, patients={"train": 1, "test": 2}, slices=2))


def _rows(corpus, model, out, **more):
    conditions = Conditions(
        corpus_sha256=corpus.content_hash, splits=("test",), modes=("bbox",), **more
    )
    bench_corpus(corpus, model, conditions, out=out)
    return scores.read_scores(out)


def test_what_is_not_asked_is_null(corpus, tmp_path):
    rows = _rows(corpus, bench_fakes.Bright(), tmp_path)
    assert rows[["nsd", "hd95", "boundary_iou", "surface_unit"]].isna().all(axis=None)
    assert metric_tables(rows) == []
    some = _rows(corpus, bench_fakes.Bright(), tmp_path / "2", metrics=("dice", "iou", "hd95"))
    assert some[["hd95", "surface_unit"]].notna().all(axis=None)
    assert some[["nsd", "boundary_iou"]].isna().all(axis=None)
    assert some["dice"].equals(rows["dice"])


def test_rows_hold_the_metrics_in_mm(corpus, tmp_path):
    rows = _rows(corpus, bench_fakes.Bright(), tmp_path, metrics=ALL, tolerance=3.0)
    assert set(rows["surface_unit"]) == {"mm"}
    assert set(rows["status"]) == {"ok"}
    perfect = _rows(corpus, Oracle(), tmp_path / "oracle", metrics=ALL)
    for name, card in METRICS.items():
        best = 0 if card.better == "down" else 1
        assert (perfect[name] == best).all()
        assert not (rows[name] == best).all()
    first = corpus.read(corpus.index(["test"])[0])
    truth = first.masks[0].mask_HW
    ruler = Ruler.of(first.meta["spacing_y_mm"], first.meta["spacing_x_mm"])
    assert ruler.spacing_yx == (1.5, 1.25)
    moved = np.roll(truth, 2, axis=1)
    assert surface_scores(moved, truth, ruler)["hd95"] == pytest.approx(2.5)


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_failures_score_worst_in_every_metric(corpus, tmp_path, how):
    rows = _rows(corpus, bench_fakes.Broken(how=how), tmp_path, metrics=ALL)
    failed = rows[rows["status"] == "failed"]
    assert len(failed)
    assert (failed[["dice", "iou", "nsd", "boundary_iou"]] == 0).all(axis=None)
    diagonal = [
        math.hypot(1.5 * h, 1.25 * w)
        for h, w in zip(failed["height"], failed["width"], strict=True)
    ]
    assert failed["hd95"].tolist() == pytest.approx(diagonal)


def test_unsupported_is_no_score(corpus, tmp_path):
    rows = _rows(corpus, bench_fakes.Bright(accepts=("point",)), tmp_path, metrics=ALL)
    assert set(rows["status"]) == {"unsupported"}
    assert rows[[*ALL, "surface_unit"]].isna().all(axis=None)


def test_tables_keep_units_apart(corpus, tmp_path):
    rows = _rows(corpus, bench_fakes.Bright(), tmp_path, metrics=ALL)
    pixels = rows["sample_id"] == rows["sample_id"].iloc[0]
    rows.loc[pixels, "surface_unit"] = "px"
    overall, by_modality = metric_tables(rows)
    everything = [row for row in overall.rows if row["view"] == "all"]
    assert [row["surface_unit"] for row in everything] == ["mm", "px"]
    for row in everything:
        part = rows[rows["surface_unit"] == row["surface_unit"]]
        assert row["masks"] == len(part)
        for name in METRICS:
            assert row[f"{name}_mean"] == pytest.approx(part[name].mean())
            assert row[f"{name}_low"] is None
    counts = [row["masks"] for row in by_modality.rows if row["view"] == "all"]
    assert sum(counts) == len(rows)
    assert set(overall.columns) >= {"hd95_mean", "hd95_low", "hd95_high"}


def test_names_of_metrics():
    assert parse_metrics("hd95, nsd") == ("dice", "iou", "nsd", "hd95")
    assert parse_metrics("") == ("dice", "iou")
    assert METRICS["hd95"].heading == "HD95 \u2193"
    assert METRICS["nsd"].heading == "NSD % \u2191"
    with pytest.raises(UsageError, match="'hd96'.*hd95"):
        parse_metrics("dice,hd96")
    with pytest.raises(UsageError, match="--tolerance"):
        BenchConfig(tolerance=0.0)


def test_the_report_shows_all_metrics_with_their_direction(corpus, tmp_path):
    config = BenchConfig(modes=("bbox",), metrics=("nsd", "hd95"), splits=("test",), gallery=False)
    made = bench(corpus.root, [Oracle()], config, out=tmp_path / "r")
    write_report(made.out)
    shown = (made.out / "report" / "report.md").read_text()
    assert "| NSD % \u2191 |" in shown
    assert "| HD95 \u2193 |" in shown
    assert "| mm | bbox | oracle |" in shown
    assert "NSD within 2 mm or px" in shown
    assert (made.out / "report" / "tables" / "metrics-by-modality.csv").is_file()
