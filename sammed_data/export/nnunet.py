"""nnU-Net v2's raw format for 2D pictures: one dataset, one label map an image.

``imagesTr/<case>_0000.png`` (colour: one file of three channels, read by NaturalImage2DIO),
``labelsTr/<case>.png``, ``dataset.json``, and ``splits_final.json`` with our train and validation
patients, to be copied into the preprocessed folder. Test and held-out images go to
``imagesTs`` and ``labelsTs``.

A label map holds one value a pixel: where masks overlap, the smaller structure is drawn on top and
the covered pixels are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sammed_data.codecs import encode_image
from sammed_data.corpus import Corpus, MaskRow, Row
from sammed_data.export import Chosen, Written, safe_name, write_json
from sammed_data.types import CorpusError

_COLOURS = {1: ["grey"], 3: ["R", "G", "B"]}


def write(corpus: Corpus, folder: Path, chosen: Chosen, *, number: int = 1) -> Written:
    """Write one dataset under ``Dataset<number>_<id>``.

    Raises:
        CorpusError: several datasets, or grey and colour images together.
    """
    dataset, labels = _labels(corpus, chosen)
    inner = folder / f"Dataset{number:03d}_{dataset}"
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (inner / name).mkdir(parents=True)
    written, channels = Written(), 0
    fold: dict[str, list[str]] = {"train": [], "val": []}
    ignored = False
    for row, masks in chosen.rows(corpus):
        case = safe_name(row.sample_id)
        image = row.image
        assert image is not None  # `rows` gives pixels
        depth = 3 if image.ndim == 3 else 1
        if channels not in (0, depth):
            raise CorpusError(
                f"{row.dataset} has grey and colour images: nnU-Net wants one kind, choose splits "
                "or export as COCO"
            )
        channels = depth
        plane, covered = _label_map(row, masks, labels)
        written.lost["mask pixels under a smaller structure"] += covered
        if row.ignore_HW is not None:
            plane[row.ignore_HW] = len(labels) + 1
            ignored = True
        part = "Tr" if row.split in ("train", "validation") else "Ts"
        (inner / f"images{part}" / f"{case}_0000.png").write_bytes(encode_image(image))
        (inner / f"labels{part}" / f"{case}.png").write_bytes(encode_image(plane))
        if part == "Tr":
            fold["train" if row.split == "train" else "val"].append(case)
        written.count(row, len(masks))
    names = {"background": 0} | labels | ({"ignore": len(labels) + 1} if ignored else {})
    write_json(
        inner / "dataset.json",
        {
            "channel_names": {str(n): c for n, c in enumerate(_COLOURS.get(channels, ["grey"]))},
            "labels": names,
            "numTraining": len(fold["train"]) + len(fold["val"]),
            "file_ending": ".png",
            "overwrite_image_reader_writer": "NaturalImage2DIO",
        },
    )
    write_json(inner / "splits_final.json", [fold])
    return written


def _labels(corpus: Corpus, chosen: Chosen) -> tuple[str, dict[str, int]]:
    """The one dataset, and structure -> value from 1; no pixel is read for it."""
    datasets, structures = set[str](), set[str]()
    for row in corpus.index(chosen.splits):
        kept = chosen.masks(row)
        if kept:
            datasets.add(row.dataset)
            structures |= {mask.structure for mask in kept}
    if len(datasets) > 1:
        raise CorpusError(
            f"expected one dataset for nnU-Net, found {', '.join(sorted(datasets))}: what one of "
            "them does not annotate would count as background; choose with --dataset"
        )
    values = {name: value for value, name in enumerate(sorted(structures), start=1)}
    return next(iter(datasets), ""), values


def _label_map(
    row: Row, masks: Sequence[MaskRow], labels: dict[str, int]
) -> tuple[NDArray[np.uint8], int]:
    """(H, W) uint8 (uint16 above 254 labels), and how many mask pixels are covered."""
    area = {m.structure: 0 for m in masks}
    for mask in masks:
        area[mask.structure] += mask.area_px
    plane = np.zeros((row.height, row.width), np.uint8 if len(labels) < 255 else np.uint16)
    covered = 0
    for mask in sorted(masks, key=lambda m: (-area[m.structure], m.structure, m.index)):
        assert mask.mask_HW is not None
        value = labels[mask.structure]
        before = plane[mask.mask_HW]
        covered += int(np.count_nonzero((before != 0) & (before != value)))
        plane[mask.mask_HW] = value
    return plane, covered
