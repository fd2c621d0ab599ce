"""Defects are planted to measure the checks: 'none found' always stands beside a recall."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sammed_data.audit import spoilt, unlike
from sammed_data.audit.defects import image_defect
from sammed_data.audit.gathered import gather
from sammed_data.audit.run import AuditOptions, audit_corpus
from sammed_data.audit.spoilt import KINDS, SAMPLE, plant_defects
from sammed_data.audit.words import document, sentences, tables
from sammed_data.build import build
from sammed_data.corpus import Corpus
from sammed_data.phantom import write_phantoms

OPTIONS = AuditOptions(planted=8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("spoilt")
    source = write_phantoms(root, n_patients=9, only=["phantom_ct", "phantom_us"])
    build(source / "catalogs", source / "data", root / "corpus")
    return Corpus(root / "corpus")


@pytest.fixture
def found(corpus, tmp_path):
    return gather(corpus, tmp_path, 1, lambda *_: None)


def line(audit, kind):
    (said,) = [s for s in sentences(audit) if s.startswith(f"{kind}:")]
    return said


def test_each_kind_of_defect_is_said_with_a_recall_and_the_counts_add_up(corpus):
    audit = audit_corpus(corpus, OPTIONS)
    for kind in KINDS:
        own = [s for s in audit.spoilt if s.defect == kind]
        planted, hits = sum(s.planted for s in own), sum(s.found for s in own)
        assert 0 < planted <= OPTIONS.planted * len(own)
        assert f"none found at recall {hits / planted:.2f}" in line(audit, kind)
        assert f"{hits} of {planted} planted ones are, and 0 of 8 untouched" in line(audit, kind)
    sure = [s for s in audit.spoilt if s.defect != "mask-unlike-image"]
    assert all(s.found == s.planted == 8 for s in sure)
    (table,) = [t for t in tables(audit) if t.title.startswith("Planted defects")]
    rows = document(audit)["planted_defects"]
    assert len(table.rows) == len(rows) == len(audit.spoilt)
    assert [r["found"] for r in rows] == [s.found for s in audit.spoilt]


def test_the_same_rows_are_spoilt_in_the_same_way_each_time(found):
    first = plant_defects(found, 6)
    assert plant_defects(found, 6) == first
    assert max(s.untouched for s in plant_defects(found, SAMPLE)) <= SAMPLE


def test_planting_changes_nothing_that_the_audit_holds(found):
    masks, rows = found.masks_M.copy(), found.rows_N.copy()
    plant_defects(found, 6)
    assert np.array_equal(found.masks_M, masks)
    assert np.array_equal(found.rows_N, rows)


def test_blind_checks_are_said_to_be_blind(corpus, monkeypatch):
    monkeypatch.setattr(spoilt, "image_defect", lambda row: None)
    monkeypatch.setattr(unlike.Usual, "says", lambda self, place: "")
    monkeypatch.setattr(unlike.Usual, "says_instead", lambda self, place, case, parts: "")
    audit = audit_corpus(corpus, OPTIONS)
    assert "constant-image: none found at recall 0.00 (0.00 to" in line(audit, "constant-image")
    assert "none found at recall 0.00" in line(audit, "mask-unlike-image")


def test_checks_that_cry_wolf_are_said_to_do_so(corpus, monkeypatch):
    monkeypatch.setattr(spoilt, "image_defect", lambda row: "constant-image")
    audit = audit_corpus(corpus, OPTIONS)
    assert audit.spoilt[0].alarms == 8
    assert "all of the sample has a defect already" in line(audit, "constant-image")


def test_what_cannot_be_planted_is_said(corpus, found):
    audit = audit_corpus(corpus, AuditOptions(planted=0))
    for kind in KINDS:
        assert "none found (recall not measured: nothing was to be planted" in line(audit, kind)
    found.group_C = np.zeros_like(found.group_C)  # one patient
    few = plant_defects(found, 4)
    assert few[-1].planted == 0
    assert few[-1].why_not == "no structure has masks of two patients"
    said = line(replace(audit, spoilt=few), "mask-unlike-image")
    assert "; masks of another patient: not planted, no structure has masks of two" in said


def test_spoilt_rows_are_what_they_are_called(found):
    numbers = np.unique(found.masks_M["row"])
    row = found.row(int(numbers[0]))
    mask, before = row.masks[0], row.image.copy()
    plane = np.asarray(mask.mask_HW)
    (inverse,) = spoilt.inverted(row, 0).masks
    assert np.array_equal(inverse.mask_HW, ~plane)
    assert inverse.area_px == plane.size - mask.area_px
    (whole,) = spoilt.filled(row, 0).masks
    assert whole.box_xyxy == (0, 0, row.width, row.height)
    assert np.array_equal(row.image, before)


def test_a_mask_through_jpeg_is_still_a_mask(found):
    row = found.row(int(found.masks_M["row"][0]))
    drawn = spoilt.own_masks_jpeg(row, 0)
    assert len(np.unique(drawn.image)) > 8
    assert image_defect(drawn) == "image-is-mask"
    assert image_defect(row) is None


def test_cases_that_have_like_cases_are_counted_apart(corpus):
    audit = audit_corpus(corpus, OPTIONS)
    own = [s for s in audit.spoilt if s.defect == "mask-unlike-image"]
    assert all(s.beside == s.planted and s.beside_found == s.found for s in own)  # 9 each
    assert "in datasets of 8 cases" not in line(audit, "mask-unlike-image")
    fewer = tuple(replace(s, beside=s.planted // 2, beside_found=s.planted // 4) for s in own)
    others = tuple(s for s in audit.spoilt if s not in own)
    said = line(replace(audit, spoilt=others + fewer), "mask-unlike-image")
    hits, beside = sum(s.beside_found for s in fewer), sum(s.beside for s in fewer)
    assert f"; in datasets of 8 cases or more {hits} of {beside}" in said
    rows = [r for r in document(audit)["planted_defects"] if r["defect"] == "mask-unlike-image"]
    assert [r["planted_beside_peers"] for r in rows] == [s.planted for s in own]


def test_most_misplaced_masks_of_phantoms_are_found(found):
    own = [s for s in plant_defects(found, 9) if s.defect == "mask-unlike-image"]
    hits = {s.how: (s.found, s.planted) for s in own}
    assert all(s.alarms == 0 for s in own)
    for how in ("masks mirrored", "masks shifted by a tenth", "masks of another patient"):
        assert hits[how][0] >= 0.7 * hits[how][1] > 0, hits
