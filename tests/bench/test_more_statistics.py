"""Holm, probabilities, ranks, seeds, and what stands beside a mean."""

from __future__ import annotations

import json

import bench_fakes
import numpy as np
import pandas as pd
import pytest
import tiny_corpus

from sammed_bench import ranks, seeds, speed, tables, worst
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.report import write_report
from sammed_bench.scores import read_scores
from sammed_bench.seen_tables import seen_table, stamps
from sammed_bench.statistics import cluster_interval, holm, local_generator, zero_probability


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None], nan_ok=True)
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_probability_agrees_with_the_interval():
    who = np.repeat(np.arange(30), 3)
    different = 0
    for trial in range(60):
        rng = local_generator("p", trial)
        values = rng.normal(0.02, 0.05, 30)[who] + rng.normal(0, 0.05, 90)
        found = cluster_interval(values, who, key=str(trial))
        p = zero_probability(values, who, key=str(trial))
        outside = found.low > 0 or found.high < 0
        # More draws are taken where p is small: only a value near 5 % may fall on either side.
        assert (p <= 0.05) == outside or 0.03 < p < 0.08
        different += outside
    assert 10 < different < 60
    assert zero_probability(np.zeros(90), who) == 1
    assert zero_probability(np.ones(9), who[:9]) is None


def _rows(n_patients, levels, seed=0):
    rng = np.random.default_rng(seed)
    made = [
        {
            "model": model, "kind": "sam", "mode": "bbox", "split": "test", "dataset": "d",
            "modality": "ct" if p % 3 else "mr", "sequence": "", "patient_id": f"p{p}",
            "case_id": "", "cluster": "patient", "sample_id": f"d/{p}", "mask_index": m,
            "structure": "s", "organ": "o", "group": "abdomen", "kind_of_structure": "organ",
            "area_fraction": 0.1 if m else 0.001, "in_view": bool(m), "status": "ok",
            "recipe": "tiny", "seed": 0, "iou": 0.5,
            "dice": float(np.clip(level + rng.normal(0, 0.05), 0, 1)),
        }
        for model, level in levels.items() for p in range(n_patients) for m in range(2)
    ]  # fmt: skip
    return pd.DataFrame(made)


def test_ranks_are_sure_where_models_are_apart_and_unsure_where_they_are_not():
    made = tables.prepare(_rows(40, {"worse": 0.5, "twin a": 0.8, "twin b": 0.8}))
    lines = {line["model"]: line for line in ranks.rank_table(made).rows}
    assert lines["worse"]["rank"] == lines["worse"]["rank_low"] == lines["worse"]["rank_high"] == 3
    assert {lines["twin a"]["rank_low"], lines["twin b"]["rank_low"]} == {1}
    assert {lines["twin a"]["rank_high"], lines["twin b"]["rank_high"]} == {2}
    assert lines["twin a"]["first"] + lines["twin b"]["first"] == pytest.approx(1)
    few = ranks.rank_table(tables.prepare(_rows(8, {"a": 0.5, "b": 0.8}))).rows
    assert [line["rank_low"] for line in few] == [None, None]
    assert ranks.ranks(np.array([[0.5, 0.7, 0.5]])).tolist() == [[2.5, 1, 2.5]]


def test_the_worst_group_stands_beside_the_mean_and_few_patients_name_none():
    rows = _rows(24, {"a": 0.8})
    rows.loc[rows["modality"] == "mr", "dice"] -= 0.3
    rows.loc[rows["patient_id"].isin(["p1", "p2"]), ["dataset", "dice"]] = ["few", 0.0]
    long = tables.all_tables(rows)
    lines = {line["by"]: line for line in worst.worst_table(long).rows}
    low, mean = rows[rows["modality"] == "mr"]["dice"].mean(), rows["dice"].mean()
    assert set(lines) == {"modality", "size"}  # one organ; the second dataset has two patients
    assert lines["modality"]["worst"] == "mr"
    assert lines["modality"]["dice"] == pytest.approx(low)
    assert lines["modality"]["difference"] == pytest.approx(low - mean)
    assert lines["modality"]["patients"] == 8
    assert worst.worst_table(tables.all_tables(_rows(4, {"a": 0.8}))).rows == []


