"""`sammed data init` as a user meets it: files written, questions, exit codes."""

from __future__ import annotations

import json

import cv2
import pytest
import yaml

from sammed_data.catalog import parse_entry
from tests.data import build_fakes as fakes
from tests.data import init_folders as folders


@pytest.fixture
def base(tmp_path):
    folders.pairs(tmp_path / "my scans")
    return tmp_path


def test_writes_entry_and_overlays_and_builds(base):
    run = fakes.call_cli("data", "init", "my scans", "--yes", "--public", cwd=base)
    assert run.returncode == 0, run.stderr
    entry = parse_entry(base / "catalogs/my_scans.yaml")
    assert entry.evidence == "built"
    text = (base / "catalogs/my_scans.yaml").read_text()
    assert "# doubt high: labels" in text
    assert "unnamed_object" in text
    assert cv2.imread(str(base / "catalogs/my_scans.overlays.png")).std() > 5
    assert "trial of 4 of 4 cases: 4 images with 4 masks kept" in run.stdout
    assert "--source catalogs --root 'my scans' --only my_scans" in run.stdout
    built = fakes.call_cli(
        "data", "build", "--source", "catalogs", "--root", "my scans", "--workers", 1, cwd=base
    )
    assert built.returncode == 0, built.stderr
    again = fakes.call_cli("data", "init", "my scans", "--yes", cwd=base)
    assert again.returncode == 2
    assert "--force" in again.stderr
    corpus = fakes.call_cli("data", "init", "corpus", "--yes", cwd=base)
    assert corpus.returncode == 2
    assert "found the corpus corpus" in corpus.stderr
    forced = fakes.call_cli("data", "init", "my scans", "--yes", "--force", cwd=base)
    assert forced.returncode == 0
    assert parse_entry(base / "catalogs/my_scans.yaml").privacy == "restricted"


def test_open_questions_name_their_flags(base):
    run = fakes.call_cli("data", "init", "my scans", cwd=base)
    assert run.returncode == 2
    for flag in ("--labels", "--modality", "--patient", "--yes"):
        assert flag in run.stderr
    assert not (base / "catalogs").exists()


def test_flags_answer_all_questions(base):
    run = fakes.call_cli(
        "data", "init", "my scans", "--labels", "1=liver", "--modality", "CT", "--patient",
        r"(c\d)", "--id", "own", "--out", "entries", cwd=base,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert parse_entry(base / "entries/own.yaml").labels == {"1": "liver"}


def test_dry_run_prints_the_entry_alone(base):
    run = fakes.call_cli("data", "init", "my scans", "--yes", "--dry-run", cwd=base)
    assert run.returncode == 0
    assert yaml.safe_load(run.stdout)["id"] == "my_scans"
    assert not (base / "catalogs").exists()


def test_json_is_one_document(base):
    run = fakes.call_cli("data", "init", "my scans", "--yes", "--json", cwd=base)
    (found,) = json.loads(run.stdout)
    again = fakes.call_cli("data", "init", "my scans", "--yes", "--json", "--dry-run", cwd=base)
    assert json.loads(again.stdout)[0]["text"].count("id: my_scans") == 1
    assert {i["key"] for i in found["inferences"]} >= {"format", "pairs", "encoding", "patient"}
    assert found["trial"]["images"] == 4


def test_rejected_cases_exit_with_3(base):
    (base / "my scans/masks/c1.png").write_bytes(b"junk" * 9)
    run = fakes.call_cli("data", "init", "my scans", "--yes", cwd=base)
    assert run.returncode == 3
    assert "would be rejected: 1 case by rule unreadable" in run.stdout


def test_a_folder_of_images_alone_is_one_sentence(base):
    for path in (base / "my scans/masks").iterdir():
        path.unlink()
    run = fakes.call_cli("data", "init", "my scans", "--yes", cwd=base)
    assert run.returncode == 1
    assert "no mask" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
