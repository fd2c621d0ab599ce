"""Planted duplicates, leaks and defects are found; a clean corpus is called clean with a recall."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import nibabel as nib
import numpy as np
import pytest

from sammed_data.audit import planted
from sammed_data.audit.defects import image_defect
from sammed_data.audit.findings import Search
from sammed_data.audit.fingerprints import mark_case, volume_signature
from sammed_data.audit.leaks import overlap_groups, two_sides
from sammed_data.audit.planted import Recall, wilson
from sammed_data.audit.run import AuditOptions, audit_corpus
from sammed_data.audit.scan import CaseKey
from sammed_data.audit.words import sentences
from sammed_data.build import build
from sammed_data.corpus import Corpus
from sammed_data.phantom import write_phantoms
from sammed_data.shards import case_marks
from sammed_data.types import UsageError
from tests.data.build_fakes import call_cli

OPTIONS = AuditOptions(planted=12)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    only = ["phantom_ct", "phantom_us", "phantom_derm"]
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), n_patients=9, only=only)


@pytest.fixture(scope="module")
def clean(phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("clean") / "corpus"
    build(phantoms / "catalogs", phantoms / "data", out)
    return out


@pytest.fixture
def source(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "source")


def build_and_audit(source, tmp_path, only=(), options=OPTIONS):
    out = tmp_path / "corpus"
    build(source / "catalogs", source / "data", out, only=only)
    return audit_corpus(Corpus(out), options)


def picture(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_a_clean_corpus_is_clean_at_a_stated_recall(clean):
    audit = audit_corpus(Corpus(clean), OPTIONS)
    assert (audit.pairs, audit.two_sides, audit.defects) == ((), (), ())
    assert audit.exit_code == 0
    assert audit.search.recall >= 0.9
    assert audit.search.precision == 1.0
    text = "\n".join(sentences(audit))
    assert f"across splits: none found at recall {audit.search.recall:.2f}" in text


def test_recall_and_precision_are_counts_that_can_be_redone(clean):
    audit = audit_corpus(Corpus(clean), OPTIONS)
    assert [r.kind for r in audit.search.recalls] == list(planted.ALTERATIONS)
    assert {r.planted for r in audit.search.recalls} == {12}
    single = [r for r in audit.search.recalls if r.kind != "all together"]
    assert audit.search.recall == sum(r.found for r in single) / (12 * 5)
    found = sum(r.found for r in audit.search.recalls)
    assert audit.search.right >= found  # a copy may meet several slices of its own case
    assert audit.search.confirmed == audit.search.right + audit.search.wrong
    assert audit.search.candidates >= audit.search.confirmed


def test_nothing_planted_is_said_and_not_called_perfect(clean):
    audit = audit_corpus(Corpus(clean), AuditOptions(planted=0))
    assert audit.search.recall is None
    assert "recall not measured" in "\n".join(sentences(audit))


def test_a_blind_search_says_so(clean, monkeypatch):
    """If the confirmation refuses everything, the recall is 0, not 'none found'."""
    from sammed_data.audit import confirm

    monkeypatch.setattr(confirm, "SAME", ((2.0, 2.0),))
    audit = audit_corpus(Corpus(clean), OPTIONS)
    assert audit.search.recall == 0.0
    assert audit.search.precision is None
    assert "none found at recall 0.00" in "\n".join(sentences(audit))


def test_precision_counts_what_is_wrong(clean, monkeypatch):
    from sammed_data.audit import confirm, duplicates, near

    monkeypatch.setattr(confirm, "SAME", ((-2.0, -2.0),))
    loose = duplicates.search
    monkeypatch.setattr(duplicates, "search", lambda *a, **k: loose(*a, **k, limit=120))
    audit = audit_corpus(Corpus(clean), OPTIONS)
    assert near.LIMIT == 56
    assert audit.search.wrong > 0
    assert audit.search.precision < 1


@pytest.mark.parametrize("kind", list(planted.ALTERATIONS))
def test_a_copy_of_a_training_picture_in_test_is_a_leak(source, tmp_path, kind):
    folder = source / "data" / "phantom_us"
    train = sorted(p for p in (folder / "train").glob("p*.png") if "mask" not in p.name)[0]
    target = sorted(p for p in (folder / "test").glob("p*.png") if "mask" not in p.name)[0]
    copy = planted.ALTERATIONS[kind](picture(train), np.random.default_rng(5))
    cv2.imwrite(str(target), np.ascontiguousarray(copy))
    mask = np.zeros(copy.shape[:2], np.uint8)
    mask[10:20, 12:30] = 255
    cv2.imwrite(str(target.with_name(f"{target.stem}_mask.png")), mask)
    audit = build_and_audit(source, tmp_path, ["phantom_us"])
    (pair,) = audit.leaking_pairs
    assert {pair.a.split, pair.b.split} == {"train", "test"}
    assert {pair.a.case_id, pair.b.case_id} == {f"train/{train.stem}", f"test/{target.stem}"} or (
        train.stem in pair.a.case_id + pair.b.case_id
    )
    assert audit.exit_code == 1
    if kind == "flipped":
        assert "flipped" in pair.how


def test_the_same_voxels_under_two_patients_are_found_by_the_fingerprint(source, tmp_path):
    folder = source / "data" / "phantom_ct"
    for what in ("images", "labels"):
        train, test = (sorted((folder / s / what).glob("*.gz"))[0] for s in ("train", "test"))
        held = nib.load(train)  # another file, another type: the same voxels
        nib.save(nib.Nifti1Image(np.asarray(held.dataobj).astype(np.int32), held.affine), test)
    audit = build_and_audit(source, tmp_path, ["phantom_ct"])
    (pair,) = audit.leaking_pairs
    assert (pair.kind, audit.exit_code) == ("same voxels", 1)
    out = tmp_path / "written"
    done = call_cli("data", "audit", tmp_path / "corpus", "--out", out, "--planted", 5, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert [p["kind"] for p in document["pairs"]] == ["same voxels"]
    spoilt = document["planted_defects"][0]
    assert (spoilt["defect"], spoilt["planted"], spoilt["found"]) == ("constant-image", 5, 5)
    assert spoilt["low"] < 1 == spoilt["high"]
    page = (out / "audit.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page
    call_cli("data", "exclude", tmp_path / "corpus", out / "exclude-proposal.csv")
    assert audit_corpus(Corpus(tmp_path / "corpus"), OPTIONS).exit_code == 0


def test_a_corpus_built_before_there_were_fingerprints_is_compared_by_slices(
    clean, tmp_path, monkeypatch
):
    monkeypatch.setattr("sammed_data.audit.volumes.case_marks", lambda shard: None)
    audit = audit_corpus(Corpus(clean), OPTIONS)
    assert any("before cases had fingerprints" in note for note in audit.notes)


def test_patients_on_two_sides_and_overlap_groups():
    def case(dataset, patient, split):
        return CaseKey(dataset=dataset, case_id=split + patient, patient_id=patient, split=split,
                       cluster="patient")  # fmt: skip

    cases = [case("a", "p1", "train"), case("a", "p1", "test"), case("a", "p2", "train"),
             case("b", "p1", "test"), case("c", "p9", "held_out"),
             case("d", "p1", "train")]  # fmt: skip
    (found,) = two_sides(cases)
    assert (found.dataset, found.patient_id, found.splits) == ("a", "p1", ("test", "train"))
    manifest = {"datasets": [
        {"id": "a", "overlaps": ["absent"]}, {"id": "b", "overlaps": []},
        {"id": "c", "overlaps": ["absent"]}, {"id": "d", "overlaps": []},
    ]}  # fmt: skip
    (group,) = overlap_groups(manifest, cases, [])
    assert (group.datasets, group.trained, group.tested) == (("a", "c"), ("a",), ("a", "c"))
    assert group.may_leak


def test_each_defect_is_found(source, tmp_path):
    folder = source / "data" / "phantom_derm" / "train"
    images = sorted((folder / "images").glob("*.jpg"))
    masks = [folder / "masks" / f"{p.stem}_lesion.png" for p in images]
    lesion = picture(masks[0])
    cv2.imwrite(str(masks[1]), 255 - picture(masks[1]))  # inverted
    whole = np.full_like(lesion, 255)
    whole[0, :3] = 0
    cv2.imwrite(str(masks[2]), whole)
    flat = np.full((*lesion.shape, 3), 90, np.uint8)
    flat[5, 5] = 200  # the build refuses images of one value; this one has a speck
    cv2.imwrite(str(images[3].with_suffix(".png")), flat)
    images[3].unlink()
    images[3].with_suffix(".png").rename(images[3])
    drawn = np.repeat(picture(masks[4])[..., None], 3, axis=2)
    drawn[2, 2] = 255  # one pixel more than the mask, or the build would reject it
    cv2.imwrite(str(images[4].with_suffix(".png")), drawn)
    images[4].unlink()
    images[4].with_suffix(".png").rename(images[4])
    audit = build_and_audit(source, tmp_path, ["phantom_derm"])
    found = {(d.kind, d.case.case_id.split("/")[-1]) for d in audit.defects}
    assert {kind for kind, _ in found} >= {
        "inverted-mask", "whole-image-mask", "constant-image", "image-is-mask",
    }  # fmt: skip
    assert audit.exit_code == 3


def test_masks_turned_against_their_image_are_found(source, tmp_path):
    folder = source / "data" / "phantom_ct"
    path = sorted((folder / "train" / "labels").glob("*.gz"))[1]
    held = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(held.dataobj)[:, ::-1], held.affine), path)
    audit = build_and_audit(source, tmp_path, ["phantom_ct"])
    (found,) = [d for d in audit.defects if d.kind == "mask-unlike-image"]
    assert path.name.split(".")[0] in found.case.case_id
    assert "turned up-down" in found.detail


def test_masks_of_another_image_are_found(source, tmp_path):
    folder = source / "data" / "phantom_ct"
    path = sorted((folder / "train" / "labels").glob("*.gz"))[1]
    held = nib.load(path)
    moved = np.roll(np.asarray(held.dataobj), (7, -6), axis=(0, 1))
    nib.save(nib.Nifti1Image(moved, held.affine), path)
    audit = build_and_audit(source, tmp_path, ["phantom_ct"])
    (found,) = [d for d in audit.defects if d.kind == "mask-unlike-image"]
    assert path.name.split(".")[0] in found.case.case_id


def test_fingerprints_are_the_same_for_any_number_of_workers(phantoms, clean, tmp_path):
    build(phantoms / "catalogs", phantoms / "data", tmp_path / "two", workers=2)
    for shard in Corpus(clean).shards:
        twin = tmp_path / "two" / shard.relative_to(clean)
        assert case_marks(shard) == case_marks(twin)
        assert shard.read_bytes() == twin.read_bytes()


def test_a_volume_keeps_its_signature_through_flip_window_and_resize():
    rng = np.random.default_rng(3)
    volume = cv2.GaussianBlur(rng.normal(size=(21, 40, 33)).astype(np.float32), (0, 0), 3)
    other = cv2.GaussianBlur(rng.normal(size=(21, 40, 33)).astype(np.float32), (0, 0), 3)

    def distance(a, b):
        from sammed_data.audit.fingerprints import flip_masks
        from sammed_data.audit.near import distances

        return int(distances(volume_signature(a) ^ flip_masks(3), volume_signature(b)).min())

    assert distance(volume, volume[::-1, :, ::-1]) <= 4
    assert distance(volume, np.clip(volume * 3 + 7, 6.9, 7.2)) <= 40
    bigger = np.stack([cv2.resize(p, (50, 60)) for p in volume])
    assert distance(volume, bigger) <= 12
    assert distance(volume, other) > 60
    mark = mark_case(volume, "c", "p")
    assert len(mark.signature) == 64  # 256 bits: no picture comes back from that
    assert mark.voxels_blake3 == mark_case(volume.astype(np.float64), "c", "p").voxels_blake3


def test_wilson_and_options():
    low, high = wilson(10, 10)
    assert 0.7 < low < 0.75
    assert high == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    assert Recall(kind="x", planted=4, found=2).interval[0] < 0.5
    empty = Search(recalls=(), right=0, wrong=0, volumes=(), crowded=0, flat=0, candidates=0,
                   confirmed=0)  # fmt: skip
    assert (empty.recall, empty.precision) == (None, None)
    with pytest.raises(UsageError, match="--planted"):
        AuditOptions(planted=-1).check()


def test_an_ordinary_picture_has_no_defect(clean):
    corpus = Corpus(clean)
    row = corpus.read(corpus.index()[0])
    assert image_defect(row) is None
    assert image_defect(replace(row, image=np.full_like(row.image, 7))) == "constant-image"
