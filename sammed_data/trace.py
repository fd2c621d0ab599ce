"""From a row back to its file: where it came from, and its pixels made again from the source.

The row is made again by the code that built it, so what is compared is the whole way from the raw
file to the stored pixels. For restricted sources the key of the site is the map from pseudonyms to
names: every case is given its pseudonym anew, and nothing but the key has to be kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sammed_data.codecs import decode_image, decode_mask
from sammed_data.corpus import Corpus, Row
from sammed_data.index import name_hash, open_index
from sammed_data.plan import BuildOptions, DatasetPlan, ShardPlan
from sammed_data.privacy import Pseudonyms
from sammed_data.rows import ShardTask
from sammed_data.shards import read_rejections
from sammed_data.sources import case_paths, digest, relative
from sammed_data.trace_entry import EntryUsed, find_by_entry
from sammed_data.types import Case, CorpusError, UsageError, nearest
from sammed_data.unpack import unpacked
from sammed_data.work import Counts, case_items


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One source of a row, as recorded and as it lies here now."""

    role: str
    path: str
    member: str
    recorded_sha256: str
    found_sha256: str

    @property
    def same(self) -> bool:
        """Whether the file is the one the row was built from."""
        return self.recorded_sha256 == self.found_sha256


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A row and what its source gives today.

    Attributes:
        row: as stored, with pixels.
        entry: which catalogue entry it was made again by.
        excluded: why readers leave the row out; '' = they do not.
        files: its sources.
        image: made again, (H, W) or (H, W, 3) uint8; None where the source gives no such row now.
        masks_MHW: made again, bool.
        differences: what differs from the stored row, in words; empty = identical.
    """

    row: Row
    entry: EntryUsed
    excluded: str
    files: tuple[SourceFile, ...]
    image: NDArray[Any] | None
    masks_MHW: NDArray[np.bool_] | None
    differences: tuple[str, ...]


def find_row(corpus: Corpus, sample_id: str, *, keep: bool = True) -> Row:
    """A row of the corpus by its id, excluded or not, with pixels; ``keep`` as for the index.

    Raises:
        UsageError: no such row: its patient was withdrawn, or its case set aside; else the nearest
            ids of its dataset are named.
    """
    index = open_index(corpus, keep=keep)
    found = np.flatnonzero(index.rows_N["sample"] == name_hash(sample_id))
    if not len(found):
        said = _set_aside(corpus, sample_id) or _neighbours(corpus, sample_id)
        raise UsageError(f"no sample {sample_id!r} in {corpus.root}; {said}")
    row = corpus.at(*index.place(int(found[0])))
    withdrawn = corpus.exclusions.withdrawn(row.dataset)
    if row.meta["patient_id"] in withdrawn:  # the withdrawal was stopped half-way
        said = _withdrawn(corpus, row.dataset, withdrawn[row.meta["patient_id"]])
        raise UsageError(f"no sample {sample_id!r} in {corpus.root}; {said}")
    return row


def _set_aside(corpus: Corpus, sample_id: str) -> str:
    """Why the corpus has no row of the case of a sample, where it knows; else ''."""
    dataset, *inner = sample_id.split("--")
    case_id = "--".join(inner[:-2])
    here = {"dataset": dataset, "case_id": case_id, "level": "case"}
    wanted = reduce(and_, (pc.field(k) == v for k, v in here.items()))
    for row in read_rejections(corpus.root).filter(wanted).to_pylist():
        if row["rule"] == "excluded":
            return _withdrawn(corpus, dataset, row["reason"].removeprefix("excluded: "))
        return f"its case was set aside by the rule {row['rule']}: {row['reason']}"
    return ""


def _withdrawn(corpus: Corpus, dataset: str, reason: str) -> str:
    """That a patient is gone; of a restricted source not why, which is free text."""
    public = [d["id"] for d in corpus.manifest["datasets"] if d.get("privacy") == "public"]
    why = f" ({reason})" if dataset in public else ""
    return f"its patient was withdrawn{why}: the rows are gone, and no build brings them back"


def _neighbours(corpus: Corpus, sample_id: str) -> str:
    dataset = sample_id.split("--")[0]
    known = {d["id"] for d in corpus.manifest["datasets"]}
    if dataset not in known:
        return f"a sample id is DATASET--CASE--AXIS--SLICE, and {nearest(dataset, known)}"
    names: list[str] = []
    for shard, path in enumerate(corpus.shards):
        if path.name.rsplit("-", 1)[0] == dataset:
            names += corpus.columns(shard, ["sample_id"])[0].column(0).to_pylist()
    return nearest(sample_id, names)


def trace(
    corpus: Corpus,
    sample_id: str,
    *,
    source: Path | None,
    root: Path,
    key_file: Path | None = None,
    keep: bool = True,
) -> Trace:
    """Find a row's files, compare their hashes, and make the row again.

    Args:
        corpus: opened corpus.
        sample_id: of the row.
        source: catalogue folder the corpus was built from; None = the entry that the corpus keeps,
            else the bundled one.
        root: where the datasets lie.
        key_file: the site's key, for restricted datasets.
        keep: as for the index.

    Raises:
        UsageError: no such row, or a restricted dataset without key.
        CatalogError: the dataset is not on disk.
        CorpusError: its case is not there any more, or the key is another one.
    """
    row = find_row(corpus, sample_id, keep=keep)
    dataset, entry = find_by_entry(corpus, row.dataset, source, root, key_file)
    names = Pseudonyms(dataset=row.dataset, secret=dataset.secret)
    case = _case(dataset, names, row)
    options = BuildOptions.from_plain(corpus.manifest["options"])
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sammed-trace-")))
        (ready,) = stack.enter_context(unpacked((case,), scratch))
        files = _files(ready, names, row)
        made = _row_again(ready, dataset, row, options, scratch)
    image, masks_MHW, differences = _compared(row, made)
    ids = {"sample_id": row.sample_id, "dataset": row.dataset, **row.meta}
    return Trace(
        row=row,
        entry=entry,
        excluded=corpus.exclusions.reason(ids) or "",
        files=files,
        image=image,
        masks_MHW=masks_MHW,
        differences=differences,
    )


def _case(dataset: DatasetPlan, names: Pseudonyms, row: Row) -> Case:
    wanted = row.meta["case_id"]
    for case in dataset.cases:
        if names.case(case.case_id) == wanted:
            return case
    keyed = ", or --key is not the key it was built with" if dataset.secret else ""
    raise CorpusError(
        f"expected the case {wanted!r} of {row.dataset} among the {len(dataset.cases)} cases on "
        f"disk, found none: its files are gone or renamed{keyed}"
    )


def _files(case: Case, names: Pseudonyms, row: Row) -> tuple[SourceFile, ...]:
    recorded = {(s["role"], s["path"]): s for s in row.meta["sources"]}
    found = []
    for role, path in case_paths(case):
        shown = relative(path, case.root)
        stored = recorded.pop((role, names.path(shown)), None)
        found.append(
            SourceFile(
                role=role,
                path=shown,
                member=stored["member"] if stored else "",
                recorded_sha256=stored["sha256"] if stored else "",
                found_sha256=digest(path),
            )
        )
    gone = [
        SourceFile(role=role, path=path, member=s["member"], recorded_sha256=s["sha256"],
                   found_sha256="")
        for (role, path), s in recorded.items()
    ]  # fmt: skip
    return (*found, *gone)


def _row_again(
    case: Case, dataset: DatasetPlan, row: Row, options: BuildOptions, scratch: Path
) -> Mapping[str, Any] | None:
    shard = ShardPlan(dataset=row.dataset, split=row.split, number=0, cases=(case,), plan_hash="")
    task = ShardTask(shard=shard, dataset=dataset, options=options, staging=scratch)
    for item in case_items(case, task, Counts()):
        if isinstance(item, dict) and item["sample_id"] == row.sample_id:
            return item
    return None


def _compared(
    row: Row, made: Mapping[str, Any] | None
) -> tuple[NDArray[Any] | None, NDArray[np.bool_] | None, tuple[str, ...]]:
    """Image and masks as made now, and what of them is not as stored."""
    if made is None:
        return None, None, ("the source gives no such slice any more",)
    image = decode_image(made["image"]["bytes"])
    masks = [decode_mask(m["mask"]["bytes"]) for m in made["masks"]]
    differences = []
    if row.image is None or not np.array_equal(image, row.image):
        differences.append("image")
    if len(masks) != len(row.masks):
        differences.append(f"{len(row.masks)} masks are stored, {len(masks)} were made")
    for number, (now, stored) in enumerate(zip(masks, row.masks, strict=False)):
        if stored.mask_HW is None or not np.array_equal(now, stored.mask_HW):
            differences.append(f"mask {number} ({stored.structure})")
    if not differences and made["content_sha256"] != row.meta["content_sha256"]:
        # Pixels are the same: name the columns that are not.
        keys = [k for k, v in row.meta.items() if k in made and made[k] != v]
        differences.append(f"metadata: {', '.join(sorted(keys)) or 'a mask measurement'}")
    return image, np.stack(masks), tuple(differences)
