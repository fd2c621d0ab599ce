"""Phantom datasets: true formats that build, the same bytes each time, hard for geometry."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from sammed_data.build import build
from sammed_data.catalog import load_catalogs
from sammed_data.corpus import Corpus
from sammed_data.phantom import PHANTOMS, patient_rng, split_sizes, write_phantoms
from sammed_data.phantoms.files import index_map
from sammed_data.phantoms.volumes import thorax_ct
from sammed_data.readers.registry import read_volume
from sammed_data.types import UsageError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), n_patients=4, seed=3)


@pytest.fixture(scope="module")
def corpus(written):
    build(written / "catalogs", written / "data", written / "corpus")
    return Corpus(written / "corpus")


def _digests(root: Path) -> dict[str, str]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file() and "corpus" not in p.parts)
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def test_same_bytes_each_time(written, tmp_path):
    """Nothing of the clock or of an earlier draw gets into a file."""
    again = write_phantoms(tmp_path, n_patients=4, seed=3, only=["phantom_mr"])
    again = write_phantoms(tmp_path, n_patients=4, seed=3)
    assert _digests(again) == _digests(written)
    assert len(_digests(again)) > 60


def test_other_seed_other_patients(tmp_path):
    one = write_phantoms(tmp_path / "a", n_patients=4, seed=1, only=["phantom_us"])
    two = write_phantoms(tmp_path / "b", n_patients=4, seed=2, only=["phantom_us"])
    first, second = _digests(one / "data"), _digests(two / "data")
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first)


def test_patients_differ():
    a, b = (thorax_ct(patient_rng(0, "phantom_ct_rt", p)) for p in ("p001", "p002"))
    assert a.image_ZYX.shape[1:] == (88, 104)
    n = min(len(a.image_ZYX), len(b.image_ZYX))
    lungs = [x.masks_ZYX["Lung_R"][:n] for x in (a, b)]
    assert 0.2 < (lungs[0] & lungs[1]).sum() / (lungs[0] | lungs[1]).sum() < 0.95


def test_every_entry_is_built_without_a_rejected_case(corpus):
    manifest = corpus.manifest
    assert {d["id"] for d in manifest["datasets"]} == set(PHANTOMS)
    assert manifest["counts"]["cases"]["rejected"] == {}
    masks = manifest["counts"]["masks"]
    assert masks["candidates"] == masks["kept"] + sum(masks["rejected"].values())


def test_official_splits_and_the_held_out_set(corpus):
    sizes = split_sizes(4)
    assert sizes == {"train": 2, "validation": 1, "test": 1}
    rows = corpus.index()
    for name, phantom in PHANTOMS.items():
        patients: dict[str, set[str]] = {}
        for row in rows:
            if row.dataset == name:
                patients.setdefault(row.split, set()).add(row.meta["patient_id"])
        counts = {split: len(found) for split, found in patients.items()}
        assert counts == ({"held_out": 4} if phantom.held_out else sizes)


def test_default_size_gives_sixty_test_patients():
    tested = [p for p in PHANTOMS.values() if not p.held_out]
    assert len(tested) * split_sizes(36)["test"] >= 60


def test_rtstruct_gives_the_drawn_masks_back(written, corpus):
    """Contours halfway between pixel centres, holes of the tumour included."""
    anatomy = thorax_ct(patient_rng(3, "phantom_ct_rt", "p001"))
    structures = {"lung_right": "Lung_R", "lung_left": "Lung_L", "heart": "Heart"}
    rows = [
        corpus.read(r)
        for r in corpus.index(["train"])
        if r.dataset == "phantom_ct_rt" and r.meta["case_id"].endswith("p001")
    ]
    assert rows
    for row in rows:
        for structure, name in structures.items():
            planes = [m.mask_HW for m in row.masks if m.structure == structure]
            found = np.any(planes, axis=0) if planes else np.zeros((88, 104), bool)
            drawn = anatomy.masks_ZYX[name][row.meta["slice_index"]]
            assert (found ^ drawn).sum() <= 8  # parts under 4 px are rejected
    series = read_volume(written / "data/phantom_ct_rt/train/p001/CT")
    assert np.abs(series.array - anatomy.image_ZYX).max() == 0
    assert series.geometry.spacing_zyx_mm == pytest.approx(anatomy.spacing_zyx_mm)


def test_geometry_alone_fails(corpus):
    """The ellipse inscribed in the box reaches 0.75 Dice at most, on average over masks."""
    scores = []
    for row in corpus.index():
        full = corpus.read(row)
        scores += [_ellipse_dice(m.mask_HW, m.box_xyxy) for m in full.masks]
    assert len(scores) > 250
    assert np.mean(scores) <= 0.75


def _ellipse_dice(mask_HW: np.ndarray, box: tuple[int, int, int, int]) -> float:
    x0, y0, x1, y1 = box
    y, x = np.mgrid[: mask_HW.shape[0], : mask_HW.shape[1]]
    u = (x + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    v = (y + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    ellipse = u**2 + v**2 <= 1
    return float(2 * (ellipse & mask_HW).sum() / (ellipse.sum() + mask_HW.sum()))


def test_entries_say_what_they_are(written):
    for name, entry in load_catalogs(written / "catalogs").items():
        assert "Phantom" in entry.name
        assert entry.license == "CC0-1.0"
        assert (entry.role == "held_out") == PHANTOMS[name].held_out


def test_index_map_counts_up():
    masks = {"a": np.eye(3, dtype=bool)[None], "b": ~np.eye(3, dtype=bool)[None]}
    assert index_map(masks)[0].tolist() == [[1, 2, 2], [2, 1, 2], [2, 2, 1]]


def test_bad_requests_are_sentences(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'phantom_ct'"):
        write_phantoms(tmp_path, only=["phantm_ct"])
    with pytest.raises(UsageError, match="at least 4 patients"):
        write_phantoms(tmp_path, n_patients=2)
