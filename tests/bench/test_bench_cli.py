"""The commands: tables on the terminal, a report that opens offline, errors as sentences."""

from __future__ import annotations

import json
import re

import pytest
import tiny_corpus
from typer.testing import CliRunner

import sammed
from sammed_data.types import CorpusError, UsageError


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    tiny_corpus.write_corpus(root / "corpus", patients={"train": 2, "test": 11}, slices=1)
    asked = ["bench", "--corpus", str(root / "corpus"), "--out", str(root / "r")]
    asked += ["--model", "bright=bench_fakes:make_bright", "--model", "oracle"]
    done = CliRunner().invoke(sammed.app, [*asked, "--prompts", "1pt,bbox"])
    assert done.exit_code == 0, (done.output, done.exception)
    return root, done.output


def test_the_terminal_shows_tables_with_counts(results):
    _, text = results
    for words in ("By organ", "By modality", "Overall, test", "gain", "liver", "95 % interval"):
        assert words in text
    assert re.search(r"bbox +oracle +– +44 +22 +0 +100\.0", text)
    assert "report.html" in text


def test_the_report_is_whole_and_needs_no_network(results):
    root, _ = results
    report = root / "r" / "report"
    html = (report / "report.html").read_text()
    assert "data:image/png;base64," in html
    assert "<svg" in html
    assert not re.search(r"(src|href)=\"https?:", html)
    assert "<script src" not in html
    assert "fetch(" not in html
    text = (report / "report.md").read_text()
    for heading in ("By organ", "By dataset", "By object size", "Paired comparisons"):
        assert heading in text
    plain = json.loads((report / "tables.json").read_text())
    names = {table["name"] for table in plain["tables"]}
    assert {"overall", "organ", "modality", "group", "dataset", "size", "comparisons"} <= names
    assert {p.stem for p in (report / "tables").glob("*.csv")} == names


def test_a_report_is_made_again_from_rows(results):
    root, _ = results
    before = (root / "r" / "report" / "tables" / "organ.csv").read_text()
    for path in (root / "r" / "report").rglob("*.*"):
        path.unlink()
    done = CliRunner().invoke(sammed.app, ["report", str(root / "r")])
    assert done.exit_code == 0, done.exception
    assert (root / "r" / "report" / "tables" / "organ.csv").read_text() == before


def _error(*asked):
    return CliRunner().invoke(sammed.app, list(asked)).exception


def test_errors_are_sentences(tmp_path, results):
    root, _ = results
    corpus = ["--corpus", str(root / "corpus")]
    found = _error("bench", *corpus, "--prompts", "bbox,4pt")
    assert isinstance(found, UsageError)
    assert "did you mean" in str(found)
    assert "1pt, 3pt, 5pt, mask" in str(found)
    found = _error("bench", "--corpus", str(tmp_path), "--model", "oracle")
    assert isinstance(found, CorpusError)
    found = _error("report", str(tmp_path))
    assert isinstance(found, CorpusError)
    assert "sammed bench" in str(found)
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = _error("bench", *corpus, "--model", "oracle", "--out", str(blocked / "r"))
    assert isinstance(found, UsageError)
    assert "--out" in str(found)
