"""What people read: sets and views apart, counts that add up, cases with nothing to show."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from sammed_bench import clicks, report, scores, tables
from sammed_bench.console import terminal_table
from sammed_bench.figures import bar_chart
from sammed_bench.statistics import MIN_CLUSTERS

CONDITIONS = {
    "conditions": {
        "corpus_sha256": "c0ffee" * 10,
        "modes": ["bbox"],
        "seed": 3,
        "limit": 9,
        "protocol": {"name": "sam-med2d", "version": 1},
        "protocol_hash": "ab" * 32,
    },
    "models": [{"name": "ft-sam", "seconds": 1.25, "source": "runs/<1>/model.safetensors"}],
    "notes": ["IN-SAMPLE & more"],
}


def _rows(patients: int, splits=("test",), status="ok", small=False):
    kinds = {"ft-sam": "ft-sam", "ft-sam-permuted": "ft-sam", "sam": "sam", "box-full": "trivial"}
    made = []
    for split in splits:
        for patient in range(patients):
            for model, kind in kinds.items():
                share = 0.0005 if small and patient == 0 else 0.1
                answered = "ok" if kind == "trivial" else status
                dice = {"ft-sam": 0.8, "ft-sam-permuted": 0.5, "sam": 0.4, "box-full": 0.6}[model]
                dice = dice + patient / 1000 if answered == "ok" else 0.0
                made.append(
                    dict.fromkeys(scores.SCHEMA.names, "")
                    | dict.fromkeys(clicks.COLUMNS)
                    | {"model": model, "kind": kind, "mode": "bbox", "split": split}
                    | {"recipe": "trivial" if kind == "trivial" else "tiny", "status": answered}
                    | {"dice": dice, "iou": dice / (2 - dice), "dataset": f"d-{split}"}
                    | {"patient_id": f"p{patient}", "cluster": "image", "modality": "ct"}
                    | {"sample_id": f"{split}{patient}", "mask_index": 0, "structure": "liver"}
                    | {"organ": "liver", "group": "abdomen", "kind_of_structure": "organ"}
                    | {"area_fraction": share, "in_view": share > 0.00153, "seed": 0}
                    | {"area_px": 9, "height": 30, "width": 40, "n_clicks": 0}
                    | {"weights_sha256": "12" * 32}
                )
    return pd.DataFrame(made)


def _report(tmp_path, rows):
    # What a part would hold; columns of other metrics may be missing.
    for column in set(scores.SCHEMA.names) - set(rows.columns):
        rows[column] = np.nan
    for field in scores.SCHEMA:
        if str(field.type) in ("double", "float"):
            rows[field.name] = pd.to_numeric(rows[field.name], errors="coerce")
    scores.write_part(tmp_path / "scores" / "part-x.parquet", rows.to_dict("records"))
    (tmp_path / "bench.json").write_text(json.dumps(CONDITIONS))
    made = report.write_report(tmp_path)
    return made, (tmp_path / "report" / "report.html").read_text()


def test_held_out_and_views_are_apart(tmp_path):
    made, html = _report(tmp_path, _rows(22, ("held_out", "test"), small=True))
    by_name = {section.name: section for section in made.sections}
    titles = [table.title for table in by_name["organ"].tables]
    assert titles == [
        "By organ, test, view all: mean Dice %",
        "By organ, test, view sam-med2d: mean Dice %",
        "By organ, held-out datasets, view all: mean Dice %",
        "By organ, held-out datasets, view sam-med2d: mean Dice %",
    ]
    assert [table.rows[0]["masks"] for table in by_name["organ"].tables] == [22, 21, 22, 21]
    assert html.index("Mean Dice, test") < html.index("Mean Dice, held-out datasets")
    shown = [table.title for table in report.headline(made)]
    assert not any("By organ" in title and "sam-med2d" in title for title in shown)
    assert any("By organ, held-out" in title for title in shown)


def test_a_view_that_leaves_nothing_out_is_not_repeated(tmp_path):
    made, _ = _report(tmp_path, _rows(22))
    assert [t.title for t in made.sections[0].tables] == ["Overall, test, both views"]


def test_the_conditions_and_models_are_said(tmp_path):
    made, html = _report(tmp_path, _rows(22))
    said = {row["condition"]: row["value"] for row in made.about[0].rows}
    assert "c0ffeec0ffee" in said["corpus"]
    counts = "22 images, 22 masks (22 in view sam-med2d), 22 patients, 1 datasets"
    assert said["scored: test"] == counts
    assert "d-test (image)" in said["patients"]
    assert said["images"] == "the first 9 at most"
    models = {row["model"]: row for row in made.about[1].rows}
    assert (models["ft-sam"]["answers"], models["ft-sam"]["failed"]) == (22, 0)
    assert models["ft-sam"]["weights_sha256"] == "121212121212"
    assert "runs/&lt;1&gt;/model.safetensors" in html
    assert "IN-SAMPLE &amp; more" in html


def test_one_patient_has_no_interval_and_says_why(tmp_path):
    _, html = _report(tmp_path, _rows(1))
    text = (tmp_path / "report" / "report.md").read_text()
    assert f"under {MIN_CLUSTERS} patients" in text
    assert f"no intervals under {MIN_CLUSTERS} patients" in html
    assert "nan" not in text.lower()


@pytest.mark.parametrize("status", ["failed", "unsupported"])
def test_nothing_answered_is_shown_and_counted(tmp_path, status):
    made, html = _report(tmp_path, _rows(22, status=status))
    row = next(r for r in made.about[1].rows if r["model"] == "ft-sam")
    assert (row["answers"], row["failed"]) == ((22, 22) if status == "failed" else (0, 0))
    assert "nan" not in html.lower().split("<script")[0]
    assert ("not supported" in html.split('id="reading"')[0]) == (status == "unsupported")


@pytest.mark.parametrize("width", [80, 120, 150])
def test_a_terminal_of_any_width_breaks_no_word(tmp_path, width):
    made, _ = _report(tmp_path, _rows(22, ("held_out", "test"), small=True))
    screen = Console(file=io.StringIO(), width=width)
    for table in report.headline(made):
        screen.print(terminal_table(table))
    text = screen.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text
    for words in ("ft-sam", "box-full", "81.0", "best", "liver"):
        assert words in text
    assert width > 80 or "not shown here" in text


def test_bars_are_valid_and_controls_pale():
    rows = tables.long_table(tables.prepare(_rows(22)), "overall").rows
    chart = bar_chart([r for r in rows if r["view"] == "all"], ["ft-sam", "ft-sam-permuted", "sam"])
    root = ElementTree.fromstring(chart)
    bars = {
        r[0].text.split(",")[0]: r for r in root.iter("{http://www.w3.org/2000/svg}rect") if len(r)
    }
    assert bars["ft-sam"].get("fill") == bars["ft-sam-permuted"].get("fill")
    assert bars["ft-sam"].get("fill-opacity") is None
    assert bars["ft-sam-permuted"].get("fill-opacity")
    assert bars["ft-sam"].get("fill") != bars["sam"].get("fill")
    said = " ".join(element.text or "" for element in root.iter())
    assert "mean Dice (%)" in said
    assert "prompt mode" in said
