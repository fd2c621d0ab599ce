"""The script of the experiments: a tiny grid runs, resumes, and its tables say what is in it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

FILES = 6


@pytest.fixture(scope="module")
def script():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("experiments")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Six small volumes in the layout of the hippocampus files."""
    root = tmp_path_factory.mktemp("samples")
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    for number in range(FILES):
        rng = np.random.default_rng(number)
        labels = np.zeros((24, 20, 4), np.uint8)
        labels[4:11, 5 + number : 12 + number, :3] = 1
        labels[13:20, 3:9, 1:] = 2
        image = (rng.normal(40, 5, labels.shape) + 60 * labels).astype(np.float32)
        for folder, array in (("imagesTr", image), ("labelsTr", labels)):
            path = root / "Task04_Hippocampus" / folder / f"hippocampus_{number + 1:03d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), path)
    return root


def tiny(script, **changes):
    settings = {
        "image_size": 32,
        "steps": 1,
        "batch_images": 2,
        "passes": 2,
        "validation_images": 1,
        "seeds": (0,),
        "n_folds": 3,
        "fold_validation": 1,
        "test_files": 2,
        "validation_files": 1,
        "sizes": (2,),
        "methods": ("lora",),
        "late": (),
        "mends": ("clip",),
    }
    return script.Grid(**(settings | changes))


def test_tiny_grid_runs_and_resumes(script, samples, tmp_path):
    results = tmp_path / "results.jsonl"
    only = ["a-hippocampus/fold0/*", "b-mends/*/start", "b-mends/*/clip/*"]
    asked = {"samples": samples, "work": tmp_path / "work"}
    assert script.run(results, tiny(script), only=only, minutes=0, **asked) == 0
    assert script.run(results, tiny(script), only=only[:1], **asked) == 3
    assert script.run(results, tiny(script), only=only, **asked) == 2
    whole = results.read_text("utf-8")
    results.write_text(whole[:-40], "utf-8")  # a kill tore the last line
    assert script.run(results, tiny(script), only=only, **asked) == 1
    again = script.read_lines(results)
    timed = dict.fromkeys(("seconds", "computing_s", "train_s"))
    for one, two in zip(again, map(json.loads, whole.splitlines()), strict=True):
        assert one | timed == two | timed
    row = next(t for t in script.summary(again[1:], script.MODES).splitlines() if "LoRA" in t)
    assert row.startswith("| LoRA | bbox | 1 |")
    assert row.count("(no interval)") == 3, "two patients give none"
    with pytest.raises(SystemExit, match="another grid"):
        script.run(results, tiny(script, steps=2), **asked)


def test_files_of_a_fold_are_apart_and_the_curve_is_nested(script, samples, tmp_path):
    from sammed_data.corpus import Corpus

    tested = []
    for fold in range(3):
        splits = script._files(f"fold{fold}", tiny(script), samples)
        everybody = [name for names in splits.values() for name in names]
        assert len(everybody) == len(set(everybody)) == FILES
        tested += splits["test"]
    assert len(tested) == len(set(tested)) == FILES
    chosen = {}
    for patients in (1, 2):
        task = script.Task(part="c-curve", corpus="split", method="lora", patients=patients)
        root = script.corpus_of(task, tiny(script), samples, tmp_path)
        rows = Corpus(root).index(["train"])
        chosen[patients] = {row.meta["patient_id"] for row in rows}
    assert len(chosen[1]) == 1
    assert chosen[1] < chosen[2]


def test_queue_does_the_first_seed_of_everything_first(script):
    ids = [task.id for task in script.queue(script.Grid())]
    trained = [i for i in dict.fromkeys(ids) if not i.endswith("/start")]
    assert len(trained) == 3 * (5 * 6 + 6 + 12 + 16 + 12)
    assert {i.rsplit("/", 1)[1] for i in trained[:64]} == {"seed0"}
    assert len([i for i in trained if i.startswith("b-mends")]) == 3 * 16


def made_up(part, corpus, shift, *, method="lora", seed=0, **more):
    """A line whose masks score ``shift`` above the start, each patient a little apart."""
    people = [f"{corpus}-{n}" for n in range(10) for _ in range(3)]
    base = np.linspace(0.3, 0.6, 30) + shift * (1 + np.sin(np.arange(30)) / 3)
    line = {"part": part, "corpus": corpus, "method": method, "seed": seed, "id": "x"}
    line |= {"control": "none", "recipe": "mended", "mend": "", "patients": people}
    line |= {"masks_sha256": corpus, "dice": {"bbox": base.tolist()}}
    return line | more


def test_tables_join_folds_and_leave_out_seeds_that_are_not_whole(script):
    part = "a-hippocampus"
    lines = [made_up(part, f"fold{f}", 0, method=None) for f in range(2)]
    for seed, folds in ((0, 2), (1, 1)):
        for fold in range(folds):
            lines.append(made_up(part, f"fold{fold}", 0.1, seed=seed))
            lines.append(made_up(part, f"fold{fold}", 0.1, seed=seed, control="permuted"))
    row = next(t for t in script.summary(lines, ("bbox",)).splitlines() if "LoRA" in t)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == "1"
    assert cells[5].startswith("**+10.")
    assert cells[6].startswith("+0.0 (0.0")


def test_curve_is_drawn(script, tmp_path):
    lines = [made_up("c-curve", "split", 0, method=None)]
    lines += [made_up("c-curve", "split", n / 100, patients=n) | {"patients": n} for n in (5, 10)]
    script.draw_curve(lines, ("bbox",), tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text("utf-8")
    assert "<!-- training patients -->" in drawn
    assert drawn.count("<!-- LoRA -->") == 1
