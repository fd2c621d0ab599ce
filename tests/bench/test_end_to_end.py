"""A whole benchmark on phantoms: all modes, good and broken models, tables made again by pandas."""

from __future__ import annotations

import csv
import io

import bench_fakes
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sammed_bench import tables, text
from sammed_bench.baselines import TRIVIAL_NAMES
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.models import Oracle, SamBench
from sammed_bench.modes import MODES, parse_modes
from sammed_bench.scores import read_scores
from sammed_data.build import build
from sammed_data.phantom import write_phantoms
from sammed_model.sam import build_sam, spec_for

ALL = parse_modes(",".join((*MODES, "clicks:4")))
HOWS = ("raise", "shape", "nan")
METRICS = ("dice", "iou", "nsd", "hd95", "boundary_iou")


def _models():
    """Two of the family, two that look at the picture, the truth, three that are broken."""
    small = spec_for("vit_tiny", image_size=64)
    family = [SamBench(build_sam(small, i, kind=k), k) for i, k in enumerate(("sam", "sam-med2d"))]
    fakes = [bench_fakes.Bright(), bench_fakes.Bright("boxes-only", accepts=("box",), digest="2")]
    return [*family, *fakes, Oracle(), *(bench_fakes.Broken(f"broken-{how}", how) for how in HOWS)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("end-to-end")
    write_phantoms(root / "raw", n_patients=4, only=("phantom_ct", "phantom_derm"))
    build(root / "raw" / "catalogs", root / "raw" / "data", root / "corpus")
    config = BenchConfig(modes=ALL, metrics=METRICS, gallery=False, threads=1, batch=4, limit=2)
    bench(root / "corpus", _models(), config, out=root / "r")
    return root / "r"


@pytest.fixture(scope="module")
def rows(results):
    """Straight from the files: no code of the benchmark in between."""
    parts = [pq.read_table(path).to_pandas() for path in sorted((results / "scores").glob("*"))]
    return pd.concat(parts, ignore_index=True)


def test_every_model_has_a_row_for_every_mask_and_mode(rows, results):
    names = {m.facts.name for m in _models()} | set(TRIVIAL_NAMES)
    assert set(rows["model"]) == names
    counts = rows.groupby(["model", "mode"]).size()
    assert len(counts) == len(names) * len(ALL)
    assert counts.nunique() == 1
    assert counts.iloc[0] > 10
    assert len(read_scores(results)) == len(rows)


def test_the_oracle_is_right_everywhere(rows):
    own = rows[rows["model"] == "oracle"]
    assert set(own["status"]) == {"ok"}
    assert (own[["dice", "iou", "nsd", "boundary_iou"]] == 1).all(axis=None)
    assert (own["hd95"] == 0).all()
    dialogue = own[own["mode"] == "clicks:4"]
    assert (dialogue[["noc80", "noc85", "noc90", "click_auc"]] == 1).all(axis=None)


def test_broken_models_are_counted_and_worst(rows):
    for how in ("raise", "shape"):
        own = rows[rows["model"] == f"broken-{how}"]
        assert set(own["status"]) == {"failed"}
        assert (own[["dice", "iou", "nsd", "boundary_iou"]] == 0).all(axis=None)
        assert (own["hd95"] >= np.hypot(own["height"], own["width"]) * 0.5).all()
        assert own["error"].str.len().gt(0).all()
    nan = rows[rows["model"] == "broken-nan"]
    first = nan.groupby("sample_id")["mask_index"].transform("min")
    assert (nan["status"] == "failed").equals(nan["mask_index"] == first)
    assert (nan.loc[nan["status"] == "failed", "dice"] == 0).all()
    scored = rows[rows["status"] != "unsupported"]
    means = scored.groupby(["mode", "model"])["dice"].mean().unstack()
    assert (means["broken-raise"] == 0).all()
    assert means.min(axis=1).equals(means["broken-raise"].rename(None))
    assert (means["oracle"] == means.max(axis=1)).all()


def test_what_is_not_supported_is_no_zero(rows, results):
    own = rows[rows["model"] == "boxes-only"]
    answered = own["mode"] == "bbox"
    assert set(own.loc[answered, "status"]) == {"ok"}
    assert set(own.loc[~answered, "status"]) == {"unsupported"}
    assert own.loc[~answered, "dice"].isna().all()
    lines = [line for line in _lines(results, "overall") if line["model"] == "boxes-only"]
    assert {line["mode"] for line in lines if line["dice"]} == {"bbox"}
    assert {line["recipe"] for line in lines if not line["dice"]} == {"not supported"}


def test_every_mode_has_a_trivial_baseline(rows):
    trivial = rows[(rows["kind"] == "trivial") & (rows["status"] == "ok")]
    assert set(trivial["mode"]) == set(ALL)


def _lines(results, name):
    """A table as the report writes it to CSV."""
    table = tables.long_table(tables.prepare(read_scores(results)), name)
    return list(csv.DictReader(io.StringIO(text.csv_text(table))))


# Table -> the column of score rows that it groups by.
COLUMNS = {"overall": None, "modality": "modality", "dataset": "dataset", "structure": "structure"}


@pytest.mark.parametrize("name", COLUMNS)
def test_tables_are_those_of_pandas(rows, results, name):
    column = COLUMNS[name]
    made = rows.assign(set=rows["split"], stratum=rows[column] if column else "")
    parts = {}
    for view, kept in (("all", made), ("sam-med2d", made[made["in_view"]])):
        for key, part in kept.groupby(["set", "stratum", "mode"]):
            parts[view, *key] = part
    seen = 0
    for line in _lines(results, name):
        part = parts[line["view"], line["set"], line[name] if column else "", line["mode"]]
        own = part[part["model"] == line["model"]]
        scored = own[own["status"] != "unsupported"]
        assert int(line["masks"]) == len(own)
        assert int(line["patients"]) == len(own[["dataset", "patient_id"]].drop_duplicates())
        assert int(line["failed"]) == (own["status"] == "failed").sum()
        if not len(scored):
            assert line["dice"] == ""
            continue
        seen += 1
        for metric in ("dice", "iou"):
            assert float(line[metric]) == pytest.approx(scored[metric].mean(), abs=1e-12)
        assert float(line["median"]) == pytest.approx(scored["dice"].median(), abs=1e-12)
        by_dataset = scored.groupby("dataset")["dice"].mean().mean()
        assert float(line["dice_over_datasets"]) == pytest.approx(by_dataset, abs=1e-12)
        rules = part[(part["kind"] == "trivial") & (part["status"] != "unsupported")]
        best = rules.groupby("model")["dice"].mean().max()
        if line["gain"]:
            assert float(line["gain"]) == pytest.approx(scored["dice"].mean() - best, abs=1e-12)
    scored = (part[part["status"] != "unsupported"] for part in parts.values())
    assert seen == sum(part["model"].nunique() for part in scored)
