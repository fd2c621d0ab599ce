"""`sammed data push`: what may go to the Hub, what is refused, what a user of `datasets` gets."""

from __future__ import annotations

import json
import types

import numpy as np
import pytest

from sammed_data.build import build
from sammed_data.corpus import Corpus
from sammed_data.hub import check_repo, open_hub, push
from sammed_data.hub_plan import plan_push
from sammed_data.types import CatalogError, CorpusError, FetchError, UsageError
from tests.data import build_fakes as fakes

OPEN = {"license": "CC-BY-4.0", "license_confidence": "high"}
ENTRIES = {
    "fake_mr": OPEN,
    "closed_mr": {"license": "CC-BY-NC-ND-4.0", "license_confidence": "high"},
    "doubtful_mr": {"license": "CC-BY-4.0", "license_confidence": "medium"},
    "own_mr": OPEN | {"privacy": "restricted"},
}
DECISION = """decisions:
  doubtful_mr:
    license: CC-BY-4.0
    redistribute: true
    commercial: true
    evidence: section 3 of the terms, read on 2026-11-25
    signed_by: A. Researcher
    date: 2026-11-25
"""


class FakeHub:
    """A repository in memory, with what HfApi is asked for."""

    def __init__(self):
        self.files, self.commits, self.asked, self.broken_after = {}, [], [], None

    def create_repo(self, repo_id, **options):
        self.asked.append((repo_id, options))

    def list_repo_tree(self, repo_id, **options):
        for path, data in self.files.items():
            large = {"sha256": fakes.hashlib.sha256(data).hexdigest()}
            yield types.SimpleNamespace(path=path, lfs=large if ".parquet" in path else None)

    def create_commit(self, repo_id, operations, **options):
        if self.broken_after is not None and len(self.commits) >= self.broken_after:
            raise ConnectionError("the line is dead")
        self.commits.append([op.path_in_repo for op in operations])
        for op in operations:
            with op.as_file() as file:
                self.files[op.path_in_repo] = file.read()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("push")
    entries = [fakes.entry_dict(name, **more) for name, more in ENTRIES.items()]
    fakes.write_catalog(base / "catalogs", *entries)
    for name in ENTRIES:
        fakes.write_source(base / "data", 10, name)
    (base / "key").write_bytes(bytes(range(32)))
    build(base / "catalogs", base / "data", base / "corpus", key_file=base / "key")
    build(base / "catalogs", base / "data", base / "open", only=["fake_mr"])
    (base / "decisions.yaml").write_text(DECISION)
    return base


def _refused(plan):
    return {each.dataset: each.refused for each in plan.refused}


def test_what_may_not_be_passed_on_is_refused_with_the_reason(folder):
    plan = plan_push(Corpus(folder / "corpus"))
    said = _refused(plan)
    assert said.keys() == {"closed_mr", "doubtful_mr", "own_mr"}
    assert "does not allow slices to be passed on" in said["closed_mr"]
    assert "sign it in licence-decisions.yaml" in said["doubtful_mr"]
    assert "restricted" in said["own_mr"]
    hub = FakeHub()
    with pytest.raises(CorpusError, match="--leave-out pushes the others"):
        push(plan, "lab/c", hub)
    assert (hub.asked, hub.files) == ([], {})


def test_restricted_rows_are_known_without_the_word_of_the_manifest(folder, monkeypatch):
    corpus = Corpus(folder / "corpus")
    for said in corpus.manifest["datasets"]:
        said.pop("privacy")
    assert "restricted" in _refused(plan_push(corpus))["own_mr"]


def test_a_signed_decision_lets_a_dataset_go_but_no_restricted_one(folder, tmp_path):
    plan = plan_push(Corpus(folder / "corpus"), folder / "decisions.yaml")
    assert _refused(plan).keys() == {"closed_mr", "own_mr"}
    both = DECISION + DECISION.partition("\n")[2].replace("doubtful_mr", "own_mr")
    (tmp_path / "more.yaml").write_text(both)
    assert "own_mr" in _refused(plan_push(Corpus(folder / "corpus"), tmp_path / "more.yaml"))
    (tmp_path / "no.yaml").write_text(DECISION.replace("A. Researcher", ""))
    with pytest.raises(CatalogError, match="signed_by"):
        plan_push(Corpus(folder / "corpus"), tmp_path / "no.yaml")


