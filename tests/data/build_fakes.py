"""A small dataset in true format, for the tests of the build."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml

from sammed_data.catalog import CatalogEntry

REPO = Path(__file__).resolve().parents[2]
SPACING = (0.8, 1.25, 3.0)  # x, y, z
SHAPE = (13, 11, 7)


def entry_dict(name="fake_mr", **more):
    return {
        "id": name,
        "name": "A fake",
        "modality": "MR",
        "dims": "3D",
        "layout": {
            "images": [{"pattern": "images/{case}.nii.gz"}],
            "labels": [{"pattern": "labels/{case}.nii.gz"}],
        },
        "label_encoding": {"type": "index"},
        "labels": {"1": "liver", "2": "spleen"},
        "patient": {"regex": r"images/(p\d+)"},
        "license": "CC0-1.0",
        "homepage": "https://example.org/fake",
    } | more


def make_entry(**more):
    return CatalogEntry.model_validate(entry_dict(**more))


def write_catalog(folder: Path, *entries: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries or (entry_dict(),):
        (folder / f"{entry['id']}.yaml").write_text(yaml.safe_dump(entry))
    return folder


def volume_pair(number: int, shape=SHAPE):
    """Noise with a liver block, a spleen block, and one 2-pixel crumb of spleen."""
    rng = np.random.default_rng(number)
    image = rng.normal(100, 20, shape).astype(np.float32)
    label = np.zeros(shape, np.uint8)
    label[1:6, 2 : 5 + number % 3, 1:5] = 1
    label[8:11, 3:7, 2:6] = 2
    label[12, 9:11, 0] = 2
    image[label > 0] += 60 * label[label > 0]
    return image, label


def affine():
    return np.diag([*SPACING, 1.0])


def write_case(root: Path, name: str, image, label, label_affine=None):
    for folder, array, where in (
        ("images", image, affine()),
        ("labels", label, affine() if label_affine is None else label_affine),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        if array is not None:
            nib.save(nib.Nifti1Image(array, where), root / folder / f"{name}.nii.gz")


def write_source(data_root: Path, n: int = 12, name: str = "fake_mr") -> Path:
    """n patients of one case each below ``data_root/<name>``; files get a fixed mtime."""
    root = data_root / name
    for i in range(n):
        write_case(root, f"p{i:03d}", *volume_pair(i))
    for path in root.rglob("*.gz"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


def run_cli(*args, cwd=REPO, **env):
    """`python -m sammed ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "sammed", *map(str, args)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPO), "COLUMNS": "200"} | env,
        capture_output=True,
        text=True,
        check=False,
    )


def call_cli(*args, cwd=REPO):
    """The same in this process: fast, for what needs no process of its own."""
    import sammed

    out, err = io.StringIO(), io.StringIO()
    code, argv = 0, sys.argv
    sys.argv = ["sammed", *map(str, args)]
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            sammed.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.argv = argv
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
