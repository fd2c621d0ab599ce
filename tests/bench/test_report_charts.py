"""Figures: valid SVG, a mark per number, the right place; and the report that holds them."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from report_rows import MODELS, small_rows, write_results

from sammed_bench import plots, report_charts, tables
from sammed_bench.offsets import offset_table
from sammed_bench.plots import Dot
from sammed_bench.reading import models_table
from sammed_bench.report import write_report
from sammed_data.types import UsageError

SVG = "{http://www.w3.org/2000/svg}"
ORDER = ["sam", "ft-sam", "ft-sam-permuted", "sam-med2d", "oracle", "box-full", "click-disc"]


@pytest.fixture(scope="module")
def long():
    return {table.name: table for table in tables.all_tables(small_rows(), ORDER)}


def _titles(svg):
    return [e.text for e in ElementTree.fromstring(svg).iter(f"{SVG}title") if e.text]


def test_size_curves_have_a_point_per_model_and_bin(long):
    charts = report_charts.size_charts(long["size"], ORDER)
    assert {c["name"] for c in charts} >= {"size-test-bbox", "size-held_out-1pt"}
    chart = next(c for c in charts if c["name"] == "size-test-bbox")
    own = [
        r
        for r in long["size"].rows
        if (r["set"], r["view"], r["mode"]) == ("test", "all", "bbox") and r["dice"] is not None
    ]
    assert len(_titles(chart["svg"])) == len(own)
    assert f"sam-med2d, 1 to 5 %: {100 * _value(own, 'sam-med2d', '1 to 5 %'):.1f}" in _titles(
        chart["svg"]
    )


def _value(rows, model, size):
    return next(r["dice"] for r in rows if r["model"] == model and r["size"] == size)


def test_gains_are_the_paired_differences_and_0_is_drawn(long):
    (test, held_out) = report_charts.gain_charts(long["comparisons"], ORDER)
    assert "held-out" in held_out["title"]
    rows = [r for r in long["comparisons"].rows if r["what"] == "over the best trivial baseline"]
    expected = sorted(
        f"{r['model']}: {100 * r['difference']:+.1f}" for r in rows if r["set"] == "test"
    )
    assert sorted(_titles(test["svg"])) == expected
    assert 'stroke="#555"' in test["svg"]
    # Four patients have no interval, and the dot says its value alone.
    assert held_out["svg"].count("<title>") == len(rows) - len(expected)


def test_figure_5_leaves_out_baselines_controls_and_held_out_sets(long):
    charts = report_charts.paper_charts(long, ORDER, MODELS)
    names = [c["name"] for c in charts]
    assert names == [
        *(f"figure-5{letter}-test-{mode}" for letter in "abc" for mode in ("bbox", "1pt"))
    ]
    for chart in charts:
        said = " ".join(ElementTree.fromstring(chart["svg"]).itertext())
        for name in ("permuted", "box-full", "oracle", "kidney"):
            assert name not in said
    organs = next(c for c in charts if c["name"] == "figure-5c-test-bbox")
    assert "ft-sam against sam-med2d" in organs["title"]
    assert len(_titles(organs["svg"])) == 2 * 3  # liver, its lesions, heart


def test_latency_is_logarithmic_and_points_lie_within(long):
    overall = long["overall"]
    rows = [
        {"set": "test", "mode": "bbox", "model": m, "dice": 0.5, "device": "x"}
        | {"image_ms_p50": ms, "prompt_ms_p50": 1.0}
        for m, ms in (("sam", 9.0), ("ft-sam", 99.0), ("sam-med2d", 999.0))
    ]
    speed = tables.Table(name="speed", title="", columns=("set",), rows=rows)
    (chart,) = report_charts.speed_charts(speed, overall, ORDER)
    root = ElementTree.fromstring(chart["svg"])
    xs = [float(root.find(f".//{SVG}circle").get("cx"))]
    shapes = [e for e in root.iter(f"{SVG}rect") if len(e)]
    xs += [float(shapes[0].get("x")) + 4]
    triangle = next(e for e in root.iter(f"{SVG}path") if len(e))
    xs += [float(triangle.get("d")[1:].split(" ")[0])]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.5)
    assert 0 < xs[0] < xs[2] < float(root.get("width"))


def test_rows_of_dots_hold_every_value_and_escape_labels():
    dots = (Dot(model="a<b", value=-7.3, low=-9.0, high=2.0), Dot(model="c", value=4.0))
    svg = plots.dot_chart(
        [("one & two", dots)], {"a<b": 'fill="#000"', "c": 'fill="#111"'}, below="points"
    )
    root = ElementTree.fromstring(svg)
    said = " ".join(root.itertext())
    assert "one & two" in said
    assert "a<b: -7.3" in said
    wide = float(root.get("width"))
    assert all(0 <= float(e.get("x1")) <= wide for e in root.iter(f"{SVG}line"))


def test_the_box_offset_is_read_from_its_protocols(tmp_path):
    frame = small_rows()
    box = frame[frame["mode"] == "bbox"].copy()
    folders = []
    for offset, less in ((8, 0.5), (0, 1.0), (2, 0.9)):
        made = box.copy()
        made["dice"] = made["dice"] * less
        protocol = "box-tight" if offset == 0 else f"box-jitter:{offset}"
        folders.append(write_results(tmp_path / f"j{offset}", made, protocol=protocol))
    table = offset_table(folders, ORDER)
    own = [
        r for r in table.rows if (r["set"], r["view"], r["model"]) == ("test", "all", "sam-med2d")
    ]
    assert [r["offset_px"] for r in own] == [0, 2, 8]
    assert own[2]["dice"] == pytest.approx(own[0]["dice"] / 2)
    part = box[(box["split"] == "test") & (box["model"] == "sam-med2d")]
    assert own[0]["dice"] == pytest.approx(part["dice"].mean())
    small = next(r for r in table.rows if r["view"] == "sam-med2d" and r["set"] == "test")
    assert small["left_out"] == pytest.approx(1 - part["in_view"].mean())
    charts = report_charts.offset_charts(table, ORDER)
    assert [c["name"] for c in charts] == ["offset-test", "offset-held_out"]
    assert not [t for t in _titles(charts[0]["svg"]) if "click-disc" in t]  # takes no box


@pytest.mark.parametrize(
    ("conditions", "match"),
    [
        ({"protocol": "sam-med2d"}, "box-jitter:N"),
        ({"protocol": "box-jitter:2", "seed": 5}, "another seed"),
        ({"protocol": "box-jitter:4"}, "an offset for each"),
    ],
)
def test_other_results_beside_are_refused(tmp_path, conditions, match):
    frame = small_rows()
    one = write_results(tmp_path / "a", frame, protocol="box-jitter:4")
    other = write_results(tmp_path / "b", frame, **conditions)
    with pytest.raises(UsageError, match=match):
        offset_table([one, other])


RECORDS = [
    {"model": m, "set": s, "dataset": d, "state": state, "stamp": "", "why": "told so"}
    for m in MODELS
    for s, d, state in (("test", "alpha", "seen"), ("test", "beta", "not seen"))
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A results folder, its rows, and its report."""
    folder, frame = tmp_path_factory.mktemp("results"), small_rows()
    write_results(folder, frame)
    (folder / "lineage.json").write_text(json.dumps(RECORDS))
    return folder, frame, write_report(folder)


