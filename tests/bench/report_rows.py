"""Score rows of a small benchmark, for the tests of tables, figures and the page."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from sammed_bench import clicks, scores

MODELS = {
    "sam": "sam",
    "ft-sam": "ft-sam",
    "ft-sam-permuted": "ft-sam",
    "sam-med2d": "sam-med2d",
    "oracle": "oracle",
    "box-full": "trivial",
    "click-disc": "trivial",
}
_OWN = ("trivial", "oracle")
MODES = ("bbox", "1pt", "5pt")
# Set, dataset, modality, structure, organ, group, kind, patients, masks of each.
PARTS = (
    ("test", "alpha", "CT", "liver", "liver", "abdomen", "organ", 17, 3),
    ("test", "beta", "MR", "heart", "heart", "thorax", "organ", 16, 1),
    ("test", "beta", "MR", "liver_tumour", "liver", "abdomen", "lesion", 16, 2),
    ("held_out", "kits23", "CT", "kidney", "kidney", "abdomen", "organ", 4, 5),
    ("held_out", "lnq2023", "CT", "node", "node", "thorax", "lesion", 3, 2),
    ("held_out", "gamma", "endoscopy", "polyp", "intestine", "abdomen", "lesion", 2, 1),
)


def small_rows(seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for split, dataset, modality, structure, organ, group, kind, patients, many in PARTS:
        for patient in range(patients):
            for index in range(many):
                share = (0.0005, 0.004, 0.03, 0.3)[int(rng.integers(4))]
                for model, model_kind in MODELS.items():
                    for mode in MODES:
                        made.append(
                            dict.fromkeys(scores.SCHEMA.names, "")
                            | dict.fromkeys(clicks.COLUMNS)
                            | {"model": model, "kind": model_kind, "mode": mode, "split": split}
                            | {"recipe": model_kind if model_kind in _OWN else "tiny"}
                            | {"dataset": dataset, "modality": modality, "structure": structure}
                            | {"organ": organ, "group": group, "kind_of_structure": kind}
                            | {"patient_id": f"p{patient}", "cluster": "patient"}
                            | {"sample_id": f"{dataset}/p{patient}/{structure}"}
                            | {"mask_index": index, "area_fraction": share, "seed": 0}
                            | {"in_view": share >= 0.00153, "area_px": 9, "n_clicks": 0}
                            | {"height": 30, "width": 40, "weights_sha256": "12" * 32}
                        )  # fmt: skip
    frame = pd.DataFrame(made)
    frame["dice"] = np.where(frame["model"] == "oracle", 1.0, rng.uniform(0.1, 0.9, len(frame)))
    frame["iou"] = frame["dice"] / (2 - frame["dice"])
    frame["status"] = "ok"
    off = (frame["model"] == "box-full") & (frame["mode"] != "bbox")
    off |= (frame["model"] == "click-disc") & (frame["mode"] == "bbox")
    frame.loc[off, "status"] = "unsupported"
    frame.loc[off, ["dice", "iou"]] = np.nan
    bad = (frame["model"] == "sam") & (rng.uniform(size=len(frame)) < 0.05)
    frame.loc[bad, ["status", "error"]] = ["failed", "RuntimeError: out of luck"]
    frame.loc[bad, ["dice", "iou"]] = 0.0
    return frame


def write_results(folder, frame, *, protocol="sam-med2d", **conditions):
    """A results folder with these rows."""
    rows = frame.copy()
    for field in scores.SCHEMA:
        if field.name not in rows:
            rows[field.name] = np.nan
        if str(field.type) in ("double", "float"):
            rows[field.name] = pd.to_numeric(rows[field.name], errors="coerce")
        elif str(field.type) in ("int32", "int64"):
            rows[field.name] = pd.to_numeric(rows[field.name], errors="coerce").astype("Int64")
    kept = rows.astype(object).where(rows.notna(), None)
    scores.write_part(folder / "scores" / "part-x.parquet", kept.to_dict("records"))
    record = {
        "conditions": {
            "corpus_sha256": "c0ffee" * 10,
            "splits": ["test", "held_out"],
            "modes": list(MODES),
            "seed": 0,
            "limit": None,
            "protocol": {"name": protocol, "version": 1},
            "protocol_hash": "ab" * 32,
        }
        | conditions,
        "models": [{"name": "sam", "seconds": 1.5, "source": "here", "image_px": 256}],
        "model_order": ["sam", "ft-sam", "sam-med2d"],
    }
    (folder / "bench.json").write_text(json.dumps(record))
    return folder
