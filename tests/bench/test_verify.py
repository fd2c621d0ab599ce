"""``verify``: honest results hold, altered ones are caught as often as computed."""

from __future__ import annotations

import json
import shutil

import bench_fakes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_corpus
from scipy import stats
from typer.testing import CliRunner

import sammed
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.choose import Wanted
from sammed_bench.models import Oracle
from sammed_bench.openings import write
from sammed_bench.scores import read_scores
from sammed_bench.suite_freeze import Asked, freeze
from sammed_bench.suite_run import configured
from sammed_bench.verify import differences, draw, verify
from sammed_bench.verify_bound import caught, upper_bound
from sammed_bench.verify_models import load_models
from sammed_data.corpus import Corpus
from sammed_data.types import CorpusError, ModelError, UsageError
from sammed_model.checkpoint import save_model
from sammed_model.sam import build_sam, spec_for

MODES = ("bbox", "1pt", "3pt")
BRIGHT = Wanted(label="bright", factory="bench_fakes:make_bright")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus, its suite, and results of two models and the baselines."""
    folder = tmp_path_factory.mktemp("verify")
    root = folder / "corpus"
    tiny_corpus.write_corpus(root, patients={"train": 2, "test": 12}, slices=1, size=(24, 36))
    corpus = Corpus(root)
    asked = Asked(modes=MODES, splits=("test",))
    suite = freeze(corpus, asked, name="mine")
    config = configured(suite, corpus, BenchConfig(gallery=False, threads=1, batch=5))
    bench(root, [BRIGHT, Oracle()], config, out=folder / "r")
    return folder


@pytest.fixture
def results(made, tmp_path):
    return shutil.copytree(made / "r", tmp_path / "r")


def _verify(results, **more):
    more = {"seed": 1, "models": {"oracle": Oracle()}} | more
    return verify(results, **more)


def _edit(results, change, where="scores", only="part-bright-*"):
    """Rewrite the rows of some parts."""
    for path in sorted((results / where).glob(only)):
        table = pq.read_table(path)
        rows = change(table.to_pylist())
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_honest_results_hold(results):
    verdict = _verify(results, sample=60, strict=True)
    assert verdict.problems == ()
    assert verdict.outliers == ()
    assert verdict.ok
    assert verdict.rows == _scored(results) >= 480
    assert verdict.sentence == (
        f"0 of 60 rows differ: at most {100 * upper_bound(0, 60, verdict.rows):.1f} % of "
        f"{verdict.rows} rows are misreported at 95 %"
    )


def _scored(results):
    """Rows with a score."""
    return int((read_scores(results)["status"] != "unsupported").sum())


def _alter(results, share, seed=0):
    """Better scores in some rows of the bright model that had room for it, in accord."""
    rng = np.random.default_rng(seed)
    rows = read_scores(results)
    usable = rows[(rows["model"] == "bright") & (rows["iou"] < 0.8)]
    count = round(share * _scored(results))
    picked = usable.iloc[rng.choice(len(usable), count, replace=False)]
    names = set(zip(picked["sample_id"], picked["mask_index"], picked["mode"], strict=True))

    def change(rows):
        for row in rows:
            if (row["sample_id"], row["mask_index"], row["mode"]) in names:
                row["iou"] = row["iou"] + 0.1
                row["dice"] = 2 * row["iou"] / (1 + row["iou"])
        return rows

    rounds = {(s, m, int(mode[:-2])) for s, m, mode in names if mode.endswith("pt")}

    def change_rounds(rows):  # else the click table would tell at once
        for row in rows:
            if (row["sample_id"], row["mask_index"], row["round"]) in rounds:
                row["iou"] = row["iou"] + 0.1
                row["dice"] = 2 * row["iou"] / (1 + row["iou"])
        return rows

    _edit(results, change)
    _edit(results, change_rounds, "clicks")
    return count


def test_five_per_cent_altered_are_caught(results):
    count = _alter(results, 0.05)
    assert count == round(0.05 * _scored(results))
    verdict = _verify(results, sample=200)
    assert not verdict.ok
    assert verdict.problems == ()
    assert len(verdict.outliers) > verdict.allowed == 4
    assert verdict.bound > 0.05
    assert set(verdict.outliers[0].differs) == {"dice", "iou"}
    assert {outlier.model for outlier in verdict.outliers} == {"bright"}


def test_alterations_are_caught_as_often_as_computed(results):
    before = read_scores(results)
    count = _alter(results, 0.05)
    rows = read_scores(results)
    bad = (before["iou"] != rows["iou"]) & rows["iou"].notna()
    scored = rows["status"] != "unsupported"
    altered = rows.assign(bad=bad)[scored].reset_index(drop=True)
    assert altered["bad"].sum() == count
    hits = sum(draw(altered, 60, seed)["bad"].sum() > 1 for seed in range(400))
    computed = caught(0.05, 60, len(altered), 1)
    assert 0.8 < computed < 0.9
    low, high = stats.binom.ppf([0.001, 0.999], 400, computed)
    assert low <= hits <= high


def test_the_bound_is_exact():
    assert upper_bound(0, 200, 10**9) == pytest.approx(1 - 0.05 ** (1 / 200), abs=1e-5)
    assert upper_bound(3, 50, 50) == 3 / 50
    assert upper_bound(0, 0, 50) == 1
    assert upper_bound(0, 50, 50) == 0
    for differing, sample, rows in ((0, 20, 90), (2, 20, 90), (20, 20, 90)):
        most = round(upper_bound(differing, sample, rows) * rows)
        assert stats.hypergeom.cdf(differing, rows, most, sample) > 0.05
        beyond = stats.hypergeom.cdf(differing, rows, most + 1, sample)
        assert most == rows - (sample - differing) or beyond <= 0.05
    assert caught(0.05, 200, 10**6, 4) == pytest.approx(stats.binom.sf(4, 200, 0.05), abs=1e-3)


def test_scores_that_contradict_each_other_are_seen_in_every_row(results):
    def lift(rows):
        rows[0]["dice"] = min(1.0, rows[0]["dice"] + 0.01)
        return rows

    _edit(results, lift)
    verdict = _verify(results, sample=1, seed=3)
    assert any("1 rows have a Dice that is not that of their IoU" in p for p in verdict.problems)
    assert any("their round in the click table" in p for p in verdict.problems)
    assert not verdict.ok


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[2:], r"2 rows are missing: bright, ellipses_a"),
        (lambda rows: [rows[0], *rows], "1 rows are there more than once: bright"),
        (lambda rows: [r | {"organ": "spleen"} for r in rows], "144 rows have another organ"),
        (lambda rows: [r | {"in_view": not r["in_view"]} for r in rows], "another in_view"),
        (lambda rows: [r | {"weights_sha256": "f" * 64} for r in rows], "have weights_sha256 ffff"),
        (lambda rows: [r | {"protocol_hash": "0" * 64} for r in rows], "rows have protocol_hash"),
        (lambda rows: [r | {"mode": "5pt"} for r in rows[:1]] + rows[1:], "belong to no mask"),
        (lambda rows: [r | {"status": "failed"} for r in rows], "above 0 though they failed"),
    ],
)
def test_rows_that_were_tampered_with(results, change, said):
    _edit(results, change)
    verdict = _verify(results, sample=2)
    assert any(said in problem for problem in verdict.problems), verdict.problems
    assert not verdict.ok


def test_a_click_table_that_is_gone_is_said(results):
    next((results / "clicks").glob("part-bright-*")).unlink()
    assert any("96 rows have no round" in p for p in _verify(results, sample=1).problems)
    shutil.rmtree(results / "clicks")
    assert any("click table of" in p for p in _verify(results, sample=1).problems)


def test_other_weights_than_recorded_are_said(results):
    verdict = _verify(
        results, sample=5, models={"oracle": Oracle(), "bright": bench_fakes.Bright(digest="2")}
    )
    assert "bright has weights_sha256 2 here, bench.json says 1" in verdict.problems[0]
    assert verdict.rows == _scored(results) - 144
    with pytest.raises(ModelError, match=r"none of oracle \(.*--skip LABEL"):
        verify(results)
    with pytest.raises(UsageError, match="found 'nobody'"):
        verify(results, skip=["nobody"])
    left = verify(results, sample=5, skip=["oracle"])
    assert left.ok
    assert left.skipped == ("oracle",)


def test_prompts_that_were_changed_are_seen(results):
    path = next((results / "prompts").glob("*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        if row["box"]:
            row["box"][2] += 1
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    verdict = _verify(results, sample=2)
    assert any("other contents than its hash says" in p for p in verdict.problems)
    write(path, rows)  # with the hash mended the draw itself tells
    verdict = _verify(results, sample=2)
    assert any("have hash" in p for p in verdict.problems)
    assert any("are not those that sam-med2d draws" in p for p in verdict.problems)
    path.unlink()
    assert any("are missing" in p for p in _verify(results, sample=2).problems)


def test_results_without_a_list_of_models_are_found_by_their_source(results, tmp_path):
    record = json.loads((results / "bench.json").read_text())
    weights = tmp_path / "w.safetensors"
    save_model(build_sam(spec_for("vit_tiny"), 0, kind="sam"), weights)
    entry = {"name": "tiny", "kind": "sam", "recipe": "released weights", "source": str(weights)}
    record["models"] = [entry | {"weights_sha256": "0" * 64}]
    record["settings"]["models"] = []
    found = load_models(record, Corpus(record["settings"]["corpus"]), "cpu", {}, [])
    assert "tiny has weights_sha256" in found["tiny"].problems[0]
    record["models"][0]["source"] = "elsewhere"
    with pytest.raises(ModelError, match="does not say where it came from"):
        load_models(record, Corpus(record["settings"]["corpus"]), "cpu", {}, [])


def test_a_suite_that_was_bent_is_seen(results, made):
    path = results / "suite.yaml"
    text = path.read_text()
    path.write_text(text.replace("images: 12", "images: 11", 1))
    assert any("suite.yaml has digest" in p for p in _verify(results, sample=1).problems)
    path.unlink()
    assert any("suite.yaml is missing" in p for p in _verify(results, sample=1).problems)
    record = results / "bench.json"
    found = json.loads(record.read_text())
    found["conditions"]["corpus_sha256"] = "0" * 64
    record.write_text(json.dumps(found))
    with pytest.raises(CorpusError, match="expected the corpus 000000000000"):
        _verify(results)


def test_tolerances():
    row = {"dice": 0.5, "iou": 0.3, "nsd": None, "hd95": 100.0, "boundary_iou": float("nan")}
    row |= dict.fromkeys(("noc80", "noc85", "noc90", "noc_reached", "click_auc"))
    row |= {"n_clicks": 1, "status": "ok"}
    assert not differences(row, row | {"dice": 0.50009, "hd95": 100.009, "boundary_iou": None})
    assert set(differences(row, row | {"dice": 0.5002})) == {"dice"}
    assert set(differences(row, row | {"nsd": 0.1, "n_clicks": 2})) == {"nsd", "n_clicks"}
    assert differences(row, row | {"status": "failed"}) == {"status": ("ok", "failed")}


def test_the_verb_exits_with_one_on_altered_rows(results):
    def call(*more):
        asked = ["bench", "verify", str(results), "--seed", "5", "--sample", "60"]
        return CliRunner().invoke(sammed.app, [*asked, "--skip", "oracle", *more])

    good = call()
    assert good.exit_code == 0, (good.output, good.exception)
    assert "0 of 60 rows differ: at most" in good.output
    assert "the results hold" in good.output
    _alter(results, 0.2)
    bad = call()
    assert bad.exit_code == 1
    assert "differs: bright, " in bad.output
    assert "the results do NOT hold" in bad.output
    plain = call("--json")
    assert plain.exit_code == 1
    found = json.loads(plain.stdout)
    assert found["ok"] is False
    assert found["outliers"][0]["model"] == "bright"