def test_every_table_comes_as_csv_latex_markdown_and_json(written):
    folder, _, made = written
    out = folder / "report"
    plain = {t["name"]: t for t in json.loads((out / "tables.json").read_text())["tables"]}
    for table in made.long:
        with (out / "tables" / f"{table.name}.csv").open() as file:
            assert (
                len(list(csv.DictReader(file))) == len(table.rows) == len(plain[table.name]["rows"])
            )
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    for section in made.sections:
        for table in section.tables:
            assert not table.rows or f"### {table.title}" in text
    latex = "".join(p.read_text() for p in (out / "tables").glob("*.tex"))
    for words in ("Table 2 of the paper", "Table 4 as published", "By modality", "Failures"):
        assert words in latex
        assert words in page
    charts = {c["name"] for s in made.sections for c in s.charts}
    assert {p.stem for p in (out / "figures").glob("*.svg")} >= charts


def test_contamination_and_clusters_stand_in_the_tables(written):
    _, _, made = written
    by_name = {table.name: table for table in made.long}
    overall = {(r["set"], r["model"]): r for r in by_name["overall"].rows}
    assert overall["test", "sam"]["seen"] == "1 seen, 1 not seen (datasets)"
    assert overall["held_out", "sam"]["seen"] == "unknown"
    assert overall["test", "oracle"]["seen"] is None
    assert overall["test", "sam"]["unit"] == "patient"
    by_set = {(r["dataset"], r["model"]): r["seen"] for r in by_name["dataset"].rows}
    assert by_set["alpha", "ft-sam"] == "seen"
    assert by_set["gamma", "ft-sam"] == "unknown"
    shown = next(s for s in made.sections if s.name == "dataset").tables[0]
    assert {r["dataset"]: r["seen"] for r in shown.rows}["beta"] == "not seen"
    view = next(t for t in next(s for s in made.sections if s.name == "modality").tables[1:2])
    assert "left_out" in view.columns


def test_failures_are_listed_with_a_row_to_open(written):
    _, frame, made = written
    table = next(t for t in made.long if t.name == "failures")
    bad = frame[frame["status"] == "failed"]
    assert sum(r["answers"] for r in table.rows) == len(bad)
    assert {r["error"] for r in table.rows} == {"RuntimeError: out of luck"}
    line = table.rows[0]
    first = bad[(bad["split"] == line["set"]) & (bad["mode"] == line["mode"])]
    assert line["first_row"].rpartition(", mask ")[0] in set(first["sample_id"])


def test_method_or_weights_by_the_number_of_training_seeds():
    frame = small_rows()
    for label in ("ft-sam 2", "ft-sam 3"):
        frame = pd.concat([frame, frame[frame["model"] == "ft-sam"].assign(model=label)])
    records = [
        {"model": m, "set": "test", "dataset": "alpha", "state": "seen", "stamp": "", "why": ""}
        | {"method": method, "training_seed": seed}
        for m, method, seed in (
            ("ft-sam", "f", 0),
            ("ft-sam 2", "f", 1),
            ("ft-sam 3", "f", 2),
            ("sam-med2d", "m", 0),
        )
    ]
    table = models_table({}, tables.prepare(frame), records)
    models = {r["model"]: r["result_of"] for r in table.rows}
    assert models["ft-sam 2"] == "method (3 training seeds)"
    assert models["sam-med2d"] == models["sam"] == "weights"
    assert models["box-full"] is None
