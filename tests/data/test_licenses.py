"""Licences: only what is sure or signed counts; unknown passes no filter unless it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sammed_data.catalog import CatalogEntry, load_catalogs
from sammed_data.cli import app
from sammed_data.licenses import (
    SPDX,
    Decision,
    admits,
    check_words,
    decision_form,
    digest,
    load_decisions,
    standing,
)
from sammed_data.types import CatalogError, UsageError

SIGNED = """
decisions:
  hc18:
    license: LicenseRef-letter
    redistribute: false
    commercial: true
    evidence: letter of the authors
    signed_by: A. Researcher
    date: 2026-11-25
"""


def entry(license_: str, confidence: str) -> CatalogEntry:
    found = load_catalogs(None)["hc18"]
    return found.model_copy(update={"license": license_, "license_confidence": confidence})


@pytest.mark.parametrize(
    ("license_", "confidence", "redistribute", "commercial"),
    [
        ("CC-BY-4.0", "high", True, True),
        ("CC-BY-NC-SA-4.0", "high", True, False),
        ("CC-BY-NC-ND-4.0", "high", False, False),  # slices are derivatives
        ("CC-BY-4.0", "medium", None, None),
        ("CC-BY-4.0 (unconfirmed)", "high", None, None),
        ("unknown", "low", None, None),
    ],
)
def test_only_a_sure_spdx_id_counts(license_, confidence, redistribute, commercial):
    found = standing(entry(license_, confidence), {})
    assert (found.redistribute, found.commercial) == (redistribute, commercial)
    assert found.known == (redistribute is not None)
    assert (found.spdx == license_) == found.known


def test_unknown_passes_no_filter_unless_it_is_named():
    unknown, open_ = standing(entry("?", "low"), {}), standing(entry("CC0-1.0", "high"), {})
    closed = standing(entry("CC-BY-NC-ND-4.0", "high"), {})
    for words in (["redistribute"], ["commercial"], ["known"], ["CC0-1.0"], ["CC-BY-4.0", "MIT"]):
        assert not admits(words, unknown)
    assert admits(["unknown"], unknown)
    assert admits(["CC0-1.0", "unknown"], unknown)
    assert admits([], unknown)
    assert admits(["redistribute"], open_)
    assert admits(["CC-BY-4.0", "CC0-1.0"], open_)
    assert not admits(["unknown"], open_)
    assert not admits(["redistribute"], closed)
    assert admits(["known"], closed)


def test_a_signed_decision_wins_over_the_catalogue(tmp_path: Path):
    path = tmp_path / "licence-decisions.yaml"
    path.write_text(SIGNED)
    decisions = load_decisions(path)
    found = standing(load_catalogs(None)["hc18"], decisions)
    assert (found.confidence, found.redistribute, found.commercial) == ("signed", False, True)
    assert found.signed_by == "A. Researcher, 2026-11-25"
    assert admits(["commercial"], found)
    assert not admits(["redistribute"], found)
    assert digest(decisions) != digest({}) == ""
    other = {"hc18": decisions["hc18"].model_copy(update={"redistribute": True})}
    assert digest(other) != digest(decisions)


@pytest.mark.parametrize("field", list(Decision.model_fields))
def test_an_unsigned_or_empty_decision_is_refused(tmp_path: Path, field: str):
    path = tmp_path / "d.yaml"
    path.write_text(
        "\n".join(f"    {field}:" if f" {field}:" in x else x for x in SIGNED.split("\n"))
    )
    with pytest.raises(CatalogError, match=rf"d.yaml.*decisions.hc18.{field}"):
        load_decisions(path)


def test_the_form_lists_what_is_undecided_and_is_refused_until_it_is_filled(tmp_path: Path):
    unknown = standing(entry("unknown", "low"), {})
    path = tmp_path / "form.yaml"
    path.write_text(decision_form([unknown, standing(entry("CC0-1.0", "high"), {})]))
    assert path.read_text().count("signed_by") == 1
    with pytest.raises(CatalogError, match="hc18.license"):
        load_decisions(path)


def test_misspelt_filters_name_their_neighbours():
    with pytest.raises(UsageError, match="CC-BY-4.0"):
        check_words(["CC-BY-4"])
    check_words([*SPDX, "unknown"])


def test_the_verb(tmp_path: Path):
    form = tmp_path / "form.yaml"
    run = CliRunner().invoke(app, ["licenses", "--license", "unknown", "--write", str(form)])
    assert run.exit_code == 0, run.output
    assert "hc18" in form.read_text() or load_catalogs(None)["hc18"].license_confidence == "high"
    run = CliRunner().invoke(app, ["licenses", "--license", "redistribute", "--json"])
    found = json.loads(run.stdout)
    assert found
    assert all(each["redistribute"] for each in found)
    run = CliRunner().invoke(app, ["licenses", "--write", str(form)])
    assert isinstance(run.exception, UsageError)
