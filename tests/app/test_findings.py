"""The demo's findings are the numbers of the report's table of the test set."""

from __future__ import annotations

import pytest

from sammed_app.findings import findings
from sammed_bench import scores, tables

_LABELS = {
    "sam": ("sam", 0.4),
    "ft-sam": ("ft-sam", 0.6),
    "ft-sam-permuted": ("ft-sam", 0.5),
    "sam-med2d": ("sam-med2d", 0.7),
    "sam-med2d-permuted": ("sam-med2d", 0.55),
}


def _rows(split, patients, shift):
    made = []
    for patient in range(patients):
        for mask in range(1 + patient % 3):
            for model, (kind, dice) in _LABELS.items():
                value = dice + shift + patient / 1000 * (1 if kind == "sam" else 2)
                made.append(
                    dict.fromkeys(scores.SCHEMA.names)
                    | {"model": model, "kind": kind, "mode": "bbox", "split": split, "seed": 0}
                    | {"recipe": "tiny", "status": "ok", "dataset": split, "modality": "ct"}
                    | {"patient_id": f"p{patient}", "case_id": "", "cluster": "patient"}
                    | {"sample_id": f"{split}/{patient}", "mask_index": mask, "dice": value}
                    | {"structure": "liver", "organ": "liver", "group": "abdomen", "error": ""}
                    | {"kind_of_structure": "organ", "area_fraction": 0.1, "in_view": True}
                    | {"iou": value / (2 - value), "weights_sha256": model}
                )
    return made


@pytest.mark.parametrize("held_out", [0, 9])
def test_findings_are_those_of_the_test_set_in_the_report(tmp_path, held_out):
    rows = [*_rows("test", 21, 0.0), *_rows("held_out", held_out, -0.3)]
    scores.write_part(tmp_path / "scores" / "part-x.parquet", rows)
    made = tables.prepare(scores.read_scores(tmp_path))
    overall = tables.long_table(made, "overall").rows
    compared = tables.comparison_table(made).rows
    found = list(findings(tmp_path, ("bbox",)))
    assert [f.method for f in found] == ["ft-sam", "sam-med2d"]
    for finding in found:
        where = {"set": "test", "view": "all", "model": finding.method}
        line = next(r for r in overall if where.items() <= r.items())
        assert finding.over_start.mean_a == pytest.approx(line["dice"])
        where = {"set": "test", "model": finding.method, "against": "sam"}
        pair = next(r for r in compared if where.items() <= r.items())
        assert finding.over_start.mean_difference == pytest.approx(pair["difference"])
        assert finding.over_start.low == pytest.approx(pair["low"])
        assert finding.over_start.n_patients == pair["patients"] == 21


def test_a_corpus_of_held_out_sets_alone_still_has_findings(tmp_path):
    scores.write_part(tmp_path / "scores" / "part-x.parquet", _rows("held_out", 4, 0.0))
    found = next(iter(findings(tmp_path, ("bbox",))))
    assert found.over_start.n_masks == 1 + 2 + 3 + 1