def test_rows_of_another_licence_than_was_signed_are_refused(folder, tmp_path):
    other = DECISION.replace("CC-BY-4.0", "LicenseRef-terms-of-use")
    (tmp_path / "other.yaml").write_text(other)
    said = _refused(plan_push(Corpus(folder / "corpus"), tmp_path / "other.yaml"))
    assert "its rows name the licence CC-BY-4.0, not LicenseRef" in said["doubtful_mr"]


def test_what_is_left_out_leaves_a_whole_corpus(folder, tmp_path):
    plan = plan_push(Corpus(folder / "corpus"), folder / "decisions.yaml")
    hub = FakeHub()
    sent = push(plan, "lab/c", hub, private=True, leave_out=True)
    assert hub.asked == [("lab/c", {"repo_type": "dataset", "private": True, "exist_ok": True})]
    assert sent == sum(map(len, hub.files.values()))
    for path, data in hub.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    everything = b"".join(hub.files.values())
    assert not any(word in everything for word in (b"own_mr", b"closed_mr", b"/catalogs"))
    assert not {"corpus.yaml", "corpus.lock.yaml"} & hub.files.keys()
    found, whole = Corpus(tmp_path), Corpus(folder / "corpus")
    assert {r.dataset for r in found.index()} == {"fake_mr", "doubtful_mr"}
    assert len(found.index()) == sum(r.dataset in found_ids(found) for r in whole.index())
    assert found.manifest["counts"]["images"]["kept"] == len(found.index())
    assert found.content_hash == plan.content_sha256 != whole.content_hash
    assert hub.commits[-1][-1] == "manifest.json"  # what makes it a corpus is the last
    assert "license:\n  - cc-by-4.0" in hub.files["README.md"].decode()
    (signed,) = (d for d in found.manifest["datasets"] if d["id"] == "doubtful_mr")
    assert "signed by A. Researcher on 2026-11-25" in signed["license_evidence"]


def found_ids(corpus):
    return {d["id"] for d in corpus.manifest["datasets"]}


def test_a_broken_push_goes_on_and_sends_nothing_twice(folder, monkeypatch):
    monkeypatch.setattr("sammed_data.hub._FILES_TOGETHER", 2)
    plan, hub = plan_push(Corpus(folder / "open")), FakeHub()
    hub.broken_after = 1
    with pytest.raises(FetchError, match="the line is dead; mend it .token"):
        push(plan, "lab/c", hub)
    assert "manifest.json" not in hub.files
    hub.broken_after = None
    push(plan, "lab/c", hub)
    sent = [path for commit in hub.commits for path in commit]
    assert sorted(sent) == sorted({f.path for f in plan.files})
    shards = sum(f.path.endswith(".parquet") for f in plan.files)
    told = []
    push(plan, "lab/c", hub, tell=lambda file, new: told.append(new))
    assert told.count(False) == shards


def test_a_list_of_exclusions_goes_with_it_and_is_said(folder):
    corpus = Corpus(folder / "open")
    (corpus.root / "exclude.csv").write_text(
        f"level,dataset,id,reason\nsample,,{corpus.index()[0].sample_id},blurred\n"
    )
    try:
        plan = plan_push(Corpus(corpus.root))
    finally:
        (corpus.root / "exclude.csv").unlink()
    (listed,) = (f for f in plan.files if f.path == "exclude.csv")
    assert "blurred" in listed.source
    assert "sammed data withdraw" in plan.notes[0]


