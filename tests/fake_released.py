"""Copies of the released corpora in their true formats: names, indices, sparse labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests import fake_files


def grey(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def write_samed2d(
    root: Path,
    images: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]],
    classes: dict[str, dict[str, str]],
) -> None:
    """``images``: name -> (pixels, {'0003_000': mask 0/1}); masks are stored as 0 and 255."""
    index = {}
    for stem, (pixels, masks) in images.items():
        fake_files.write_picture(root / f"images/{stem}.png", pixels)
        index[f"images/{stem}.png"] = [f"masks/{stem}--{m}.png" for m in masks]
        for name, mask in masks.items():
            path = root / f"masks/{stem}--{name}.png"
            fake_files.write_picture(path, mask.astype(np.uint8) * 255)
    (root / "masks").mkdir(parents=True, exist_ok=True)
    (root / "SAMed2D_v1.json").write_text(json.dumps(index))
    (root / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps(classes))


def write_imed(
    root: Path,
    source: str,
    images: dict[str, tuple[np.ndarray, np.ndarray]],
    labels: list[str],
    *,
    modality: str = "ct",
    test: tuple[str, ...] = (),
    kind: str = "csr",
) -> None:
    """``images``: name -> (pixels, (C, H, W) masks)."""
    from scipy import sparse

    lines: dict[str, list[dict[str, str]]] = {"training": [], "test": []}
    for name, (pixels, masks) in images.items():
        shape = (*masks.shape, 1)
        label = f"label/x___{name}.{shape}.npz"
        (root / source / "label").mkdir(parents=True, exist_ok=True)
        fake_files.write_picture(root / source / f"image/{name}.png", pixels)
        matrix = sparse.csr_matrix(masks.reshape(masks.shape[0], -1).astype(np.uint8))
        sparse.save_npz(root / source / label, matrix.asformat(kind))
        line = {"image": f"image/{name}.png", "label": label, "imask": f"imask/x___{name}.npy"}
        lines["test" if name in test else "training"].append(line)
    text = {
        "name": source,
        "description": f"{modality}_{source}",
        "dimension": "2D",
        "modality": {"0": modality},
        "labels": {"0": "background"} | {str(n): v for n, v in enumerate(labels, start=1)},
        "numTraining": len(lines["training"]),
        "training": lines["training"],
        "numTest": len(lines["test"]),
        "test": lines["test"],
    }
    (root / source / "dataset.json").write_text(json.dumps(text, indent=4))
