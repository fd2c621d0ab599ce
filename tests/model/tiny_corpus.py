"""A corpus of ellipses in noise, written straight to Parquet: for tests of training and benchmark.

The brightest ellipse is ``ball`` and a darker one ``egg``; sizes are not square, patients are
whole within a split.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sammed_data import codecs
from sammed_data.corpus import ROWS_PER_GROUP, SCHEMA

STRUCTURES = {
    "ball": ("liver", "abdomen", "organ", 210),
    "egg": ("lung", "thorax", "organ", 120),
}


def ellipse(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W) bool; inside the image, at least 3 px wide."""
    ry, rx = rng.uniform(0.1, 0.28, 2) * (height, width)
    cy = rng.uniform(ry, height - 1 - ry)
    cx = rng.uniform(rx, width - 1 - rx)
    y, x = np.mgrid[:height, :width]
    return ((y - cy) / max(ry, 1.5)) ** 2 + ((x - cx) / max(rx, 1.5)) ** 2 <= 1


def _mask(name: str, mask: np.ndarray, index: int) -> dict:
    organ, group, kind, _ = STRUCTURES[name]
    y, x = np.nonzero(mask)
    return {
        "label": name,
        "structure": name,
        "organ": organ,
        "group": group,
        "kind": kind,
        "side": "",
        "instance": 1,
        "annotator": 1,
        "n_components": 1,
        "raw_value": str(index + 1),
        "source_index": 0,
        "area_px": int(mask.sum()),
        "box_xyxy": [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1],
        "touches_border": False,
        "mask": {"bytes": codecs.encode_mask(mask), "path": None},
    }


def row(split: str, dataset: str, patient: str, slice_index: int, size: tuple[int, int]) -> dict:
    """One row of the corpus, a function of its names."""
    sample_id = f"{dataset}/{patient}/axial/{slice_index:04d}"
    digest = hashlib.sha256(sample_id.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    height, width = size
    image = rng.normal(60, 14, size)
    masks = []
    for index, (name, (*_, level)) in enumerate(STRUCTURES.items()):
        mask = ellipse(rng, height, width)
        image[mask] = rng.normal(level + rng.uniform(-20, 20), 14, int(mask.sum()))
        masks = [_mask(name, mask, index), *masks]
    pixels = image.clip(0, 255).astype(np.uint8)
    filled = {name: None for name in SCHEMA.names}
    return filled | {
        "schema_version": 1,
        "sample_id": sample_id,
        "image": {"bytes": codecs.encode_image(pixels), "path": None},
        "masks": masks,
        "annotated_structures": list(STRUCTURES),
        "dataset": dataset,
        "role": "train",
        "modality": "ct" if dataset == "ellipses_a" else "mr",
        "sequence": "",
        "case_id": patient,
        "patient_id": patient,
        "cluster": "patient",
        "split": split,
        "axis": "axial",
        "orientation": "lps",
        "slice_index": slice_index,
        "spacing_slice_mm": 3.0,
        "height": height,
        "width": width,
        "spacing_y_mm": 1.5,
        "spacing_x_mm": 1.25,
        "license": "CC0-1.0",
        "catalog_version": 1,
        "content_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }


def write_corpus(
    root: Path,
    *,
    patients: dict[str, int] | None = None,
    slices: int = 3,
    size: tuple[int, int] = (48, 64),
    datasets: tuple[str, ...] = ("ellipses_a", "ellipses_b"),
) -> Path:
    """Write ``data/<split>/<dataset>-0.parquet`` and ``manifest.json``; returns ``root``.

    Args:
        root: folder to make.
        patients: per split and dataset; default 4 train, 2 validation, 2 test.
        slices: images per patient, each with two masks.
        size: (H, W) of the first dataset; the second is a little wider.
        datasets: names.
    """
    shards = []
    for split, count in (patients or {"train": 4, "validation": 2, "test": 2}).items():
        for number, dataset in enumerate(datasets):
            shape = (size[0], size[1] + 8 * number)
            rows = [
                row(split, dataset, f"{dataset}-{split}-{p}", s, shape)
                for p in range(count)
                for s in range(slices)
            ]
            path = root / "data" / split / f"{dataset}-0.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(rows, schema=SCHEMA)
            pq.write_table(table, path, row_group_size=ROWS_PER_GROUP)
            counts = {"rows": len(rows), "masks": sum(len(r["masks"]) for r in rows)}
            shards.append({"path": path.relative_to(root).as_posix()} | counts)
    content = hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()
    manifest = {"schema_version": 1, "shards": shards, "content_sha256": content}
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return root
