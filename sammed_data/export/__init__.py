"""A corpus in the layouts of others: SAM-Med2D's JSON, nnU-Net v2 (2D), COCO.

Pixels are written as they are stored. What a layout cannot say (overlapping masks, several
annotators, spacing) is counted in ``about.json`` and told, never dropped in silence.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sammed_data.codecs import encode_image
from sammed_data.corpus import SPLITS, VIEWS, Corpus, MaskRow, Row, View
from sammed_data.types import CorpusError, UsageError, nearest


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which rows and masks are exported.

    Attributes:
        datasets: ids; empty = all of the corpus.
        splits: which splits.
        view: which masks count.
    """

    datasets: tuple[str, ...] = ()
    splits: tuple[str, ...] = SPLITS
    view: View = VIEWS["all"]

    def check(self, corpus: Corpus) -> None:
        """Refuse names that the corpus does not know.

        Raises:
            UsageError: an unknown dataset or split.
        """
        known = [d["id"] for d in corpus.manifest["datasets"]]
        for name in self.datasets:
            if name not in known:
                raise UsageError(f"no dataset {name!r} in {corpus.root}; {nearest(name, known)}")
        for split in self.splits:
            if split not in SPLITS:
                raise UsageError(f"unknown split {split!r}; {nearest(split, SPLITS)}")

    def rows(self, corpus: Corpus) -> Iterator[tuple[Row, list[MaskRow]]]:
        """Rows with pixels and the masks of each that count; rows without any are left out.

        Raises:
            CorpusError: two samples have the same name as a file.
        """
        names: dict[str, str] = {}
        for shard, path in enumerate(corpus.shards):
            if path.parent.name not in self.splits:
                continue
            for row in corpus.rows(shard):
                if self.datasets and row.dataset not in self.datasets:
                    break  # a shard has one dataset
                kept = self.masks(row)
                if kept:
                    other = names.setdefault(safe_name(row.sample_id).lower(), row.sample_id)
                    if other != row.sample_id:
                        raise CorpusError(
                            f"{other} and {row.sample_id} would be written to one file: rename one "
                            "of the cases in its source, or leave it out with `sammed data exclude`"
                        )
                    yield row, kept

    def masks(self, row: Row) -> list[MaskRow]:
        """The masks of a row that count; none of a row that is not chosen."""
        if self.datasets and row.dataset not in self.datasets:
            return []
        if not self.view.keeps_image(row.height, row.width):
            return []
        return [m for m in row.masks if self.view.keeps_mask(m, row.height, row.width)]


@dataclass
class Written:
    """What an export wrote, and what its layout could not hold.

    Attributes:
        lost: in words -> how many.
    """

    images: int = 0
    masks: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    datasets: Counter[str] = field(default_factory=Counter)

    def count(self, row: Row, masks: int) -> None:
        """One more image."""
        self.images += 1
        self.masks += masks
        self.splits[row.split] += 1
        self.datasets[row.dataset] += 1


Writer = Callable[[Corpus, Path, Chosen], Written]


def export(corpus: Corpus, out: Path, writer: Writer, chosen: Chosen) -> Written:
    """Write a corpus to a new folder; it appears when it is complete.

    Args:
        corpus: opened corpus.
        out: folder that is not there yet.
        writer: of :mod:`samed2d`, :mod:`nnunet` or :mod:`coco`.
        chosen: which rows and masks.

    Raises:
        UsageError: the folder exists, or a name is unknown.
        CorpusError: nothing is left to export, or the layout cannot hold it.
    """
    _check(corpus, out, chosen)
    staging = out.with_name(f".{out.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        written = writer(corpus, staging, chosen)
        _refuse_nothing(corpus, chosen, written)
        written.lost += _left_out(corpus, chosen)
        _write_about(corpus, staging, chosen, written)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return written


def count(corpus: Corpus, out: Path, chosen: Chosen) -> Written:
    """What an export would write, from the index alone; a layout may hold less, and says so then.

    Raises:
        UsageError, CorpusError: as :func:`export`.
    """
    _check(corpus, out, chosen)
    found = Written()
    for row in corpus.index(chosen.splits):
        kept = chosen.masks(row)
        if kept:
            found.count(row, len(kept))
    _refuse_nothing(corpus, chosen, found)
    found.lost += _left_out(corpus, chosen)
    return found


def _left_out(corpus: Corpus, chosen: Chosen) -> Counter[str]:
    """What of the chosen datasets and splits does not count, with the images that have no more."""
    lost = Counter[str]()
    for row in corpus.index(chosen.splits):
        if chosen.datasets and row.dataset not in chosen.datasets:
            continue
        kept = {mask.index for mask in chosen.masks(row)}
        lost["images without a mask that counts"] += not kept
        for mask in row.masks:
            if mask.index not in kept:
                other = chosen.view.annotator not in (None, mask.annotator)
                lost["masks of another annotator" if other else "masks outside the view"] += 1
    return lost


def _check(corpus: Corpus, out: Path, chosen: Chosen) -> None:
    chosen.check(corpus)
    if out.exists():
        raise UsageError(f"{out} exists: name a new folder, or remove it first")


def _refuse_nothing(corpus: Corpus, chosen: Chosen, found: Written) -> None:
    if not found.images:
        raise CorpusError(
            f"expected images of {corpus.root} to export, found none in the datasets, splits "
            f"and view {chosen.view.name!r} asked for"
        )


def _write_about(corpus: Corpus, folder: Path, chosen: Chosen, written: Written) -> None:
    names = ("id", "name", "license", "license_confidence", "access", "homepage", "citation")
    datasets = [d for d in corpus.manifest["datasets"] if d["id"] in written.datasets]
    about = {
        "corpus_content_sha256": corpus.content_hash,
        "view": chosen.view.name,
        "images": written.images,
        "masks": written.masks,
        "images_by_split": dict(sorted(written.splits.items())),
        "not_in_this_layout": dict(sorted(written.lost.items())),
        "datasets": [
            {name: d[name] for name in names} | {"images": written.datasets[d["id"]]}
            for d in datasets
        ],
    }
    write_json(folder / "about.json", about)


def write_json(path: Path, found: Any) -> None:
    """Indented, in the order given."""
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def image_png(row: Row) -> bytes:
    """The stored image as a PNG file."""
    assert row.image is not None  # `Corpus.rows` gives pixels
    return encode_image(row.image)


def safe_name(sample_id: str) -> str:
    """A sample id as a file name: ids hold no separators, but a case may hold a slash."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in sample_id)
