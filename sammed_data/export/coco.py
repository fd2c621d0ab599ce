"""COCO instance annotations: one JSON a split, masks as compressed run lengths.

``images/<split>/<sample>.png`` and ``annotations/instances_<split>.json``. Categories are
structures, their ``supercategory`` the organ. Masks are run lengths also where ``iscrowd`` is 0:
a polygon cannot say a hole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.corpus import Corpus, MaskRow
from sammed_data.export import Chosen, Written, image_png, safe_name, write_json


def write(corpus: Corpus, folder: Path, chosen: Chosen) -> Written:
    """Write images and annotations."""
    written = Written()
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    categories: dict[str, dict[str, Any]] = {}
    for row, masks in chosen.rows(corpus):
        part = found.setdefault(row.split, {"images": [], "annotations": []})
        place = folder / "images" / row.split
        place.mkdir(parents=True, exist_ok=True)
        name = f"{safe_name(row.sample_id)}.png"
        (place / name).write_bytes(image_png(row))
        number = len(part["images"]) + 1
        part["images"].append(
            {
                "id": number, "file_name": f"{row.split}/{name}", "width": row.width,
                "height": row.height, "sample_id": row.sample_id, "dataset": row.dataset,
                "modality": row.modality, "patient_id": row.meta["patient_id"],
                "license": row.meta["license"],
            }
        )  # fmt: skip
        if row.ignore_HW is not None:
            written.lost["images whose ignore region is not in the layout"] += 1
        for mask in masks:
            kind = categories.setdefault(mask.structure, _category(mask, len(categories) + 1))
            said = _annotation(mask, number, len(part["annotations"]) + 1, kind["id"])
            part["annotations"].append(said)
        written.count(row, len(masks))
    (folder / "annotations").mkdir()
    for split, part in found.items():
        about = {"description": "sammed corpus", "version": corpus.content_hash}
        whole = {"info": about, **part, "categories": list(categories.values())}
        write_json(folder / "annotations" / f"instances_{split}.json", whole)
    return written


def _category(mask: MaskRow, number: int) -> dict[str, Any]:
    return {"id": number, "name": mask.structure, "supercategory": mask.organ or mask.group}


def _annotation(mask: MaskRow, image: int, number: int, category: int) -> dict[str, Any]:
    assert mask.mask_HW is not None  # `rows` gives pixels
    x0, y0, x1, y1 = mask.box_xyxy
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": mask.area_px,
        "iscrowd": 0,
        "segmentation": {
            "size": list(mask.mask_HW.shape),
            "counts": compressed(run_lengths(mask.mask_HW)),
        },
    }


def run_lengths(mask_HW: NDArray[np.bool_]) -> list[int]:
    """Lengths of alternating runs down the columns, the first one of background."""
    flat = mask_HW.ravel(order="F")
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], borders, [flat.size]])).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def compressed(counts: list[int]) -> str:
    """COCO's text of run lengths: differences to the run two before, 5 bits a character."""
    text = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            text.append(chr((bits | (0x20 if more else 0)) + 48))
    return "".join(text)
