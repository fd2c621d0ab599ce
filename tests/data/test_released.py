"""SA-Med2D-20M and IMed-361M as sources: names, indices, classes, and every known defect."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from sammed_data.build import build, find_datasets
from sammed_data.catalog import load_catalogs
from sammed_data.corpus import Corpus
from sammed_data.plan import BuildOptions
from sammed_data.readers.sparse import read_places
from sammed_data.released import pairs
from sammed_data.released.names import PREFIXES, class_id, image_name, modality_word
from sammed_data.released.pairs import read_pairs
from sammed_data.shards import read_rejections
from sammed_data.types import ReadError
from tests import fake_files
from tests.fake_released import grey, write_imed, write_samed2d

SHAPE = (22, 38)
ENTRIES = load_catalogs(None)


def _box(top: int, left: int, height: int = 8, width: int = 10) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


CLASSES = {
    "AMOS2022": {"liver": "0001", "class1": "0002", "left": "0003"},
    "ACDC": {"left_ventricular_cavity": "0001", "right_ventricular_cavity": "0003"},
    "ichallenge_adam_task2": {"optic_disc": "0000"},
    "autoPET": {"tumor": "0001"},
    "KiTS": {"tumor": "0002"},
    "Brain_PTM": {"corticospinal_tract": "0001"},
    "sz_cxr": {"lung": "0001"},
}


def _release(root):
    """A small release with one image for every known defect."""
    disc = _box(2, 3)
    heart = _box(1, 1, 18, 30)
    binary = _box(0, 0, 22, 20).astype(np.uint8) * 255
    images = {
        "ct_00--AMOS2022--amos_0004--z_0075": (
            grey(1, SHAPE),
            {"0001_000": _box(2, 3), "0001_001": _box(12, 3), "0002_000": _box(2, 20),
             "0003_000": _box(12, 20), "0009_000": _box(3, 5)},
        ),
        "mr_cmr--ACDC--patient001_frame01--x_0006": (
            grey(2, SHAPE), {"0001_000": _box(4, 4), "0003_000": heart},
        ),
        "mr_cmr--ACDC--patient001_frame12--x_0006": (grey(3, SHAPE), {"0003_000": _box(4, 4)}),
        "fundus_photography--ichallenge_adam_task2--A0001--2d_none": (
            grey(4, SHAPE), {"0000_000": ~disc},
        ),
        "pet_00--autoPET--PETCT_1--z_0100": (grey(5, SHAPE), {"0001_000": _box(4, 4)}),
        "ct_00--KiTS--case_00000--y_0010": (grey(6, SHAPE), {"0002_000": np.ones((5, 5), bool)}),
        "mr_00--Brain_PTM--case_1--z_0001": (binary, {"0001_000": _box(4, 4)}),
        "x_ray--sz_cxr--CHN--CXR_1--2d_none": (grey(7, SHAPE), {"0001_000": _box(4, 4)}),
        "ct_tmax--KiTS--case_00001--y_0010": (
            grey(8, SHAPE), {"0002_000": _box(4, 4), "0002_001": np.zeros(SHAPE, bool)},
        ),
    }  # fmt: skip
    write_samed2d(root, images, CLASSES)
    return images


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    base = tmp_path_factory.mktemp("released")
    _release(base / "data/SAMed2Dv1")
    options = BuildOptions(min_part_px=1)
    build(None, base / "data", base / "out", only=["sa_med2d_20m"], options=options)
    return base


def test_names_of_the_release():
    name = image_name("x_ray--sz_cxr--CHN--CXR_1--2d_none")
    assert (name.prefix, name.source, name.case, name.axis) == (
        "x_ray", "sz_cxr", "CHN--CXR_1", "native",
    )  # fmt: skip
    assert len(PREFIXES) == 34
    assert PREFIXES["mr_t1gd"] == ("MR", "T1ce")
    assert PREFIXES["fundus_photography"] == ("fundus", "")
    assert image_name("ct_00--A--c--z_0141").axis == "axial"
    assert class_id("masks/ct_00--A--c--z_0141--0003_012.png") == "0003"
    assert class_id("masks/nothing.png") is None
    assert [modality_word(w) for w in ("ct", "MRI-T1", "x_ray", "sonar")] == [
        "CT", "MR", "X-ray", None,
    ]  # fmt: skip
    for wrong in ("ct_00--A--z_0001", "ct_99--A--c--z_0001", "ct_00--A--c--w_0001"):
        with pytest.raises(ReadError, match="expected|unknown"):
            image_name(wrong)


def test_rows_have_the_modality_of_their_name(built):
    rows = {r.meta["case_id"]: r for r in Corpus(built / "out").index()}
    said = {c.partition("--")[0]: (r.modality, r.meta["sequence"]) for c, r in rows.items()}
    assert said == {
        "ct_00": ("CT", ""), "mr_cmr": ("MR", "cine"), "fundus_photography": ("fundus", ""),
        "pet_00": ("CT", ""), "x_ray": ("X-ray", ""), "ct_tmax": ("CT", "TMAX"),
    }  # fmt: skip
    assert {r.dataset for r in rows.values()} == {"sa_med2d_20m"}
    frames = {r.meta["patient_id"] for c, r in rows.items() if "--ACDC--" in c}
    assert len(frames) == 1  # two frames of one patient
    assert {r.meta["cluster"] for r in rows.values()} == {"study"}


def test_classes_and_known_defects(built):
    rows = {r.meta["case_id"]: r for r in Corpus(built / "out").index()}
    kept = {c: sorted(m.structure for m in r.masks) for c, r in rows.items()}
    assert kept["ct_00--AMOS2022--amos_0004--z_0075"] == ["liver", "liver"]
    assert kept["mr_cmr--ACDC--patient001_frame01--x_0006"] == ["heart_ventricle_left"]
    assert kept["mr_cmr--ACDC--patient001_frame12--x_0006"] == ["heart_ventricle_right"]
    assert kept["ct_tmax--KiTS--case_00001--y_0010"] == ["kidney_tumor"]
    disc = rows["fundus_photography--ichallenge_adam_task2--A0001--2d_none"].masks[0]
    assert (disc.structure, disc.area_px) == ("optic_disc", 80)  # turned the right way round
    rejected = read_rejections(built / "out").to_pylist()
    found = Counter(r["rule"] for r in rejected)
    assert found == {
        "unknown-class": 3, "union-class": 1, "mask-grid": 1, "image-is-label": 1, "no-area": 1,
        "unlabelled": 1,
    }  # fmt: skip
    unknown = {r["label"] for r in rejected if r["rule"] == "unknown-class"}
    assert unknown == {"AMOS2022/class1", "AMOS2022/left", "AMOS2022/0009"}
    (grid,) = [r for r in rejected if r["rule"] == "mask-grid"]
    assert "5 x 5 pixels, its image has 22 x 38" in grid["reason"]
    masks = Corpus(built / "out").manifest["counts"]["masks"]
    assert masks["candidates"] == masks["kept"] + sum(masks["rejected"].values()) == 14


def test_what_lies_there_is_compared_with_the_index(tmp_path):
    root = tmp_path / "SAMed2Dv1"
    images = _release(root)
    index = json.loads((root / "SAMed2D_v1.json").read_text())
    stem = "ct_00--AMOS2022--amos_0004--z_0075"
    (root / f"masks/{stem}--0001_001.png").unlink()
    (root / "images/pet_00--autoPET--PETCT_1--z_0100.png").unlink()
    index["images/zz_00--New--c--z_0001.png"] = ["masks/zz_00--New--c--z_0001--0001_000.png"]
    index["images/ct_00--KiTS--case_00000--y_0010.png"] = ["../../etc/passwd"]
    index["images/ct_00--Empty--a--z_0001.png"] = []
    (root / "SAMed2D_v1.json").write_text(json.dumps(index))
    fake_files.write_picture(root / "images/ct_00--Extra--a--z_0001.png", grey(9, SHAPE))
    (root / "images/._junk.png").write_bytes(b"x")
    found = find_datasets(None, tmp_path, ["sa_med2d_20m"], None).datasets[0]
    assert len(found.cases) == len(images) - 2
    said = " | ".join(r.reason for r in found.unpaired)
    assert "AMOS2022: 1 masks of the index that are not there" in said
    assert "autoPET: 1 images of the index that are not there" in said
    assert "unknown modality 'zz_00'" in said
    assert "KiTS: 1 images with a mask outside masks/" in said
    assert "Empty: 1 images without a mask in the index" in said
    assert "Extra: 1 images that the index does not list" in said
    first = next(c for c in found.cases if c.case_id == stem)
    assert len(first.labels) == 4
    assert found.cases[0] == next(iter(found.cases)) == found.cases[:1][0]


@pytest.mark.parametrize("chunk", [7, 64, 1 << 20])
def test_the_index_is_read_pair_by_pair(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(pairs, "_CHUNK", chunk)
    whole = {f"images/é{n}.png": [f"masks/{n}_{k}.png" for k in range(n % 4)] for n in range(50)}
    for indent in (None, 4):
        (tmp_path / "a.json").write_text(json.dumps(whole, indent=indent))
        assert dict(read_pairs(tmp_path / "a.json")) == whole
    (tmp_path / "a.json").write_text("{}")
    assert list(read_pairs(tmp_path / "a.json")) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"a"', '{"a":["b"]', '{"a":["b"],', '{"a":"b"}', '{"a":[1]}', '{"a" ["b"]}',
     '{"a":["b"] "c":[]}', '{"a":' + "[" * 100_000],
)  # fmt: skip
def test_a_damaged_index_is_one_sentence(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ReadError, match=r"a\.json: expected"):
        list(read_pairs(tmp_path / "a.json"))


def test_the_index_has_a_size_limit(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text('{"a":["b"]}')
    monkeypatch.setattr(pairs, "MAX_INDEX_BYTES", 5)
    with pytest.raises(ReadError, match="at most 5 bytes"):
        list(read_pairs(tmp_path / "a.json"))


def test_imed_361m(tmp_path):
    root = tmp_path / "data/IMed-361M"
    masks = np.stack([_box(2, 3), _box(12, 3), _box(2, 20)])
    images = {f"ABD_{p:03d}_{s}": (grey(10 * p + s, SHAPE), masks) for p in (1, 2) for s in (5, 6)}
    labels = ["spleen", "kidney_right", "class1"]
    write_imed(root, "BTCV", images, labels, test=("ABD_002_5", "ABD_002_6"))
    write_imed(root, "XR", {"a7": (grey(1, SHAPE), masks[:1])}, ["lung"], modality="x_ray",
               kind="coo")  # fmt: skip
    write_imed(root, "Odd", {"b": (grey(2, SHAPE), masks[:1])}, ["lung"], modality="sonar")
    write_imed(root, "Big", {"c": (grey(3, (9, 11)), masks[:1])}, ["lung"], kind="csc")
    build(None, tmp_path / "data", tmp_path / "out", only=["imed_361m"])
    rows = {r.meta["case_id"]: r for r in Corpus(tmp_path / "out").index()}
    assert {c: (r.modality, r.split) for c, r in rows.items()} == {
        "BTCV--ABD_001_5": ("CT", "train"), "BTCV--ABD_001_6": ("CT", "train"),
        "BTCV--ABD_002_5": ("CT", "test"), "BTCV--ABD_002_6": ("CT", "test"),
        "XR--a7": ("X-ray", "train"),
    }  # fmt: skip
    kept = [(m.structure, m.area_px) for m in rows["BTCV--ABD_001_5"].masks]
    assert sorted(kept) == [("kidney_right", 80), ("spleen", 80)]
    rejected = read_rejections(tmp_path / "out").to_pylist()
    assert Counter(r["rule"] for r in rejected) == {"unknown-class": 4, "unreadable": 2}
    said = " | ".join(r["reason"] for r in rejected)
    assert "one known modality, found sonar" in said
    assert "9 x 11 pixels of its image, found 22 x 38" in said


def test_damaged_sparse_labels(tmp_path):
    from scipy import sparse

    good = sparse.csr_matrix(np.eye(4, dtype=np.uint8))
    whole = {
        "format": np.array(b"csr"), "shape": np.array([4, 4]), "data": good.data,
        "indices": good.indices, "indptr": good.indptr,
    }  # fmt: skip
    path = tmp_path / "a.npz"
    np.savez(path, **whole)
    assert read_places(path)[1].tolist() == [0, 5, 10, 15]
    for change in (
        {"indptr": np.array([0, 9, 1, 2, 4])}, {"indptr": np.array([0, 1])},
        {"indices": np.array([0, 1, 2, 9])}, {"indices": np.array([0.5, 1, 2, 3])},
        {"format": np.array(b"dia")}, {"format": np.array(b"x" * 99)},
        {"shape": np.array([4])}, {"data": np.ones(3)},
        {"data": np.array([object()] * 4, dtype=object)},
    ):  # fmt: skip
        np.savez(path, **(whole | change))
        with pytest.raises(ReadError, match="expected"):
            read_places(path)


def test_every_source_name_of_the_release_leads_to_entries():
    from sammed_data.reconcile import released_names

    names = released_names(None)
    rebuilt = [entry for entries in names.values() for entry in entries]
    assert len(rebuilt) == len(set(rebuilt))
    used = {i for i, e in ENTRIES.items() if "sa_med2d_20m" in e.used_by}
    assert set(rebuilt) == used


def _run(*words):
    from typer.testing import CliRunner

    from sammed_data.cli import app

    return CliRunner().invoke(app, [str(w) for w in words])


def test_a_corpus_of_the_release_differs_by_its_defects_alone(built):
    against = built / "data/SAMed2Dv1/SAMed2D_v1.json"
    done = _run("reconcile", built / "out", "--against", against, "--view", "all", "--json")
    assert done.exit_code == 3
    found = json.loads(done.stdout)
    differing = {
        (n["source"], n["structure"], n["axis"]): (n["ours"], n["theirs"])
        for n in found["lines"]
        if n["difference"]
    }
    assert differing == {
        ("ACDC", "heart_ventricle_right", "sagittal"): (1, 2),
        ("AMOS2022", "AMOS2022/0009", "axial"): (0, 1),
        ("AMOS2022", "AMOS2022/class1", "axial"): (0, 1),
        ("AMOS2022", "AMOS2022/left", "axial"): (0, 1),
        ("Brain_PTM", "", "axial"): (0, 1),
        ("Brain_PTM", "corticospinal_tract", "axial"): (0, 1),
        ("KiTS", "", "coronal"): (1, 2),
        ("KiTS", "kidney_tumor", "coronal"): (1, 3),
    }


def test_a_rebuilt_source_is_compared_with_reasons(tmp_path):
    from tests.fakes import build_fake

    truth = build_fake(ENTRIES["kits19"], tmp_path / "data", n_cases=2, key="case_00000")
    assert len(truth.cases) == 2
    build(None, tmp_path / "data", tmp_path / "out", only=["kits19"])
    rows = Corpus(tmp_path / "out").index()
    root = tmp_path / "SAMed2Dv1"
    images = {}
    for n, row in enumerate(rows):
        number = {"kidney": "0001", "kidney_tumor": "0002"}
        masks = {f"{number[m.structure]}_{k:03d}": _box(4, 4) for k, m in enumerate(row.masks)}
        images[f"ct_00--KiTS--case_0--z_{n:04d}"] = (grey(n, SHAPE), masks)
    classes = {"KiTS": {"kidney": "0001", "tumor": "0002"}, "Heart_Seg_MRI": {"heart": "0001"}}
    write_samed2d(root, images, classes)
    against = ("--against", root / "SAMed2D_v1.json", "--view", "all")
    same = _run("reconcile", tmp_path / "out", *against)
    assert same.exit_code == 0, same.output
    images["ct_00--KiTS--case_0--x_0001"] = (grey(1, SHAPE), {"0001_000": _box(4, 4)})
    images["mr_00--Heart_Seg_MRI--1--z_0001"] = (grey(1, SHAPE), {"0001_000": _box(4, 4)})
    write_samed2d(root, images, classes)
    other = _run("reconcile", tmp_path / "out", *against)
    assert other.exit_code == 3
    assert "axis sagittal is not cut (1 images there): --axes" in other.output
    assert "Heart_Seg_MRI: no entry of the catalogue rebuilds it" in other.output
    less = _run("reconcile", tmp_path / "out", *against, "--built", "--json")
    assert {n["source"] for n in json.loads(less.stdout)["lines"]} == {"KiTS"}
    missing = _run("reconcile", tmp_path / "out", "--against", tmp_path / "no.json")
    assert isinstance(missing.exception, ReadError)
    assert "no.json" in str(missing.exception)
