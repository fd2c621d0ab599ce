"""The entries that a corpus keeps: a row is made again without the folder of entries."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import yaml

from sammed_data.build import Order, build, build_order, find_datasets, resolve_labels
from sammed_data.catalog import load_catalogs
from sammed_data.corpus import Corpus
from sammed_data.exclude import Exclusion, save
from sammed_data.hub_plan import plan_push
from sammed_data.kept import kept_text, parse_kept
from sammed_data.licenses import load_decisions
from sammed_data.lock import read_lock
from sammed_data.ontology import load_ontology
from sammed_data.part import Part
from sammed_data.parts import build_part, merge
from sammed_data.plan import DatasetPlan
from sammed_data.privacy import Pseudonyms
from sammed_data.run_shards import How
from sammed_data.shards import read_rejections
from sammed_data.trace import trace
from sammed_data.types import CatalogError, UsageError
from sammed_data.withdraw import withdraw
from tests.data import build_fakes as fakes
from tests.fakes import build_fake

NAMES = ("a_mr", "fake_mr")
OPEN = {"license": "CC-BY-4.0", "license_confidence": "high"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    base = tmp_path_factory.mktemp("source")
    for name, cases in zip(NAMES, (3, 12), strict=True):
        fakes.write_source(base / "data", n=cases, name=name)
    entries = (fakes.entry_dict(name, **OPEN) for name in NAMES)
    return fakes.write_catalog(base / "cat", *entries), base / "data"


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "corpus"
    build(*source, out)
    return out


@pytest.fixture
def corpus(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "corpus")


def _kept(out):
    return {p.name: p.read_bytes() for p in (out / "catalog").glob("*")}


def _traced(out, source, *, dataset="fake_mr", folder=None, **more):
    opened = Corpus(out)
    row = next(r for r in opened.index() if r.dataset == dataset)
    return trace(opened, row.sample_id, source=folder, root=source[1], **more)


def test_every_bundled_entry_is_kept_and_read_as_it_is(tmp_path):
    ontology = load_ontology(None)
    for name, entry in load_catalogs(None).items():
        public = entry.model_copy(update={"privacy": "public"})
        plan = DatasetPlan(entry=public, cases=(), meanings=resolve_labels(entry, ontology))
        text = kept_text(plan).text
        assert text == kept_text(replace(plan, cases=())).text
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        found = parse_kept(path)
        assert dict(found.meanings) == plan.meanings
        assert found.left_out or found.entry == public
        assert set(found.left_out) <= {"downloads", "download_url"}  # with ?download=1


def test_a_row_of_an_own_entry_needs_no_folder(whole, source):
    for dataset in NAMES:
        found = _traced(whole, source, dataset=dataset)
        assert found.differences == ()
        assert (found.entry.origin, found.entry.same) == ("kept", True)
        assert f"catalog/{dataset}.yaml" in found.entry.said


def test_a_folder_that_is_given_wins_and_is_compared(whole, source, tmp_path):
    found = _traced(whole, source, folder=source[0])
    assert (found.entry.origin, found.entry.same) == ("source", True)
    other = fakes.entry_dict(labels={"1": "spleen", "2": "liver"})
    found = _traced(whole, source, folder=fakes.write_catalog(tmp_path / "cat", other))
    assert (found.entry.origin, found.entry.same) == ("source", False)
    assert "built by another one" in found.entry.said
    assert found.differences


def test_an_entry_that_was_changed_is_not_used(corpus, source):
    kept = corpus / "catalog" / "fake_mr.yaml"
    kept.write_text(kept.read_text().replace("liver", "kidney"))
    with pytest.raises(UsageError, match=r"is not what the build kept.*--source FOLDER"):
        _traced(corpus, source)
    assert _traced(corpus, source, folder=source[0]).differences == ()
    assert _traced(corpus, source, dataset="a_mr").entry.origin == "kept"
    kept.unlink()
    with pytest.raises(UsageError, match=r"fake_mr\.yaml is gone.*--source FOLDER"):
        _traced(corpus, source)


def _as_of_old(out):
    """Take away what a corpus of before had not."""
    shutil.rmtree(out / "catalog")
    lock = yaml.safe_load((out / "corpus.lock.yaml").read_text())
    for said in lock["sources"].values():
        del said["kept_sha256"], said["not_kept"]
    (out / "corpus.lock.yaml").write_text(yaml.safe_dump(lock, sort_keys=False))


def test_an_older_corpus_asks_for_the_folder_and_gets_its_entries(corpus, whole, source):
    _as_of_old(corpus)
    with pytest.raises(UsageError, match=r"'fake_mr'.*; entries of your own .* --source FOLDER"):
        _traced(corpus, source)
    assert _traced(corpus, source, folder=source[0]).entry.same is True
    build(*source, corpus, only=["fake_mr"])  # the other one stays as it was
    assert _kept(corpus).keys() == {"fake_mr.yaml"}
    assert build(*source, corpus).built == 0
    assert fakes.tree(corpus / "catalog") == fakes.tree(whole / "catalog")


def test_a_corpus_without_its_lock_says_that_it_cannot_compare(corpus, source):
    (corpus / "corpus.lock.yaml").unlink()
    with pytest.raises(UsageError, match="--source FOLDER"):
        _traced(corpus, source)
    found = _traced(corpus, source, folder=source[0])
    assert (found.entry.same, found.differences) == (None, ())


def test_words_of_an_own_ontology_are_kept_with_it(source, tmp_path):
    cat = fakes.write_catalog(tmp_path / "cat", fakes.entry_dict(labels={"1": "blob"}))
    own = {"structures": {"blob": {"organ": "blob", "group": "other", "kind": "organ"}}}
    (cat / "_ontology.yaml").write_text(yaml.safe_dump(own))
    fakes.write_source(tmp_path / "data", n=2)
    for file in (tmp_path / "data").rglob("labels/*"):
        file.unlink()
    image, label = fakes.volume_pair(1)
    for case in ("p000", "p001"):
        fakes.write_case(tmp_path / "data" / "fake_mr", case, image, label % 2)
    build(cat, tmp_path / "data", tmp_path / "corpus")
    shutil.rmtree(cat)
    found = _traced(tmp_path / "corpus", (cat, tmp_path / "data"))
    assert (found.entry.origin, found.differences) == ("kept", ())


def test_a_signed_licence_is_part_of_the_entry(source, tmp_path):
    signed = tmp_path / "licence-decisions.yaml"
    said = {"license": "CC0-1.0", "redistribute": True, "commercial": True, "evidence": "terms",
            "signed_by": "A. Researcher", "date": "2026-11-26"}  # fmt: skip
    signed.write_text(yaml.safe_dump({"decisions": {"fake_mr": said}}))
    assert load_decisions(signed)
    order = Order(source=source[0], root=source[1], only=("fake_mr",), decisions=signed)
    build_order(order, tmp_path / "corpus", How(workers=1, progress=lambda done, total: None))
    found = _traced(tmp_path / "corpus", source)
    assert (found.row.meta["license"], found.differences) == ("CC0-1.0", ())


def test_parts_give_the_same_files_and_drop_takes_them_away(whole, source, tmp_path):
    out, order = tmp_path / "corpus", Order(source=source[0], root=source[1])
    how = How(workers=1, progress=lambda done, total: None)
    for index in (1, 0):
        build_part(order, out, Part(index=index, count=2), how)
    assert not (out / "catalog").exists()
    merge(out)
    assert _kept(out) == _kept(whole)
    assert _kept(out).keys() == {f"{name}.yaml" for name in NAMES}
    build(*source, out, only=["fake_mr"], drop=["a_mr"])
    assert _kept(out).keys() == {"fake_mr.yaml"}


def test_a_withdrawal_and_a_push_leave_them_here(corpus, whole, source):
    patient = Pseudonyms(dataset="fake_mr").patient("p004")
    withdraw(corpus, "fake_mr", patient, "consent withdrawn")
    assert _kept(corpus) == _kept(whole)
    assert _traced(corpus, source).entry.origin == "kept"
    build(*source, corpus)
    assert _kept(corpus) == _kept(whole)
    paths = {file.path for file in plan_push(Corpus(corpus)).files}
    assert paths
    assert not any("catalog" in path for path in paths)


def test_other_tools_open_the_corpus(corpus, source, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    found = datasets.load_dataset(str(corpus), cache_dir=str(tmp_path / "hf"))
    assert sum(len(rows) for rows in found.values()) == len(Corpus(corpus).index())
    older = shutil.copytree(corpus, tmp_path / "older")
    _as_of_old(older)
    same = fakes.call_cli("data", "diff", older, corpus)
    assert (same.returncode, "hold the same rows" in same.stdout) == (0, True)
    done = fakes.call_cli("data", "export", corpus, "--out", tmp_path / "e")
    assert done.returncode == 0, done.stderr


def test_folders_and_tokens_stay_out_of_a_public_entry(source, tmp_path):
    more = {
        "root": ["/home/anna/scans", "scans"],
        "download_url": "https://anna:secret@example.org/a.zip",
        "downloads": [{"url": "https://example.org/a.zip?token=secret"}],
        "splits": {"test": ["images/p00[12]*"]},
    }
    cat = fakes.write_catalog(tmp_path / "cat", fakes.entry_dict(**more))
    build(cat, source[1], tmp_path / "corpus")
    kept = parse_kept(tmp_path / "corpus/catalog/fake_mr.yaml")
    assert kept.left_out == ("download_url", "downloads", "root (part)")
    assert kept.entry.root == ["scans"]
    assert kept.entry.splits == {"test": ["images/p00[12]*"]}
    written = b"".join(p.read_bytes() for p in (tmp_path / "corpus").rglob("*") if p.is_file())
    for word in (b"anna", b"secret"):
        assert word not in written
    assert _traced(tmp_path / "corpus", source).differences == ()


PRIVATE = {"privacy": "restricted", "patient": {"regex": r"images/(p\d+)"}}


def _restricted(tmp_path, data, **more):
    cat = fakes.write_catalog(tmp_path / "cat", fakes.entry_dict(**PRIVATE | more))
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    build(cat, data, tmp_path / "corpus", only=["fake_mr"], key_file=key)
    return tmp_path / "corpus", key


def _layout(before="", **more):
    return {
        "images": [{"pattern": f"{before}images/{{case}}.nii.gz"}],
        "labels": [{"pattern": f"{before}labels/{{case}}.nii.gz"}],
    } | more


def test_a_restricted_entry_is_kept_without_what_may_name_a_patient(source, tmp_path):
    more = {
        "layout": _layout(example={"image": "images/p003.nii.gz", "label": "labels/p003.nii.gz"}),
        "splits": {"test": ["images/p003*", "images/p004*"]},
        "quirks": ["p005 moved"],
        "root": ["archive_of_anna"],
        "access_note": "ask Anna",
    }
    corpus, key = _restricted(tmp_path, source[1], **more)
    kept = parse_kept(corpus / "catalog/fake_mr.yaml")
    assert set(kept.left_out) == {"access_note", "layout.example", "quirks", "root", "splits"}
    text = (corpus / "catalog/fake_mr.yaml").read_text().casefold()
    assert not any(f"p{n:03d}" in text or "anna" in text for n in range(12))
    found = _traced(corpus, source, key_file=key)
    assert (found.entry.origin, found.differences) == ("kept", ())
    assert "kept without access_note, layout.example" in found.entry.said
    assert {row.split for row in Corpus(corpus).index()} == {"train", "test"}
    with pytest.raises(UsageError, match="--key"):
        _traced(corpus, source)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"layout": _layout("anna_b/")}, r"layout.images has a word that fewer than 5 patients"),
        (
            {"layout": _layout("anna_b/"), "patient": {"regex": r"(p\d+)", "unit": "image"}},
            r"layout.images has words of its own",
        ),
        ({"layout": _layout("anna_b/"), "patient": None}, r"layout.images has words of its own"),
        ({"layout": _layout("*/", exclude=["anna_b/images/p001*"])}, r"layout.exclude may name"),
        (
            {"layout": _layout("*/"), "patient": {"regex": r"(?:(?=anna)|images/)(p\d+)"}},
            r"patient.regex has a word",
        ),
    ],
)
def test_a_restricted_entry_that_may_name_a_patient_is_not_kept(tmp_path, more, said):
    fakes.write_source(tmp_path / "raw", n=4)
    fakes.write_source(tmp_path / "more", n=8)
    (tmp_path / "data").mkdir()
    place = tmp_path / "data/fake_mr"
    shutil.copytree(tmp_path / "raw/fake_mr", place / "anna_b")
    for path in (tmp_path / "more/fake_mr").rglob("p00[4-7]*"):
        target = place / "others" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    more = {k: v for k, v in (fakes.entry_dict(**PRIVATE) | more).items() if v is not None}
    cat = tmp_path / "cat"
    fakes.write_catalog(cat, more)
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    corpus = tmp_path / "corpus"
    build(cat, tmp_path / "data", corpus, key_file=key)
    assert not (corpus / "catalog/fake_mr.yaml").exists()
    written = b"".join(p.read_bytes() for p in corpus.rglob("*") if p.is_file())
    assert b"anna" not in written
    with pytest.raises(UsageError, match=rf"does not keep it \({said}.*--source FOLDER"):
        _traced(corpus, (cat, tmp_path / "data"), key_file=key)
    found = _traced(corpus, (cat, tmp_path / "data"), folder=cat, key_file=key)
    assert (found.entry.same, found.differences) == (True, ())


def test_a_file_that_is_no_kept_entry_is_a_sentence(tmp_path):
    for number, text in enumerate(("", "[1]", "entry: {}\nmeanings: {}\nleft_out: []\n")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        with pytest.raises(CatalogError, match="expected an entry that a build kept"):
            parse_kept(path)


def test_a_withdrawn_patient_is_said_to_be(corpus, source):
    row = next(r for r in Corpus(corpus).index() if r.meta["case_id"] == "p004")
    patient = row.meta["patient_id"]
    withdraw(corpus, "fake_mr", patient, "consent withdrawn")
    with pytest.raises(UsageError, match=r"patient was withdrawn \(consent withdrawn\)") as found:
        trace(Corpus(corpus), row.sample_id, source=None, root=source[1])
    assert patient not in str(found.value)
    with pytest.raises(UsageError, match="did you mean"):
        trace(Corpus(corpus), "fake_mr--p003--axial--0099", source=None, root=source[1])


def test_a_withdrawal_that_was_stopped_shows_no_pixels(corpus, source):
    row = next(r for r in Corpus(corpus).index() if r.meta["case_id"] == "p004")
    entry = Exclusion(level="patient", dataset="fake_mr", id=row.meta["patient_id"],
                      reason="consent", withdrawn=True)  # fmt: skip
    save(corpus, [entry])
    with pytest.raises(UsageError, match=r"patient was withdrawn \(consent\)"):
        trace(Corpus(corpus), row.sample_id, source=None, root=source[1])


def test_of_a_restricted_source_the_reason_is_not_repeated(source, tmp_path):
    corpus, key = _restricted(tmp_path, source[1])
    row = Corpus(corpus).index()[0]
    withdraw(corpus, "fake_mr", row.meta["patient_id"], "Anna B. asked us to")
    with pytest.raises(UsageError, match="patient was withdrawn: the rows are gone") as found:
        trace(Corpus(corpus), row.sample_id, source=None, root=source[1], key_file=key)
    assert "Anna" not in str(found.value)
    rejected = sorted(map(str, read_rejections(corpus).to_pylist()))
    assert "Anna" not in str(rejected)
    for record in (corpus / ".partial").glob("*.json"):
        record.unlink()
    build(tmp_path / "cat", source[1], corpus, key_file=key)  # every shard anew
    assert sorted(map(str, read_rejections(corpus).to_pylist())) == rejected


def test_a_row_on_the_list_says_so(corpus, source):
    row = next(r for r in Corpus(corpus).index() if r.dataset == "fake_mr")
    save(corpus, [Exclusion(level="sample", dataset="", id=row.sample_id, reason="blurred")])
    where = [row.sample_id, corpus, "--root", source[1]]
    said = fakes.call_cli("data", "trace", *where)
    assert said.returncode == 0, said.stderr
    assert "left out by exclude.csv: blurred" in said.stdout
    assert "catalogue entry of the corpus (catalog/fake_mr.yaml)" in said.stdout
    whole = fakes.call_cli("data", "trace", *where, "--json")
    assert '"excluded": "blurred"' in whole.stdout
    assert '"origin": "kept"' in whole.stdout


def test_a_case_that_was_set_aside_is_said_to_be(tmp_path):
    fakes.write_source(tmp_path / "data", n=3)
    (tmp_path / "data/fake_mr/images/p001.nii.gz").write_bytes(b"no image")
    cat = fakes.write_catalog(tmp_path / "cat")
    build(cat, tmp_path / "data", tmp_path / "corpus")
    with pytest.raises(UsageError, match="set aside by the rule unreadable"):
        trace(
            Corpus(tmp_path / "corpus"),
            "fake_mr--p001--axial--0003",
            source=None,
            root=tmp_path / "data",
        )


def test_the_lock_names_the_files(whole):
    lock = read_lock(whole / "corpus.lock.yaml")
    for name in NAMES:
        assert len(lock.sources[name].kept_sha256) == 64
        assert lock.sources[name].not_kept == ""


def test_the_hash_is_that_of_the_entry_as_it_was_used(whole, source):
    from sammed_data.lock import entry_hash

    (used,) = find_datasets(source[0], source[1], ["fake_mr"], None).datasets
    kept = parse_kept(whole / "catalog/fake_mr.yaml")
    again = DatasetPlan(entry=kept.entry, cases=(), meanings=kept.meanings)
    lock = read_lock(whole / "corpus.lock.yaml")
    assert entry_hash(again) == entry_hash(used) == lock.sources["fake_mr"].entry_sha256


def test_the_bundled_entry_serves_where_the_kept_one_is_gone(tmp_path):
    build_fake(load_catalogs(None)["hc18"], tmp_path / "data", n_cases=1)
    build(None, tmp_path / "data", tmp_path / "corpus", only=["hc18"])
    where = (tmp_path / "corpus", (None, tmp_path / "data"))
    assert _traced(*where, dataset="hc18").entry.origin == "kept"
    (tmp_path / "corpus/catalog/hc18.yaml").unlink()
    found = _traced(*where, dataset="hc18")
    assert (found.entry.origin, found.entry.same, found.differences) == ("bundled", True, ())
    assert "hc18.yaml is gone: the rows were built by it" in found.entry.said