def test_a_dry_run_lists_all_and_sends_nothing(folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    run = fakes.call_cli("data", "push", "corpus", "lab/c", "--dry-run", cwd=folder)
    assert run.returncode == 3, run.stderr
    assert "refused: closed_mr" in run.stdout
    run = fakes.call_cli("data", "push", "open", "lab/c", "--dry-run", "--json", cwd=folder)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["rows"] == len(Corpus(folder / "open").index())
    for file in document["files"]:
        place = folder / "open" / file["path"]
        if place.suffix == ".parquet":
            assert file["bytes"] == place.stat().st_size
    assert document["files"][-1]["path"] == "manifest.json"
    assert document["datasets"][0]["license"] == "CC-BY-4.0"
    run = fakes.call_cli("data", "push", "corpus", "lab/c", "--leave-out", cwd=folder)
    assert run.returncode == 2
    assert "HF_TOKEN" in run.stderr
    run = fakes.call_cli("data", "push", "corpus", "lab/c", cwd=folder)
    assert run.returncode == 1
    assert "closed_mr" in run.stderr


def test_a_corpus_is_an_argument_or_an_option(folder):
    asked = [
        ("push", "open", "lab/c", "--dry-run"),
        ("push", "lab/c", "--corpus", "open", "--dry-run"),
        ("licenses", "open"),
        ("licenses", "--corpus", "open"),
    ]
    runs = [fakes.call_cli("data", *words, "--json", cwd=folder) for words in asked]
    assert [r.returncode for r in runs] == [0, 0, 0, 0], [r.stderr for r in runs]
    assert runs[0].stdout == runs[1].stdout
    assert runs[2].stdout == runs[3].stdout
    assert [d["dataset"] for d in json.loads(runs[2].stdout)] == ["fake_mr"]
    for words, said in (
        (("push", "open", "lab/c", "--corpus", "corpus"), "expected one corpus"),
        (("push", "a", "b", "c"), "found 3 arguments"),
        (("licenses", "open", "--only", "hc18"), "no dataset of open 'hc18'"),
        (("licenses", "open", "--source", "."), "do not go together"),
    ):
        run = fakes.call_cli("data", *words, cwd=folder)
        assert (run.returncode, said in run.stderr) == (2, True), run.stderr


def test_the_command_pushes_with_the_token_of_the_environment(folder, monkeypatch):
    hub, tokens = FakeHub(), []
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token: tokens.append(token) or hub)
    monkeypatch.setenv("HF_TOKEN", "hf_fake")
    run = fakes.call_cli("data", "push", "open", "lab/c", "--json", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert tokens == ["hf_fake"]
    assert json.loads(run.stdout)["sent_bytes"] == sum(map(len, hub.files.values()))
    front = hub.files["README.md"].decode().split("---")[1]
    assert "license:\n  - cc-by-4.0" in front
    assert "hf_fake" not in run.stdout + run.stderr


@pytest.mark.parametrize("name", ["corpus", "a/b/c", "../x", "a/..", "/a", "a/b c"])
def test_names_that_are_no_repository_are_refused(name):
    with pytest.raises(UsageError, match="OWNER/NAME"):
        check_repo(name)
    with pytest.raises(UsageError, match="HF_TOKEN"):
        open_hub("")


def test_plain_datasets_streams_what_was_pushed_with_the_declared_features(
    folder, tmp_path, monkeypatch
):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = FakeHub()
    push(plan_push(Corpus(folder / "open")), "lab/c", hub)
    for path, data in hub.files.items():
        (tmp_path / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / path).write_bytes(data)
    streamed = datasets.load_dataset(
        str(tmp_path / "repo"), streaming=True, cache_dir=str(tmp_path / "hf")
    )
    corpus = Corpus(folder / "open")
    assert set(streamed) == {s.parent.name for s in corpus.shards}
    for split, part in streamed.items():
        assert isinstance(part.features["image"], datasets.Image)
        rows = {row.sample_id: row for row in corpus.index([split])}
        for found in part:
            row = corpus.read(rows.pop(found["sample_id"]))
            np.testing.assert_array_equal(np.asarray(found["image"]), row.image)
            first = np.asarray(found["masks"][0]["mask"]) > 0
            np.testing.assert_array_equal(first, row.masks[0].mask_HW)
            assert found["spacing_x_mm"] == row.meta["spacing_x_mm"]
        assert not rows
