"""Licences: only what is sure or signed counts; unknown passes no filter unless it is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sammed_data.build import Order, as_note, build_order, from_note
from sammed_data.catalog import CatalogEntry, load_catalogs
from sammed_data.cli import app
from sammed_data.corpus import Corpus
from sammed_data.licenses import (
    SPDX,
    Decision,
    admits,
    check_words,
    decision_form,
    digest,
    load_decisions,
    standing,
    unsure,
)
from sammed_data.phantom import write_phantoms
from sammed_data.recipe import read_recipe
from sammed_data.run_shards import How
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


def test_where_a_licence_can_be_read_is_an_address_or_words():
    doubted = entry("unknown", "low")
    assert f"read it at {doubted.license_evidence or doubted.homepage} and sign" in unsure(
        standing(doubted, {})
    )
    own = doubted.model_copy(update={"license_evidence": "", "homepage": "own data"})
    assert "read it at its source (own data) and sign it" in unsure(standing(own, {}))


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


def test_a_build_writes_signed_licences_and_leaves_out_what_a_filter_does(tmp_path: Path):
    write_phantoms(tmp_path, n_patients=4, seed=1, only=("phantom_derm", "phantom_us"))
    root, catalogs = tmp_path / "data", tmp_path / "catalogs"
    for name, text in (("phantom_derm", "CC0-1.0"), ("phantom_us", "unknown")):
        path = catalogs / f"{name}.yaml"
        lines = [x for x in path.read_text().split("\n") if not x.startswith("license")]
        path.write_text("\n".join([*lines, f"license: {text}", "license_confidence: high", ""]))
    order = Order(source=catalogs, root=root, license=("redistribute",))
    made = build_order(order, tmp_path / "a", How())
    assert [d["id"] for d in made.manifest["datasets"]] == ["phantom_derm"]
    assert "sign it in licence-decisions.yaml" in made.refused["phantom_us"]
    decisions = root / "licence-decisions.yaml"
    decisions.write_text(
        SIGNED.replace("hc18", "phantom_us").replace("redistribute: false", "redistribute: true")
    )
    order = dataclasses.replace(order, decisions=decisions)
    made = build_order(order, tmp_path / "b", How())
    assert not made.refused
    signed = next(d for d in made.manifest["datasets"] if d["id"] == "phantom_us")
    assert signed["license"] == "LicenseRef-letter"
    assert signed["license_evidence"].endswith("signed by A. Researcher on 2026-11-25")
    rows = Corpus(tmp_path / "b").index()
    assert {r.meta["license"] for r in rows if r.dataset == "phantom_us"} == {"LicenseRef-letter"}
    # The corpus carries what it was signed with, and its own recipe builds it again.
    assert (tmp_path / "b" / "licence-decisions.yaml").read_text() == decisions.read_text()
    assert read_recipe(tmp_path / "b" / "corpus.yaml").decisions is not None
    assert from_note(as_note(order)).decisions == decisions
    with pytest.raises(CatalogError, match="let in by --license: phantom_derm: its licence CC0"):
        build_order(dataclasses.replace(order, license=("MIT",)), tmp_path / "c", How())
