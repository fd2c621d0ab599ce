"""Suites: what is frozen is checked, what differs is named, the phantoms are rebuilt alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_corpus
import yaml
from typer.testing import CliRunner

import sammed
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.compare import compare
from sammed_bench.models import Oracle
from sammed_bench.scores import read_scores
from sammed_bench.suite import SUITES, load_suite, parse_suite, shipped, suite_text
from sammed_bench.suite_check import check
from sammed_bench.suite_freeze import Asked, freeze, freeze_rest, write_suite
from sammed_bench.suite_run import asked_suite, configured
from sammed_data.corpus import Corpus
from sammed_data.types import CorpusError, UsageError

CATALOGS = Path(__file__).resolve().parents[2] / "catalogs"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    sets = ("ellipses_a", "ellipses_b", "ellipses_c")
    tiny_corpus.write_corpus(root, patients={"train": 1, "test": 2}, slices=2, datasets=sets)
    return Corpus(root)


@pytest.fixture
def suite(corpus):
    asked = Asked(modes=("bbox", "1pt"), datasets=("ellipses_a", "ellipses_b"))
    return freeze(corpus, asked, name="mine")


def _with(suite, **changes):
    first, *rest = suite.datasets
    return replace(suite, datasets=(replace(first, **changes), *rest))


def test_a_suite_survives_its_file(suite, tmp_path):
    write_suite(tmp_path / "mine.yaml", suite)
    again = load_suite(str(tmp_path / "mine.yaml"))
    assert again == suite
    assert again.digest == suite.digest
    assert replace(suite, about="other words").digest == suite.digest
    assert _with(suite, content_sha256="0" * 64).digest != suite.digest
    with pytest.raises(UsageError, match="new file"):
        write_suite(tmp_path / "mine.yaml", suite)


def test_a_corpus_that_differs_is_refused_by_name(suite, corpus):
    first = suite.datasets[0]
    assert (first.images, first.masks, len(first.samples)) == (4, 8, 4)
    assert check(suite, corpus)[1] == []
    more = _with(suite, samples=(*first.samples, "ellipses_a/nobody/axial/0000"))
    with pytest.raises(CorpusError, match=r"lacks 1 samples \(ellipses_a/nobody/axial/0000\)"):
        check(more, corpus)
    with pytest.raises(CorpusError, match="ellipses_a has 1 samples .* too many"):
        check(_with(suite, samples=first.samples[1:]), corpus)
    with pytest.raises(CorpusError, match="ellipses_a has other content: 8 masks"):
        check(_with(suite, content_sha256="0" * 64), corpus)
    with pytest.raises(CorpusError, match="catalogue version 1, expected 2"):
        check(_with(suite, version=2), corpus)
    with pytest.raises(CorpusError, match="other samples"):
        check(_with(suite, samples=(), samples_sha256="0" * 64), corpus)
    gone = _with(suite, id="ellipses_z")
    with pytest.raises(CorpusError, match="no images of ellipses_z in test or held_out"):
        check(gone, corpus)


def test_another_protocol_version_or_view_is_refused(suite, corpus):
    bent = replace(suite.protocols[0], hash="f" * 64)
    with pytest.raises(UsageError, match="frozen with protocol sam-med2d ffffffffffff"):
        check(replace(suite, protocols=(bent,)), corpus)
    with pytest.raises(UsageError, match="metrics version 9"):
        check(replace(suite, metrics_version=9), corpus)
    view = replace(suite.views[1], min_aspect=0.4)
    with pytest.raises(UsageError, match="view sam-med2d"):
        check(replace(suite, views=(view,)), corpus)
    with pytest.raises(UsageError, match="one of suite mine, found 'centre-click'"):
        check(suite, corpus, "centre-click")


def test_a_suite_decides_what_is_scored(suite, corpus, tmp_path):
    config = BenchConfig(baselines=False, gallery=False, modes=("5pt",), limit=1)
    made = asked_suite(_file(suite, tmp_path), corpus, config, {})
    assert (made.modes, made.limit, made.suite) == (("bbox", "1pt"), None, "mine 1")
    bench(corpus.root, [Oracle()], made, out=tmp_path / "r")
    rows = read_scores(tmp_path / "r")
    assert set(rows["dataset"]) == {"ellipses_a", "ellipses_b"}
    assert len(rows) == 2 * 4 * 2 * 2
    record = json.loads((tmp_path / "r" / "bench.json").read_text())
    assert record["conditions"]["suite_sha256"] == suite.digest
    assert load_suite(str(tmp_path / "r" / "suite.yaml")) == suite
    with pytest.raises(UsageError, match="--prompts from suite mine"):
        asked_suite(_file(suite, tmp_path), corpus, config, {"prompts": "bbox"})


def _file(suite, folder):
    path = folder / "mine.yaml"
    path.write_text(suite_text(suite))
    return str(path)


def test_unfrozen_datasets_are_said_and_can_be_frozen(suite, corpus):
    bare = _with(suite, samples=(), content_sha256="", images=None, unfrozen="do this")
    _, notes = check(bare, corpus)
    assert "ellipses_a" in notes[0]
    assert "`do this`" in notes[0]
    assert freeze_rest(corpus, bare) == suite
    with pytest.raises(UsageError, match="dataset of suite mine, found 'ellipses_q'"):
        freeze_rest(corpus, bare, ["ellipses_q"])
    with pytest.raises(UsageError, match="any unfrozen dataset"):
        freeze_rest(corpus, suite)


def test_long_lists_become_a_digest(corpus, monkeypatch):
    monkeypatch.setattr("sammed_bench.suite_freeze.LISTED", 3)
    found = freeze(corpus, Asked(modes=("bbox",), datasets=("ellipses_b",)), name="long")
    assert found.datasets[0].samples == ()
    assert len(found.datasets[0].samples_sha256) == 64
    check(found, corpus)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sammed_suite: 1", "sammed_suite: 2", "sammed_suite: 1 in its first line"),
        ("edition:", "editoin:", "did you mean 'edition'"),
        ("seed: 0", "seed: nought", "int at seed in suite, found 'nought'"),
        ("  version: 1\n", "", "'version' in datasets"),
        ("modes:\n- bbox\n- 1pt", "modes: bbox", "tuple"),
        ("tolerance: 2.0", "tolerance: [", "suite"),
    ],
)
def test_a_file_that_is_no_suite(suite, old, new, said):
    text = suite_text(suite)
    assert old in text
    with pytest.raises(UsageError, match=r"here: expected .*`sammed bench freeze`") as found:
        parse_suite(text.replace(old, new, 1), "here")
    assert said in str(found.value)


def test_shipped_suites_are_whole():
    assert shipped() == ["open-2d-v1", "phantoms", "phantoms-small"]
    for name in shipped():
        found = load_suite(name)
        assert found.name == name
        assert parse_suite(suite_text(found), name) == found
        if name.startswith("phantoms"):
            assert not found.unfrozen
            assert all(d.content_sha256 and d.samples for d in found.datasets)
    with pytest.raises(UsageError, match="did you mean 'phantoms'"):
        load_suite("fantoms")


def test_the_open_suite_names_open_sets_and_invents_no_hash():
    found = load_suite("open-2d-v1")
    assert found.unfrozen == found.ids
    for dataset in found.datasets:
        entry = yaml.safe_load((CATALOGS / f"{dataset.id}.yaml").read_text())
        assert (entry["access"], entry["dims"]) == ("open", "2D")
        assert entry["download_url"].startswith("http")
        assert entry.get("version", 1) == dataset.version
        stated = (dataset.content_sha256, dataset.tree_sha256, dataset.samples_sha256)
        assert not any(stated)
        assert not dataset.archives
        assert f"--datasets {dataset.id} " in dataset.unfrozen


def test_phantoms_are_rebuilt_with_the_frozen_content(tmp_path):
    done = CliRunner().invoke(
        sammed.app, ["bench", "phantoms", "--dir", str(tmp_path), "--patients", "4"]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    check(load_suite("phantoms-small"), Corpus(tmp_path / "corpus"))
    with pytest.raises(CorpusError, match="phantom_ct lacks 56 samples.*sammed bench phantoms"):
        check(load_suite("phantoms"), Corpus(tmp_path / "corpus"))


def test_freeze_from_the_command_line(corpus, tmp_path):
    out = tmp_path / "pair.yaml"
    asked = ["bench", "freeze", str(corpus.root), "--out", str(out), "--datasets", "ellipses_b"]
    done = CliRunner().invoke(sammed.app, [*asked, "--prompts", "bbox,mask"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "1 datasets frozen with 4 images and 8 masks" in done.output
    assert load_suite(str(out)).modes == ("bbox", "mask")
    listed = CliRunner().invoke(sammed.app, ["bench", "suites", "--json"])
    names = [suite["name"] for suite in json.loads(listed.stdout)]
    assert names == shipped()
    assert (SUITES / "phantoms.yaml").is_file()


def test_results_of_one_suite_compare_across_corpora(suite, corpus, tmp_path):
    other = tmp_path / "other"
    tiny_corpus.write_corpus(other, patients={"train": 3, "test": 2}, slices=2)
    smaller = Corpus(other)
    assert smaller.content_hash != corpus.content_hash
    for name, where in (("a", corpus), ("b", smaller)):
        config = configured(suite, where, BenchConfig(baselines=False, gallery=False))
        bench(where.root, [Oracle()], config, out=tmp_path / name)
    table = compare(tmp_path / "a", tmp_path / "b")
    assert [row["difference"] for row in table.rows] == [0, 0]
    plain = BenchConfig(baselines=False, gallery=False, modes=("bbox",))
    for name, where in (("c", corpus), ("d", smaller)):
        bench(where.root, [Oracle()], plain, out=tmp_path / name)
    with pytest.raises(UsageError, match="results of one corpus"):
        compare(tmp_path / "c", tmp_path / "d")
