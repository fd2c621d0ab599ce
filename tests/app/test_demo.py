"""The demo, small: every stage leaves what the plain commands need, and a second call skips it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sammed import app
from sammed_app.demo import QUICK, DemoPlan, plan_of
from sammed_app.findings import Finding
from sammed_app.telling import Teller, _sentence
from sammed_bench.statistics import PairedResult
from sammed_data.types import UsageError
from sammed_model.cards import SHIPPED


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder where ``sammed demo --quick`` ran, and what it printed."""
    folder = tmp_path_factory.mktemp("work") / "demo"
    result = CliRunner().invoke(app, ["demo", "--dir", str(folder), "--quick"])
    assert result.exit_code == 0, (result.output, result.exception)
    return folder, result.output


def test_the_folder_holds_what_the_plain_commands_take(ran):
    folder, _ = ran
    assert (folder / "catalogs" / "phantom_ct.yaml").is_file()
    assert (folder / "data" / "phantom_ct_rt" / "test" / "p004" / "RS.dcm").is_file()
    assert (folder / "corpus" / "manifest.json").is_file()
    records = [json.loads(p.read_text()) for p in sorted(folder.glob("runs/*/run.json"))]
    assert [(r["method"], r["control"]) for r in records] == [
        ("ft-sam", "none"),
        ("ft-sam", "permuted"),
        ("sam-med2d", "none"),
        ("sam-med2d", "permuted"),
    ]
    assert (folder / "results" / "001" / "report" / "report.html").is_file()


def test_it_says_what_it_is_and_where_things_lie(ran):
    folder, output = ran
    flat = " ".join(output.split())
    assert "small model" in flat
    assert "phantoms" in flat
    assert "prompt-only" in flat
    assert "order by mean Dice" in flat
    for place in ("corpus", "runs/001-ft-sam/model.safetensors", "results/001/report/report.html"):
        assert str(folder / place) in output


def test_a_second_call_skips_what_is_there(ran):
    folder, _ = ran
    result = CliRunner().invoke(app, ["demo", "--dir", str(folder), "--quick"])
    assert result.exit_code == 0
    assert "the phantoms are there already" in result.output
    assert result.output.count("is finished already") == 4
    assert len(list(folder.glob("runs/*"))) == 4


def test_plain_commands_work_in_that_folder(ran, monkeypatch):
    folder, _ = ran
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SAMMED_DATA", raising=False)
    for command in (
        "data build --source catalogs/ --workers 1",
        "train --steps 1 --passes 1 --batch 1 --quiet",
        "bench --prompts 1pt,bbox,5pt --limit 2",
    ):
        result = CliRunner().invoke(app, command.split())
        assert result.exit_code == 0, (command, result.output, result.exception)


def test_a_foreign_corpus_is_left_alone(tmp_path):
    (tmp_path / "corpus").mkdir()
    result = CliRunner().invoke(app, ["demo", "--dir", str(tmp_path), "--quick"])
    assert isinstance(result.exception, UsageError)
    assert "the demo did not make" in str(result.exception)
    assert list(tmp_path.iterdir()) == [tmp_path / "corpus"]


def test_the_shipped_start_is_small():
    files = list(SHIPPED.glob("*.safetensors"))
    assert [f.name for f in files] == ["vit_tiny_scenes.safetensors"]
    assert files[0].stat().st_size <= 8_000_000


def _result(low: float | None, high: float | None) -> PairedResult:
    return PairedResult(
        a="a", b="b", mode="bbox", mean_a=0.5, mean_b=0.4, mean_difference=0.1,
        low=low, high=high, effect=1.0, n_patients=66, n_masks=800,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("start", "control", "holds"),
    [
        ((0.05, 0.15), (0.02, 0.2), True),
        ((-0.05, 0.15), (0.02, 0.2), False),
        ((0.05, 0.15), (None, None), False),
        ((-0.3, -0.1), (0.02, 0.2), False),
    ],
)
def test_a_finding_needs_both_intervals_above_zero(start, control, holds):
    finding = Finding(
        method="ft-sam",
        mode="bbox",
        over_start=_result(*start),
        over_control=_result(*control),
        prompt_only=_result(0.01, 0.02),
    )
    assert finding.holds is holds
    assert ("NOT SHOWN" in _sentence(finding)) is not holds


def test_plans():
    assert plan_of(quick=True, seed=0, steps=None) == QUICK
    assert plan_of(quick=False, seed=2, steps=7) == DemoPlan(seed=2, steps=7)
    assert Teller()
