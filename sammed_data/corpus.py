"""The corpus on disk: row schema, shard writing and reading. The only file that knows Parquet.

One row is one image with all its masks. The layout is a Hugging Face dataset
(``data/<split>/<dataset>-<k>.parquet`` plus a generated README.md), so plain
``datasets.load_dataset(folder)`` opens it; training and benchmark read it here, through pyarrow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sammed_data.codecs import decode_image, decode_mask
from sammed_data.exclude import Exclusions
from sammed_data.exclude import load as load_exclusions
from sammed_data.stores import parquet_source, place
from sammed_data.types import CorpusError, ReadError

SCHEMA_VERSION = 3
# Version 1 had no `notes`; up to version 2 content hashes were made with SHA-256 alone.
READABLE_VERSIONS = (1, 2, 3)
SPLITS = ("train", "validation", "test", "held_out")
ROWS_PER_GROUP = 64
GROUP_BYTES = 8 << 20
_OPEN_FILES = 64
# In a shard's footer: hash over the content hashes of its rows.
CONTENT_KEY = b"sammed_content_sha256"

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MASK_FIELDS = (
    ("label", pa.string()),
    ("structure", pa.string()),
    ("organ", pa.string()),
    ("group", pa.string()),
    ("kind", pa.string()),
    ("side", pa.string()),
    ("instance", pa.int32()),
    ("annotator", pa.int32()),
    ("n_components", pa.int32()),
    ("raw_value", pa.string()),
    ("source_index", pa.int32()),
    ("area_px", pa.int64()),
    ("box_xyxy", pa.list_(pa.int32(), 4)),
    ("touches_border", pa.bool_()),
    ("mask", _IMAGE),
)
SCHEMA = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("sample_id", pa.string()),
        ("image", _IMAGE),
        ("image_u16", _IMAGE),
        ("masks", pa.list_(pa.struct(list(MASK_FIELDS)))),
        ("ignore", _IMAGE),
        ("annotated_structures", pa.list_(pa.string())),
        ("dataset", pa.string()),
        ("role", pa.string()),
        ("modality", pa.string()),
        ("sequence", pa.string()),
        ("case_id", pa.string()),
        ("patient_id", pa.string()),
        ("cluster", pa.string()),
        ("split", pa.string()),
        ("axis", pa.string()),
        ("orientation", pa.string()),
        ("slice_index", pa.int32()),
        ("slice_position_mm", pa.float64()),
        ("spacing_slice_mm", pa.float64()),
        ("volume_shape", pa.list_(pa.int32())),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("spacing_y_mm", pa.float64()),
        ("spacing_x_mm", pa.float64()),
        (
            "intensity",
            pa.struct(
                [
                    ("policy", pa.string()),
                    ("low", pa.float64()),
                    ("high", pa.float64()),
                    ("volume_min", pa.float64()),
                    ("volume_max", pa.float64()),
                    ("volume_p0_5", pa.float64()),
                    ("volume_p99_5", pa.float64()),
                    ("u16_slope", pa.float64()),
                    ("u16_intercept", pa.float64()),
                ]
            ),
        ),
        ("license", pa.string()),
        (
            "sources",
            pa.list_(
                pa.struct(
                    [
                        ("role", pa.string()),
                        ("path", pa.string()),
                        ("member", pa.string()),
                        ("sha256", pa.string()),
                    ]
                )
            ),
        ),
        ("catalog_version", pa.int32()),
        ("notes", pa.list_(pa.string())),
        ("content_sha256", pa.string()),
    ]
)
# Columns that hold no pixels: what an index needs, cheap to read for millions of rows.
INDEX_COLUMNS = [f.name for f in SCHEMA if f.name not in ("image", "image_u16", "ignore", "masks")]
_INDEX_MASK_COLUMNS = [f"masks.list.element.{n}" for n, _ in MASK_FIELDS if n != "mask"]


@dataclass(frozen=True, kw_only=True)
class MaskRow:
    """One mask of a row. ``index`` is its position in the row's mask list (the mask key).

    Attributes:
        mask_HW: bool, same size as the image; None in an index without pixels.
        box_xyxy: half-open, pixels of the stored slice.
    """

    index: int
    label: str
    structure: str
    organ: str
    group: str
    kind: str
    side: str
    instance: int
    annotator: int
    n_components: int | None
    area_px: int
    box_xyxy: tuple[int, int, int, int]
    touches_border: bool
    mask_HW: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image with its masks and metadata.

    Attributes:
        image: (H, W) uint8 grey or (H, W, 3) uint8 RGB; None in an index without pixels.
        image_u16: (H, W) uint16 where the corpus was built with ``--depth 16``.
        meta: the remaining columns of the row (see INDEX_COLUMNS).
    """

    sample_id: str
    dataset: str
    modality: str
    split: str
    height: int
    width: int
    masks: tuple[MaskRow, ...]
    meta: dict[str, Any]
    image: NDArray[np.uint8] | None = None
    image_u16: NDArray[np.uint16] | None = None
    ignore_HW: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class View:
    """A policy applied at reading: which masks count. Defaults are the view ``all``.

    Attributes:
        min_area_fraction: of the image area (paper: 0.00153).
        min_aspect: short side over long side of the image (paper: 0.5).
        annotator: observer whose masks are used; None = all.
    """

    name: str = "all"
    min_area_fraction: float = 0.0
    min_aspect: float = 0.0
    annotator: int | None = 1

    def keeps_image(self, height: int, width: int) -> bool:
        """Whether the slice is square enough."""
        return min(height, width) >= self.min_aspect * max(height, width)

    def keeps_mask(self, mask: MaskRow, height: int, width: int) -> bool:
        """Whether this mask counts under the view."""
        big_enough = mask.area_px >= self.min_area_fraction * height * width
        return big_enough and self.annotator in (None, mask.annotator)


