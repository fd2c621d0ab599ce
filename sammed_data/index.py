"""What training must know of every row before it reads one: small arrays, mapped, not loaded.

``<corpus>/index/`` holds 49 bytes a row and 8 a mask; a corpus of 4.6 M images opens in the time
it takes to map two files. It says nothing that the shards do not say: where it is missing or of
another build, :func:`open_index` makes it anew.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sammed_data.corpus import Corpus, View
from sammed_data.stores import is_remote
from sammed_data.system import user_mark
from sammed_data.types import CorpusError

FOLDER = "index"
# shard, group: which file and row group; position: inside the group. sample: first 8 bytes of
# SHA-256(sample_id). patient: of dataset and patient. first_mask: into the mask array. excluded:
# by the corpus' exclude.csv (the index belongs to one state of that list).
ROW = np.dtype(
    [
        ("sample", "<u8"), ("patient", "<u8"), ("first_mask", "<i8"), ("shard", "<i4"),
        ("group", "<i4"), ("height", "<i4"), ("width", "<i4"), ("position", "<u2"),
        ("n_masks", "<u2"), ("dataset", "<i2"), ("modality", "<i2"), ("excluded", "?"),
    ]
)  # fmt: skip
MASK = np.dtype([("area_fraction", "<f4"), ("structure", "<i2"), ("annotator", "<i2")])
_COLUMNS = ["sample_id", "dataset", "modality", "case_id", "patient_id", "height", "width"]
_ABOUT = ("organ", "group", "kind")
_MASK_COLUMNS = [f"masks.list.element.{n}" for n in ("area_px", "structure", "annotator", *_ABOUT)]


@dataclass(frozen=True, kw_only=True)
class CorpusIndex:
    """Rows and masks of a corpus as mapped arrays, in the order of its shards.

    Attributes:
        rows_N: structured, see ``ROW``.
        masks_M: structured, see ``MASK``; the masks of row ``n`` start at its ``first_mask``.
        names: what the codes of ``dataset``, ``modality`` and ``structure`` mean.
        about: structure -> its (organ, group, kind), as the masks say them.
    """

    rows_N: NDArray[Any]
    masks_M: NDArray[Any]
    names: dict[str, list[str]]
    about: dict[str, tuple[str, str, str]]

    def kept_masks(self, view: View) -> NDArray[np.int32]:
        """How many masks of each row count under ``view``, (N,) int32."""
        kept = _counts(self.masks_M, view)
        before = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        first, count = self.rows_N["first_mask"], self.rows_N["n_masks"].astype(np.int64)
        found: NDArray[np.int32] = (before[first + count] - before[first]).astype(np.int32)
        height, width = self.rows_N["height"], self.rows_N["width"]
        found[np.minimum(height, width) < view.min_aspect * np.maximum(height, width)] = 0
        return found

    def select(self, corpus: Corpus, splits: Sequence[str], view: View) -> NDArray[np.int64]:
        """Numbers of the rows of some splits with a mask under ``view``; excluded ones are not."""
        wanted = np.array([path.parent.name in splits for path in corpus.shards], bool)
        wanted_N = wanted[self.rows_N["shard"]] & ~self.rows_N["excluded"]
        return np.flatnonzero(wanted_N & (self.kept_masks(view) > 0))

    def place(self, number: int) -> tuple[int, int]:
        """(shard, position in it) of a row, as ``Corpus.at`` takes them."""
        shard = int(self.rows_N["shard"][number])
        return shard, int(number) - int(np.searchsorted(self.rows_N["shard"], shard))

    def mask_keys(self, number: int, view: View) -> list[int]:
        """Keys (``MaskRow.index``) of the masks of one row that count under ``view``."""
        first, count = int(self.rows_N["first_mask"][number]), int(self.rows_N["n_masks"][number])
        kept = _counts(self.masks_M[first : first + count], view)
        return [int(key) for key in np.flatnonzero(kept)]


def _counts(masks_M: NDArray[Any], view: View) -> NDArray[np.bool_]:
    big: NDArray[np.bool_] = masks_M["area_fraction"] >= np.float32(view.min_area_fraction)
    return big if view.annotator is None else big & (masks_M["annotator"] == view.annotator)


def order_keys(values_N: NDArray[np.unsignedinteger[Any]], *key: object) -> NDArray[np.uint64]:
    """Numbers to sort by, (N,) uint64: a shuffle that is a function of ``key`` alone.

    SplitMix64's finaliser is a bijection, so different values never tie.
    """
    text = "\0".join(map(str, key)).encode()
    salt = np.uint64(int.from_bytes(hashlib.sha256(text).digest()[:8], "little"))
    mixed = (values_N.astype(np.uint64) ^ salt) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return found


def turns(groups_E: NDArray[Any], order_E: NDArray[Any]) -> NDArray[np.int64]:
    """How many of its group come before each element, by ``order_E``; (E,) int64.

    Sorted by it, all groups take turns.
    """
    order = np.lexsort((order_E, groups_E))
    own = groups_E[order]
    first = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
    found = np.empty(len(own), np.int64)
    found[order] = np.arange(len(own)) - np.repeat(first, np.diff(np.append(first, len(own))))
    return found


def name_hash(*parts: str) -> int:
    """First 8 bytes of the SHA-256 of some names."""
    text = "\0".join(parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def open_index(corpus: Corpus, *, keep: bool = True) -> CorpusIndex:
    """The index of an opened corpus; made, and kept where that is allowed, if it is not there.

    ``keep`` = False leaves no file behind, for `--dry-run`.
    """
    folder = corpus.root / FOLDER
    if is_remote(corpus.root):  # what is mapped is a local file
        name = f"sammed-index-{user_mark()}-{corpus.content_hash[:32]}"
        folder = Path(tempfile.gettempdir()) / name
    found = _load(folder, corpus.content_hash)
    if found is not None:
        return found
    if not keep:
        with tempfile.TemporaryDirectory(prefix="sammed-index-") as scratch:
            made = write_index(corpus, Path(scratch))
            return replace(made, rows_N=np.array(made.rows_N), masks_M=np.array(made.masks_M))
    try:
        return write_index(corpus, folder)
    except PermissionError:
        return write_index(corpus, Path(tempfile.mkdtemp(prefix="sammed-index-")))


def _load(folder: Path, content: str) -> CorpusIndex | None:
    try:
        said = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        rows = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
        masks = np.load(folder / "masks.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    if (
        said.get("content_sha256") != content
        or "about" not in said
        or rows.dtype != ROW
        or masks.dtype != MASK
    ):
        return None
    about = {name: tuple(found) for name, found in said["about"].items()}
    return CorpusIndex(rows_N=rows, masks_M=masks, names=said["names"], about=about)


def write_index(corpus: Corpus, folder: Path) -> CorpusIndex:
    """Read the small columns of every shard once and write the arrays.

    Raises:
        CorpusError: a shard holds another number of rows or masks than the manifest says.
    """
    shards = corpus.manifest["shards"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)  # it is written last and makes the index valid
    rows = _array(folder / "rows.npy", ROW, sum(s["rows"] for s in shards))
    masks = _array(folder / "masks.npy", MASK, sum(s["masks"] for s in shards))
    codes: dict[str, dict[str, int]] = {"dataset": {}, "modality": {}, "structure": {}}
    about: dict[str, tuple[str, str, str]] = {}
    row = mask = 0
    for number, said in enumerate(shards):
        table, sizes = corpus.columns(number, [*_COLUMNS, *_MASK_COLUMNS])
        part, own = _shard_arrays(table, sizes, number, mask, codes)
        part["excluded"] = corpus.excluded(table)
        _learn_about(table.column("masks").combine_chunks().flatten(), about)
        if len(part) != said["rows"] or len(own) != said["masks"]:
            raise CorpusError(
                f"{corpus.shards[number]}: expected {said['rows']} rows and {said['masks']} masks "
                f"by the manifest, found {len(part)} and {len(own)}; run the same `sammed data "
                f"build` again"
            )
        rows[row : row + len(part)] = part
        masks[mask : mask + len(own)] = own
        row, mask = row + len(part), mask + len(own)
    for array in (rows, masks):
        if isinstance(array, np.memmap):
            array.flush()
    names = {key: list(found) for key, found in codes.items()}
    text = json.dumps(
        {"content_sha256": corpus.content_hash, "names": names, "about": about}, indent=1
    )
    (folder / "index.json").write_text(text + "\n", encoding="utf-8")
    return CorpusIndex(rows_N=rows, masks_M=masks, names=names, about=about)


def _array(path: Path, kind: np.dtype[Any], length: int) -> NDArray[Any]:
    if not length:  # nothing can be mapped
        np.save(path, np.empty(0, kind))
        return np.empty(0, kind)
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(length,))


def _shard_arrays(
    table: pa.Table,
    group_sizes: Sequence[int],
    shard: int,
    first_mask: int,
    codes: dict[str, dict[str, int]],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows and masks of one shard."""
    listed = table.column("masks").combine_chunks()
    offsets = np.asarray(listed.offsets, np.int64)
    fields = listed.flatten()
    height, width = (np.asarray(table.column(n), np.int64) for n in ("height", "width"))
    counts = np.diff(offsets)
    rows = np.zeros(table.num_rows, ROW)
    patients = zip(table["dataset"].to_pylist(), table["patient_id"].to_pylist(), strict=True)
    rows["sample"] = [name_hash(s) for s in table["sample_id"].to_pylist()]
    rows["patient"] = [name_hash(d, p) for d, p in patients]
    rows["first_mask"] = first_mask + offsets[:-1] - offsets[0]
    rows["n_masks"] = counts
    rows["shard"] = shard
    rows["group"] = np.repeat(np.arange(len(group_sizes)), group_sizes)
    starts = np.cumsum(group_sizes) - group_sizes
    rows["position"] = np.arange(len(rows)) - np.repeat(starts, group_sizes)
    rows["height"], rows["width"] = height, width
    for name in ("dataset", "modality"):
        rows[name] = _coded(table.column(name).combine_chunks(), codes[name])
    masks = np.zeros(len(fields), MASK)
    area = np.asarray(fields.field("area_px"), np.float64)
    masks["area_fraction"] = area / np.repeat(height * width, counts)
    masks["structure"] = _coded(fields.field("structure"), codes["structure"])
    masks["annotator"] = np.asarray(fields.field("annotator"), np.int64)
    return rows, masks


def _learn_about(masks: pa.StructArray, about: dict[str, tuple[str, str, str]]) -> None:
    columns = {name: masks.field(name) for name in ("structure", *_ABOUT)}
    kinds = pa.table(columns).group_by(list(columns)).aggregate([]).to_pylist()
    for kind in sorted(kinds, key=lambda k: str(k["structure"])):
        organ, group, of_kind = (kind[name] or "" for name in _ABOUT)
        about.setdefault(kind["structure"], (organ, group, of_kind))


def _coded(strings: pa.Array, codes: dict[str, int]) -> NDArray[np.int64]:
    encoded = strings.dictionary_encode()
    own = [codes.setdefault(name, len(codes)) for name in encoded.dictionary.to_pylist()]
    return np.asarray(own, np.int64)[np.asarray(encoded.indices)]
