"""What the doctor finds, on this machine and on ones that are ill."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sammed
from sammed_app import doctor
from sammed_data.build import build
from sammed_data.phantom import write_phantoms


def found(name, here=None):
    return [f for f in doctor.examine(here) if f.name == name]


def test_this_machine_is_looked_at_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(sammed.app, ["doctor", "--json"])
    names = [f["name"] for f in json.loads(result.stdout)]
    assert {"python", "torch", "torchvision", "cv2", "readers", "memory", "work folder"} <= {*names}
    assert list(tmp_path.iterdir()) == []
    for each in json.loads(result.stdout):
        assert each["advice"] or each["state"] == "ok", each
    assert result.exit_code == any(f["state"] == "problem" for f in json.loads(result.stdout))


def test_a_library_that_is_broken_is_a_finding_with_advice(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # importing it raises ImportError
    (cv2,) = found("cv2")
    assert cv2.state == "problem"
    assert "ImportError" in cv2.found or "ModuleNotFoundError" in cv2.found
    assert cv2.advice


def test_two_packages_of_opencv_are_told_apart(monkeypatch):
    monkeypatch.setattr(doctor, "_version_of", lambda name: "4.9" if "opencv" in name else None)
    (cv2,) = found("cv2")
    assert cv2.state == "problem"
    assert "pip uninstall opencv-python" in cv2.advice


def test_a_torchvision_of_another_torch(monkeypatch):
    monkeypatch.setattr(doctor, "_required", lambda p: ["torch==1.0"] if p == "torchvision" else [])
    (versions,) = found("versions")
    assert versions.state == "problem"
    assert "torchvision wants torch==1.0, has 2" in versions.found


@pytest.mark.parametrize(("built_for", "words"), [(None, "without CUDA"), ("13.0", "does not see")])
def test_a_driver_that_torch_cannot_use(monkeypatch, built_for, words):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    gpu = doctor._no_gpu(built_for)
    assert gpu.state == "problem"
    assert words in gpu.found


def test_a_full_disk_and_a_missing_data_folder(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(10**10, 10**10, 10**9))
    monkeypatch.setenv("SAMMED_DATA", str(tmp_path / "nowhere"))
    (work,) = found("work folder", tmp_path)
    assert (work.state, "1.0 GB free" in work.found) == ("note", True)
    (data,) = found("$SAMMED_DATA", tmp_path)
    assert data.state == "problem"


def test_a_finished_build_is_no_left_over(tmp_path):
    write_phantoms(tmp_path, n_patients=4, only=("phantom_derm",))
    build(tmp_path / "catalogs", tmp_path / "data", tmp_path / "corpus")
    assert (tmp_path / "corpus" / ".partial").is_dir()
    assert found("unfinished build", tmp_path) == []


def test_every_extra_of_use_is_known():
    declared = tomllib.loads((Path(sammed.__file__).parent / "pyproject.toml").read_text())
    extras = set(declared["project"]["optional-dependencies"]) - {"dev", "docs"}
    assert extras == set(doctor._EXTRAS)


def test_interrupted_work_is_named_with_the_command_that_goes_on(tmp_path):
    (tmp_path / "corpus" / ".partial").mkdir(parents=True)
    assert found("unfinished build", tmp_path) == []
    (tmp_path / "corpus" / ".partial" / "test--a-00000.json").write_text("{}")  # also when done
    assert found("unfinished build", tmp_path) == []
    (tmp_path / "corpus" / ".partial" / "plan.json").write_text("{}")
    (tmp_path / "runs" / "001-lora").mkdir(parents=True)
    (tmp_path / "runs" / "001-lora" / "config.json").write_text("{}")
    (build,) = found("unfinished build", tmp_path)
    assert "sammed data status corpus" in build.advice
    (run,) = found("unfinished training", tmp_path)
    assert run.advice == "sammed train --resume runs/001-lora"