VIEWS = {
    "all": View(),
    "sam-med2d": View(name="sam-med2d", min_area_fraction=0.00153, min_aspect=0.5),
}


def load_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a corpus.

    Raises:
        CorpusError: it is not readable, or not a manifest.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise CorpusError(
            f"{path}: expected the manifest of a corpus, found {err}; remove it and run the same "
            f"`sammed data build` again"
        ) from err
    if not isinstance(found, dict) or not {"schema_version", "shards"} <= found.keys():
        raise CorpusError(
            f"{path}: expected the manifest of a corpus, found other JSON; remove it and run "
            f"`sammed data build` again, or name another folder"
        )
    return found


class Corpus:
    """A built corpus, opened for reading.

    Args:
        root: folder with ``manifest.json``, or a URL that fsspec knows.

    Raises:
        CorpusError: no manifest there, an unfinished build, or an unknown schema version.
    """

    def __init__(self, root: Path | str) -> None:
        root = place(root)
        path = root / "manifest.json"
        if not path.is_file():
            raise CorpusError(
                f"expected a corpus at {root} (manifest.json), found none: run "
                f"`sammed data build --source catalogs/ --out {root}` first"
            )
        self.root = root
        self.manifest: dict[str, Any] = load_manifest(path)
        version = self.manifest.get("schema_version")
        if version not in READABLE_VERSIONS:
            raise CorpusError(
                f"{path} has schema version {version}, this sammed reads "
                f"{', '.join(map(str, READABLE_VERSIONS))}: rebuild"
            )
        self.exclusions: Exclusions = load_exclusions(root)
        self.shards: list[Path] = [root / s["path"] for s in self.manifest["shards"]]
        self._locations: list[tuple[int, int]] = []
        self._files: dict[int, pq.ParquetFile] = {}
        self._held: tuple[tuple[int, int], pa.Table] | None = None
        self._starts: dict[int, NDArray[np.int64]] = {}

    @property
    def content_hash(self) -> str:
        """Identity of what is read: hash over decoded pixels, masks and metadata, and the list."""
        whole = str(self.manifest["content_sha256"])
        if not self.exclusions:
            return whole
        return hashlib.sha256(f"{whole} {self.exclusions.digest}".encode()).hexdigest()

    def index(
        self, splits: Sequence[str] | None = None, *, with_excluded: bool = False
    ) -> list[Row]:
        """All rows without pixels that ``exclude.csv`` leaves, ordered by shard and position.

        Row ``i`` of the returned list is read with ``read(row)``; ``meta`` holds ``shard`` and
        ``shard_row``.
        """
        rows: list[Row] = []
        columns = [*INDEX_COLUMNS, *_INDEX_MASK_COLUMNS]
        for number, shard in enumerate(self.shards):
            if splits is not None and shard.parent.name not in splits:
                continue
            table = self._pages(number, partial(self._open(number).read, columns=columns))
            for position, raw in enumerate(table.to_pylist()):
                if with_excluded or self.exclusions.reason(raw) is None:
                    rows.append(_row(raw, number, position))
        return rows

    def rows_at(self, shard: int, positions: Sequence[int]) -> list[Row]:
        """Some rows of one shard without pixels, in the order asked for."""
        table, _ = self.columns(shard, [*INDEX_COLUMNS, *_INDEX_MASK_COLUMNS])
        raw = table.take(list(positions)).to_pylist()
        return [_row(r, shard, p) for r, p in zip(raw, positions, strict=True)]

    def rows(self, shard: int) -> Iterator[Row]:
        """The rows of one shard with pixels, a row group in memory at a time."""
        position = 0
        for group in range(self._open(shard).num_row_groups):
            names = [field.name for field in SCHEMA]
            for raw in self.row_group(shard, group, names).to_pylist():
                if self.exclusions.reason(raw) is None:
                    yield self._whole(raw, shard, position)
                position += 1

    def at(self, shard: int, position: int) -> Row:
        """The row at a place, with pixels, excluded or not."""
        return self._whole(self._raw(shard, position), shard, position)

    def image(self, shard: int, position: int) -> NDArray[np.uint8]:
        """The picture of the row at a place."""
        try:
            return np.asarray(decode_image(self._raw(shard, position)["image"]["bytes"]))
        except ReadError as err:
            raise self._damaged(self.shards[shard], err) from err

    def excluded(self, table: pa.Table) -> NDArray[np.bool_]:
        """(N,) which rows of a table with the id columns ``exclude.csv`` leaves out."""
        if not self.exclusions:
            return np.zeros(table.num_rows, bool)
        names = ["sample_id", "dataset", "case_id", "patient_id"]
        raws = table.select(names).to_pylist()
        return np.array([self.exclusions.reason(raw) is not None for raw in raws], bool)

    def columns(self, shard: int, columns: Sequence[str]) -> tuple[pa.Table, list[int]]:
        """Some columns of one shard, and how many rows each of its row groups has."""
        file = self._open(shard)
        table = self._pages(shard, partial(file.read, columns=list(columns)))
        return table, [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]

    def row_group(self, shard: int, group: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of one row group; its file stays open for the next one."""
        read = partial(self._kept_open(shard).read_row_group, group, columns=list(columns))
        return self._pages(shard, read)

    def read(self, row: Row) -> Row:
        """The same row with pixels."""
        return self.at(int(row.meta["shard"]), int(row.meta["shard_row"]))

    def _whole(self, raw: dict[str, Any], shard: int, position: int) -> Row:
        try:
            return _row(raw, shard, position, pixels=True)
        except ReadError as err:
            raise self._damaged(self.shards[shard], err) from err

    def _open(self, shard: int) -> pq.ParquetFile:
        """The shard's file, if it is the one the manifest means.

        Raises:
            CorpusError: it is missing, damaged, or of another build.
        """
        path = self.shards[shard]
        try:
            file = pq.ParquetFile(parquet_source(path))
        except (OSError, pa.ArrowException) as err:
            raise self._damaged(path, err) from err
        found = (file.metadata.metadata or {}).get(CONTENT_KEY)
        wanted = self.manifest["shards"][shard].get("content_sha256")
        if found is not None and wanted is not None and found.decode() != wanted:
            raise CorpusError(
                f"{path} belongs to another build than {self.root}/manifest.json: a build stopped "
                f"while it replaced this corpus; run the same `sammed data build` again"
            )
        return file

    def check_shards(self) -> None:
        """Open the footer of every shard; an index beside them does not say that they are whole.

        Raises:
            CorpusError: a shard is missing, damaged, or of another build.
        """
        for shard in range(len(self.shards)):
            self._open(shard).close()

    def _kept_open(self, shard: int) -> pq.ParquetFile:
        """The shard's file, opened at most once while it is among the last ones used."""
        file = self._files.pop(shard, None) or self._open(shard)
        self._files[shard] = file
        if len(self._files) > _OPEN_FILES:
            self._files.pop(next(iter(self._files))).close()
        return file

    def _pages(self, shard: int, read: Callable[[], pa.Table]) -> pa.Table:
        """What ``read`` gives, or a sentence where the shard's pages are damaged."""
        try:
            return read()
        except (OSError, pa.ArrowException) as err:
            raise self._damaged(self.shards[shard], err) from err

    def _damaged(self, path: Path, err: Exception) -> CorpusError:
        said = "no such file" if isinstance(err, FileNotFoundError) else str(err).splitlines()[0]
        return CorpusError(
            f"{path}: expected a whole shard of the corpus, found {said}; run the same "
            f"`sammed data build` again, it makes what is missing anew"
        )

    def _raw(self, shard: int, position: int) -> dict[str, Any]:
        if shard not in self._starts:
            metadata = self._kept_open(shard).metadata
            sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
            self._starts[shard] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        starts = self._starts[shard]
        group = int(np.searchsorted(starts, position, side="right")) - 1
        if self._held is None or self._held[0] != (shard, group):  # neighbours share a group
            read = partial(self._kept_open(shard).read_row_group, group)
            self._held = ((shard, group), self._pages(shard, read))
        table = self._held[1]
        return dict(table.slice(position - int(starts[group]), 1).to_pylist()[0])


def _row(raw: dict[str, Any], shard: int, position: int, *, pixels: bool = False) -> Row:
    masks = tuple(_mask(i, m, pixels=pixels) for i, m in enumerate(raw["masks"] or ()))
    meta = {k: v for k, v in raw.items() if k in INDEX_COLUMNS}
    meta |= {"shard": shard, "shard_row": position}
    u16 = raw.get("image_u16")
    ignore = raw.get("ignore")
    return Row(
        sample_id=raw["sample_id"],
        dataset=raw["dataset"],
        modality=raw["modality"],
        split=raw["split"],
        height=raw["height"],
        width=raw["width"],
        masks=masks,
        meta=meta,
        image=decode_image(raw["image"]["bytes"]) if pixels else None,
        image_u16=decode_image(u16["bytes"]) if pixels and u16 else None,
        ignore_HW=decode_mask(ignore["bytes"]) if pixels and ignore else None,
    )


def _mask(index: int, raw: dict[str, Any], *, pixels: bool) -> MaskRow:
    x0, y0, x1, y1 = raw["box_xyxy"]
    return MaskRow(
        index=index,
        label=raw["label"],
        structure=raw["structure"],
        organ=raw["organ"] or "",
        group=raw["group"] or "",
        kind=raw["kind"] or "",
        side=raw["side"] or "",
        instance=raw["instance"],
        annotator=raw["annotator"],
        n_components=raw["n_components"],
        area_px=raw["area_px"],
        box_xyxy=(x0, y0, x1, y1),
        touches_border=raw["touches_border"],
        mask_HW=decode_mask(raw["mask"]["bytes"]) if pixels else None,
    )