def test_a_method_is_three_training_seeds():
    levels = {f"run{i}": 0.7 + 0.05 * i for i in range(3)}
    made = tables.prepare(_rows(20, levels))
    records = [{"model": m, "method": "x", "training_seed": i} for i, m in enumerate(levels)]
    (line,) = seeds.seed_table(made, records).rows
    means = made.groupby("model")["dice"].mean()
    assert (line["result_of"], line["training_seeds"], line["prompt_seeds"]) == ("method", 3, 1)
    assert line["sd_training"] == pytest.approx(means.std())
    assert line["dice"] == pytest.approx(means.mean())
    assert line["sd_prompts"] is None
    (two,) = seeds.seed_table(made[made["model"] != "run2"], records[:2]).rows
    assert two["result_of"] == "weights"


def test_two_kinds_of_seeds_are_taken_apart():
    rng = np.random.default_rng(3)
    training, prompts = rng.normal(0, 0.04, 12), rng.normal(0, 0.01, 10)
    made = [
        {"sample_id": f"s{p}", "mask_index": 0, "patient": p, "seed": s, "training": t,
         "dice": 0.7 + training[t] + prompts[s] + rng.normal(0, 0.002)}
        for t in range(12) for s in range(10) for p in range(20)
    ]  # fmt: skip
    rows = pd.DataFrame(made)
    found = seeds.components(rows, rows["training"].to_numpy())
    assert found["sd_training"] == pytest.approx(training.std(ddof=1), rel=0.05)
    assert found["sd_prompts"] == pytest.approx(prompts.std(ddof=1), rel=0.05)


def test_what_a_view_leaves_out_and_the_mean_of_modalities():
    rows = _rows(20, {"a": 0.5})
    by_view = {r["view"]: r for r in tables.long_table(tables.prepare(rows), "overall").rows}
    assert (by_view["all"]["left_out"], by_view["sam-med2d"]["left_out"]) == (0, 0.5)
    assert by_view["all"]["dice_over_modalities"] == pytest.approx(
        rows.groupby("modality")["dice"].mean().mean()
    )
    assert by_view["all"]["modalities"] == 2


def test_stamps_name_what_is_not_clean():
    base = {"set": "test", "why": "because"}
    records = [
        base | {"model": "m", "dataset": "a", "state": "seen", "stamp": "in-sample"},
        base | {"model": "m", "dataset": "b", "state": "not seen", "stamp": ""},
        base | {"model": "u", "dataset": "a", "state": "unknown", "stamp": "unknown"},
    ]
    assert stamps(records, ["m", "u", "lost"]) == (
        "Training data: in-sample: m (a); unknown: u (every dataset), lost (nothing recorded)."
    )
    first, second = seen_table(records, ["m", "u", "lost"]).rows
    assert (first["m"], first["u"], first["lost"]) == ("seen (in-sample)", "unknown", "unknown")
    assert (second["m"], second["because"]) == ("not seen", "")


def test_a_report_has_them_all_and_speed_is_not_in_the_rows(tmp_path):
    root = tiny_corpus.write_corpus(
        tmp_path / "c", patients={"train": 1, "test": 8, "held_out": 1}, slices=2
    )
    models = [bench_fakes.Bright(), bench_fakes.Bright("second", digest="2"), bench_fakes.Broken()]
    config = BenchConfig(modes=("bbox",), gallery=False, speed=True, keep_predictions=True)
    out = bench(root, models, config, out=tmp_path / "r").out
    report = write_report(out)
    names = {table.name for table in report.long}
    assert {"ranks", "by-image", "by-volume", "contamination", "speed"} <= names
    measured = {entry["model"]: entry for entry in speed.read(out)}
    assert set(measured) == {"bright", "second"}
    one = measured["bright"]
    assert 0 < one["image_ms_p50"] <= one["image_ms_p90"] <= one["image_ms_p99"]
    assert one["peak_mb"] > 0
    assert not {"peak_mb", "image_ms_p50"} & set(read_scores(out).columns)
    page = (out / "report" / "report.html").read_text()
    assert "unknown: bright (every dataset)" in page
    assert "Speed beside accuracy" in page
    plain = json.loads((out / "report" / "tables.json").read_text())
    assert {table["name"] for table in plain["tables"]} >= {"by-volume-and-structure", "speed"}
