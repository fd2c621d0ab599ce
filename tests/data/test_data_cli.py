"""`sammed data ...` as a user meets it: exit codes, one sentence, what was built stays."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
import yaml

from tests.data import build_fakes as fakes
from tests.data.anatomy import write_itk, write_series


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with ./catalogs and ./data, and ./corpus built by the plain command."""
    base = tmp_path_factory.mktemp("work")
    fakes.write_source(base / "data")
    fakes.write_catalog(base / "catalogs")
    run = fakes.run_cli("data", "build", "--source", "catalogs/", cwd=base)
    assert run.returncode == 0, run.stderr
    assert "candidates = " in run.stdout
    assert "By organ" in run.stdout
    return base


def _sentence(run, code, *words):
    assert run.returncode == code, run.stderr + run.stdout
    said = run.stderr if code != 3 else run.stdout
    assert "Traceback" not in run.stderr
    for word in words:
        assert word in said, said
    if code != 3:
        assert len(run.stderr.strip().splitlines()) == 1, run.stderr


def _published(folder):
    files = fakes.tree(folder / "corpus")
    return {k: v for k, v in files.items() if not k.startswith(".partial")}


def test_describe_list_check_show_schema(folder, tmp_path):
    shown = fakes.call_cli("data", "describe", cwd=folder)
    assert shown.returncode == 0
    assert (
        "liver"
        in fakes.call_cli("data", "check", "fake_mr", "--source", "catalogs", cwd=folder).stdout
    )
    listed = fakes.call_cli("data", "list", "--source", "catalogs", "--json", cwd=folder)
    assert json.loads(listed.stdout)[0]["place"] == "data/fake_mr"
    sheet = tmp_path / "sheet.png"
    assert fakes.call_cli("data", "show", "--out", sheet, "--n", 5, cwd=folder).returncode == 0
    assert cv2.imread(str(sheet)).std() > 5
    schema = json.loads(fakes.call_cli("data", "schema").stdout)
    assert "label_encoding" in schema["properties"]


def test_speed_is_said_where_all_was_built_now(folder, tmp_path):
    words = ("data", "build", "--source", "catalogs", "--out", tmp_path / "c", "--workers", 1)
    first, again = (fakes.call_cli(*words, cwd=folder).stdout for _ in range(2))
    assert re.search(r"speed: [\d.,]+ images/s, [\d.,]+ MB/s of source files a worker", first)
    assert "speed:" not in again


def test_misspelt_catalogue_key(folder, tmp_path):
    entry = fakes.entry_dict()
    entry["licence"] = entry.pop("license")
    fakes.write_catalog(tmp_path / "cat", entry)
    before = _published(folder)
    run = fakes.call_cli("data", "build", "--source", tmp_path / "cat", cwd=folder)
    _sentence(run, 1, "licence", "license", "fake_mr.yaml")
    assert _published(folder) == before


@pytest.mark.parametrize("named", [True, False])
def test_unwritable_output(folder, tmp_path, named):
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "file" / "corpus" if named else tmp_path / "file"
    run = fakes.call_cli("data", "build", "--source", "catalogs", "--out", out, cwd=folder)
    _sentence(run, 1, str(out), "--out")
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize("verb", [
    ["describe", "--out", "file"], ["describe", "--out", "file/figures"],
    ["export", "file/raw"], ["show", "--out", "file/sheet.png"], ["audit", "--out", "file"],
    ["licenses", "--write", "file/decisions.yaml"],
])  # fmt: skip
def test_no_verb_that_cannot_write_leaves_a_traceback(folder, tmp_path, verb):
    (tmp_path / "file").write_text("not a folder")
    said = [str(tmp_path / w) if w.startswith("file") else w for w in verb]
    run = fakes.call_cli("data", *said, cwd=folder)
    _sentence(run, 1, str(tmp_path / "file").rpartition("/")[0])


def test_usage_errors_exit_2(folder):
    run = fakes.call_cli("data", "build", "--source", "catalogs", "--depth", 12, cwd=folder)
    _sentence(run, 2, "--depth")
    run = fakes.call_cli("data", "build", "--source", "catalogs", "--root", "nowhere", cwd=folder)
    _sentence(run, 2, "nowhere")


def test_missing_catalogue_folder_and_missing_corpus(folder, tmp_path):
    _sentence(fakes.call_cli("data", "build", "--source", "nowhere", cwd=folder), 1, "nowhere")
    _sentence(fakes.call_cli("data", "describe", tmp_path, cwd=folder), 1, "manifest.json")


def test_a_truncated_file_exits_3_and_strict_exits_1(folder, tmp_path):
    root = fakes.write_source(tmp_path / "data", n=3)
    fakes.write_catalog(tmp_path / "catalogs")
    path = root / "images/p001.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    run = fakes.call_cli("data", "build", "--source", "catalogs", cwd=tmp_path)
    _sentence(run, 3, "quarantined", "images/p001.nii.gz", "unreadable")
    before = _published(tmp_path)
    run = fakes.call_cli("data", "build", "--source", "catalogs", "--strict", "--depth", 16,
                        cwd=tmp_path)  # fmt: skip
    _sentence(run, 1, "p001.nii.gz")
    assert _published(tmp_path) == before


