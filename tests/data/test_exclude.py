"""Lists that reading honours, withdrawals that touch only their shards, splits that never move."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sammed_data.audit.fingerprints import CaseMark
from sammed_data.build import build
from sammed_data.corpus import VIEWS, Corpus
from sammed_data.exclude import Exclusion, read_list, save
from sammed_data.excluding import apply_list, excluded_lines
from sammed_data.index import open_index
from sammed_data.plan import BuildOptions
from sammed_data.privacy import Pseudonyms
from sammed_data.shards import case_marks, read_rejections
from sammed_data.types import CorpusError, UsageError
from sammed_data.withdraw import withdraw
from tests.data import build_fakes as fakes

OPTIONS = BuildOptions(shard_mb=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    base = tmp_path_factory.mktemp("source")
    fakes.write_source(base / "data")
    return fakes.write_catalog(base / "catalogs"), base / "data"


@pytest.fixture
def corpus(source, tmp_path):
    build(*source, tmp_path / "corpus", options=OPTIONS)
    return tmp_path / "corpus"


def patient(key, dataset="fake_mr"):
    return Pseudonyms(dataset=dataset).patient(key)


def files(root):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in root.glob("data/*/*.parquet")}


def cases_of(root):
    return {r.meta["case_id"] for r in Corpus(root).index()}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_lists_in_three_formats(tmp_path, kind):
    rows = [
        {"sample_id": "a--b--axial--0001", "dataset": None, "case_id": None, "reason": "blurred"},
        {"sample_id": None, "dataset": "a", "case_id": "c9", "reason": "wrong, says the author"},
    ]
    path = tmp_path / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(r) for r in rows))
    else:
        lines = ["a--b--axial--0001,,,blurred", ',a,c9,"wrong, says the author"']
        path.write_text("\n".join(["sample_id,dataset,case_id,reason", *lines]))
    found = read_list(path)
    assert [(e.level, e.dataset, e.id) for e in found] == [
        ("sample", "", "a--b--axial--0001"), ("case", "a", "c9"),
    ]  # fmt: skip
    assert found[1].reason == "wrong, says the author"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sample_id\nx\n", "expected a reason"),
        ("case_id,reason\nx,y\n", "expected a dataset"),
        ("name,reason\nx,y\n", "sample_id, case_id or patient_id"),
    ],
)
def test_a_list_that_says_too_little_is_refused_with_its_line(tmp_path, text, said):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"entry 1.*{said}"):
        read_list(path)


def test_a_list_hides_rows_everywhere_without_a_rebuild(corpus):
    before, held = files(corpus), Corpus(corpus)
    rows = held.index()
    entries = [
        Exclusion(level="sample", dataset="", id=rows[0].sample_id, reason="blurred"),
        Exclusion(level="case", dataset="fake_mr", id="p005", reason="wrong label"),
        Exclusion(level="patient", dataset="fake_mr", id="p007", reason="asked us to"),
        Exclusion(level="case", dataset="elsewhere", id="p001", reason="not here"),
    ]
    applied = apply_list(corpus, entries)
    assert (applied.known, applied.unknown) == (3, 1)
    assert "p007" not in (corpus / "exclude.csv").read_text()  # the pseudonym stands there
    now = Corpus(corpus)
    gone = {r.sample_id for r in rows} - {r.sample_id for r in now.index()}
    hidden = {r.sample_id for r in rows if r.meta["case_id"] in ("p005", "p007")}
    assert gone == hidden | {rows[0].sample_id}
    streamed = {row.sample_id for n in range(len(now.shards)) for row in now.rows(n)}
    assert streamed == {r.sample_id for r in now.index()}
    everything = ("train", "validation", "test", "held_out")
    picked = open_index(now).select(now, everything, VIEWS["all"])
    assert len(picked) == len(rows) - len(gone)
    assert now.content_hash != held.content_hash
    assert files(corpus) == before
    lines = excluded_lines(now)
    assert lines[0].startswith(f"excluded by exclude.csv: {len(gone)} images")
    assert any("asked us to: 5 images" in line for line in lines)


def test_build_takes_a_list_and_counts_what_it_hides(source, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text("dataset,patient_id,reason\nfake_mr,p003,no consent\n")
    catalogs, root = source
    out = tmp_path / "corpus"
    done = fakes.call_cli("data", "build", "--source", catalogs, "--root", root, "--out", out,
                          "--exclude", listed, "--workers", 1)  # fmt: skip
    assert done.returncode == 0
    assert "excluded: no consent: 5 images" in done.stdout
    assert "p003" not in cases_of(out)
    assert "excluded: no consent" in fakes.call_cli("data", "describe", out).stdout
    again = fakes.call_cli("data", "build", "--source", catalogs, "--root", root, "--out", out,
                           "--workers", 1)  # fmt: skip
    assert again.returncode == 0
    assert "p003" not in cases_of(out)  # the corpus keeps its list


def test_a_withdrawn_patient_leaves_the_disk_and_touches_one_shard(corpus, source):
    rows = [r for r in Corpus(corpus).index() if r.meta["case_id"] == "p004"]
    raw = [Corpus(corpus)._raw(r.meta["shard"], r.meta["shard_row"]) for r in rows]
    pixels = [r["image"]["bytes"] for r in raw]
    before, old = files(corpus), Corpus(corpus).manifest
    done = withdraw(corpus, "fake_mr", patient("p004"), "consent withdrawn")
    after, now = files(corpus), Corpus(corpus)
    changed = [p for p in before if before[p] != after.get(p)]
    assert [p.relative_to(corpus).as_posix() for p in changed] == list(done.shards)
    assert (len(changed), done.images) == (1, 5)
    everything = b"".join(p.read_bytes() for p in corpus.rglob("*") if p.is_file())
    assert all(any(p in b for _, b in before.values()) for p in pixels)
    assert not any(p in everything for p in pixels)
    assert not any(m.case_id == "p004" for s in now.shards for m in case_marks(s) or ())
    assert now.manifest["content_sha256"] != old["content_sha256"]
    assert "p004" not in cases_of(corpus)
    rejected = [r for r in read_rejections(corpus).to_pylist() if r["rule"] == "excluded"]
    assert [(r["level"], r["reason"]) for r in rejected] == [
        ("case", "excluded: consent withdrawn")
    ]


def test_a_withdrawal_equals_a_build_without_the_patient(corpus, source, tmp_path):
    withdraw(corpus, "fake_mr", patient("p004"), "consent withdrawn")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    entry = Exclusion(level="patient", dataset="fake_mr", id=patient("p004"),
                      reason="consent withdrawn", withdrawn=True)  # fmt: skip
    save(fresh, [entry])
    build(*source, fresh, options=OPTIONS)
    assert Corpus(fresh).manifest == Corpus(corpus).manifest
    for shard in Corpus(fresh).shards:
        assert shard.read_bytes() == (corpus / shard.relative_to(fresh)).read_bytes()
    kept = "catalog/fake_mr.yaml"
    for name in ("corpus.lock.yaml", "corpus.yaml", "README.md", "exclude.csv", kept):
        assert (fresh / name).read_text() == (corpus / name).read_text()


def test_a_later_build_does_not_bring_a_withdrawn_patient_back(corpus, source):
    withdraw(corpus, "fake_mr", patient("p004"), "consent withdrawn")
    content = Corpus(corpus).manifest["content_sha256"]
    again = build(*source, corpus, options=OPTIONS)
    assert (again.built, again.quarantined) == (0, 0)
    assert Corpus(corpus).manifest["content_sha256"] == content
    for record in (corpus / ".partial").glob("*.json"):
        record.unlink()
    build(*source, corpus, options=OPTIONS)  # every shard anew
    assert Corpus(corpus).manifest["content_sha256"] == content
    assert "p004" not in cases_of(corpus)


@pytest.mark.parametrize("where", ["_swap", "_mended"])
def test_a_withdrawal_killed_half_way_hides_the_patient_and_a_build_mends_it(
    corpus, source, monkeypatch, where
):
    whole = Corpus(corpus).manifest["content_sha256"]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"sammed_data.withdraw.{where}", stop)
        with pytest.raises(KeyboardInterrupt):
            withdraw(corpus, "fake_mr", patient("p004"), "consent withdrawn")
    assert [e.id for e in read_list(corpus / "exclude.csv")] == [patient("p004")]
    build(*source, corpus, options=OPTIONS)
    assert "p004" not in {r.meta["case_id"] for r in Corpus(corpus).index(with_excluded=True)}
    assert Corpus(corpus).manifest["content_sha256"] != whole


def test_a_withdrawal_that_cannot_be_done_is_a_sentence(corpus):
    with pytest.raises(UsageError, match="no dataset 'fake_m'; did you mean 'fake_mr'"):
        withdraw(corpus, "fake_m", "p", "x")
    with pytest.raises(UsageError, match="no patient 'nobody'"):
        withdraw(corpus, "fake_mr", "nobody", "x")
    with pytest.raises(UsageError, match="--reason"):
        withdraw(corpus, "fake_mr", patient("p004"), " ")
    done = fakes.call_cli("data", "withdraw", corpus, "--patient", "p004", "--reason", "x")
    assert done.returncode == 2
    done = fakes.call_cli("data", "withdraw", corpus, "--patient", "fake_mr:p004", "--reason", "x")
    assert (done.returncode, "1 case, 5 images" in done.stdout) == (0, True)


def test_the_last_patient_cannot_be_withdrawn(tmp_path):
    fakes.write_source(tmp_path / "data", n=1)
    build(fakes.write_catalog(tmp_path / "catalogs"), tmp_path / "data", tmp_path / "corpus")
    with pytest.raises(CorpusError, match="no other patient"):
        withdraw(tmp_path / "corpus", "fake_mr", patient("p000"), "x")
    assert len(Corpus(tmp_path / "corpus").index()) == 5


def test_splits_and_bytes_stay_when_sources_are_added(source, tmp_path):
    catalogs, root = source
    out = tmp_path / "corpus"
    build(catalogs, root, out, options=OPTIONS)
    before = {r.sample_id: (r.split, r.meta["content_sha256"]) for r in Corpus(out).index()}
    held = files(out)
    more = fakes.write_catalog(
        tmp_path / "catalogs", fakes.entry_dict(), fakes.entry_dict("other_mr"),
        fakes.entry_dict("aaa_mr"),
    )  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fake_mr").symlink_to(root / "fake_mr")
    fakes.write_source(tmp_path / "data", n=11, name="other_mr")
    fakes.write_source(tmp_path / "data", n=10, name="aaa_mr")
    result = build(more, tmp_path / "data", out, options=OPTIONS)
    assert result.reused == len(held)
    now = {r.sample_id: (r.split, r.meta["content_sha256"]) for r in Corpus(out).index()}
    assert {k: now[k] for k in before} == before
    assert {r.dataset for r in Corpus(out).index()} == {"fake_mr", "other_mr", "aaa_mr"}
    for path, state in held.items():
        assert (path.stat().st_mtime_ns, path.read_bytes()) == state
    # A patient's split does not depend on who else is there.
    assert all(isinstance(m, CaseMark) for s in Corpus(out).shards for m in case_marks(s))


def test_a_second_withdrawal_says_that_the_rows_are_gone(corpus):
    who = f"fake_mr:{patient('p004')}"
    args = ("data", "withdraw", corpus, "--reason", "x", "--patient")
    assert fakes.call_cli(*args, who).returncode == 0
    again = fakes.call_cli(*args, who)
    assert again.returncode == 2
    assert f"{who} is withdrawn from {corpus} already" in again.stderr
    unknown = fakes.call_cli(*args, "fake_mr:nobody")
    assert unknown.returncode == 2
    assert "no patient 'nobody'" in unknown.stderr  # what was typed, not its digest


def test_a_number_has_the_noun_it_wants():
    from sammed_data.types import counted

    assert [counted(1, "case"), counted(0, "case"), counted(2000, "entry", "entries")] == [
        "1 case", "0 cases", "2,000 entries",
    ]  # fmt: skip
