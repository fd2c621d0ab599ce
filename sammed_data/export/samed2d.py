"""The layout that the released training script reads.

``images/<sample>.png``, ``masks/<sample>--<class>_<instance>.png`` (0 and 255), and two indices:
``image2label_train.json`` = {image: [mask, ...]} and ``label2image_test.json`` = {mask: image}.
The script opens the paths as they stand, so they begin with the folder's name: start it in the
parent folder. Validation and held-out images have an index of the training form of their own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sammed_data.codecs import encode_image
from sammed_data.corpus import Corpus
from sammed_data.export import Chosen, Written, image_png, safe_name, write_json


def write(corpus: Corpus, folder: Path, chosen: Chosen) -> Written:
    """Write images, masks and indices."""
    name = folder.name.removeprefix(".").removesuffix(".partial")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    written = Written()
    by_split: dict[str, dict[str, list[str]]] = {}
    for row, masks in chosen.rows(corpus):
        stem = safe_name(row.sample_id)
        if row.ignore_HW is not None:
            written.lost["images whose ignore region is not in the layout"] += 1
        (folder / "images" / f"{stem}.png").write_bytes(image_png(row))
        instances = Counter[str]()
        labels = by_split.setdefault(row.split, {}).setdefault(f"{name}/images/{stem}.png", [])
        for mask in masks:
            assert mask.mask_HW is not None  # `rows` gives pixels
            structure = safe_name(mask.structure)
            file = f"{stem}--{structure}_{instances[structure]:03d}.png"
            instances[structure] += 1
            (folder / "masks" / file).write_bytes(encode_image(mask.mask_HW.astype("u1") * 255))
            labels.append(f"{name}/masks/{file}")
        written.count(row, len(masks))
    write_json(folder / "image2label_train.json", by_split.get("train", {}))
    test = {m: i for i, masks in by_split.get("test", {}).items() for m in masks}
    write_json(folder / "label2image_test.json", test)
    for split in ("validation", "held_out"):
        if split in by_split:
            write_json(folder / f"image2label_{split}.json", by_split[split])
    return written