def test_an_empty_picture_is_quarantined(tmp_path):
    root = tmp_path / "data/fake_us"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(3):
        mask = np.zeros((37, 53), np.uint8)
        mask[5:20, 8:30] = 255
        cv2.imwrite(str(root / f"images/u{i}.png"), rng.integers(0, 255, (37, 53), np.uint8))
        cv2.imwrite(str(root / f"masks/u{i}.png"), mask)
    (root / "images/u1.png").write_bytes(b"")
    entry = fakes.entry_dict("fake_us", modality="ultrasound", dims="2D", patient=None)
    entry |= {"label_encoding": {"type": "binary", "threshold": 127}, "labels": {"1": "liver"}}
    entry["layout"] = {
        "images": [{"pattern": "images/{case}.png"}], "labels": [{"pattern": "masks/{case}.png"}],
    }  # fmt: skip
    (tmp_path / "catalogs").mkdir()
    (tmp_path / "catalogs/fake_us.yaml").write_text(yaml.safe_dump(entry))
    run = fakes.call_cli("data", "build", "--source", "catalogs", cwd=tmp_path)
    _sentence(run, 3, "images/u1.png", "unreadable")
    assert "3 found = 2 kept + 1 rejected" in run.stdout


def test_a_folder_with_two_series_is_refused_by_name(tmp_path):
    array = np.random.default_rng(0).integers(-900, 900, (4, 6, 9)).astype(np.int16)
    folder = tmp_path / "data/fake_ct/a/dicom"
    write_series(folder, array)
    for path in list(folder.iterdir()):
        path.rename(path.with_name("first-" + path.name))
    write_series(folder, array, series_uid="9.9.9")
    label = (np.indices(array.shape).sum(0) % 5 > 2).astype(np.uint8)
    write_itk(tmp_path / "data/fake_ct/a/label.nrrd", label)
    entry = fakes.entry_dict("fake_ct", modality="CT", patient=None)
    entry["layout"] = {
        "images": [{"pattern": "{case}/dicom/"}], "labels": [{"pattern": "{case}/label.nrrd"}],
    }  # fmt: skip
    fakes.write_catalog(tmp_path / "catalogs", entry)
    run = fakes.call_cli("data", "build", "--source", "catalogs", cwd=tmp_path)
    _sentence(run, 1, "a/dicom", "one image series, found 2")
    assert not (tmp_path / "corpus/manifest.json").exists()


def test_load_dataset_opens_the_corpus_with_pictures(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(folder / "corpus"), cache_dir=str(tmp_path / "hf"))
    assert sum(len(part) for part in found.values()) == 60
    row = found["train"][0]
    assert row["image"].size == (13, 11)
    assert row["masks"][0]["mask"].size == (13, 11)
    assert np.asarray(row["masks"][0]["mask"]).sum() == row["masks"][0]["area_px"]


def test_version_and_help_of_every_command():
    assert fakes.call_cli("--version").stdout.startswith("sammed ")
    for name in ("build", "list", "describe", "show", "check", "schema"):
        run = fakes.run_cli("data", name, "--help", COLUMNS="80", NO_COLOR="1")
        assert run.returncode == 0
        assert f"sammed data {name}" in run.stdout.split("example", 1)[1]
        assert max(map(len, run.stdout.splitlines())) <= 80


def test_a_catalogue_that_is_no_yaml_is_one_line(folder, tmp_path):
    fakes.write_catalog(tmp_path / "cat")
    for text, word in ((": [\n- {", "YAML"), ("", "an empty file")):
        (tmp_path / "cat/broken.yaml").write_text(text)
        run = fakes.call_cli("data", "build", "--source", tmp_path / "cat", cwd=folder)
        _sentence(run, 1, "broken.yaml", word, "mend")


def test_show_refuses_what_it_cannot_draw(folder, tmp_path):
    for wrong, word in (
        (("--out", tmp_path / "sheet.jpg"), ".png"),
        (("--n", 0), "--n"),
        (("--split", "tset"), "'test'"),
    ):
        _sentence(fakes.call_cli("data", "show", *wrong, cwd=folder), 2, word)


def test_outlines_stay_visible_when_a_large_image_becomes_a_thumbnail():
    from sammed_data.sheet import outline

    big = np.zeros((1348, 1225), np.uint8)
    big[400:900, 300:800] = 1
    dot = np.zeros_like(big)
    dot[1000:1003, 1000:1003] = 1
    for mask, least in ((big, 200), (dot, 1)):
        drawn = np.full((192, 174, 3), 128, np.uint8)
        outline(drawn, mask, (90, 230, 60))
        assert (drawn == (90, 230, 60)).all(axis=2).sum() >= least


@pytest.mark.parametrize("verb", ["build", "audit", "merge"])
def test_a_negative_number_of_processes_is_a_usage_error(tmp_path, verb):
    run = fakes.call_cli("data", verb, *(["x"] if verb == "merge" else []), "--workers", -1,
                         cwd=tmp_path)  # fmt: skip
    assert run.returncode == 2
    assert "--workers" in run.stderr
