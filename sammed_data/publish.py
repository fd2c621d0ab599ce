"""From finished shards to a corpus: the swap that replaces an older one, the manifest last."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sammed_data.corpus import SCHEMA_VERSION, Corpus
from sammed_data.croissant import make_croissant
from sammed_data.engine import fail_point
from sammed_data.index import open_index
from sammed_data.kept import kept_path
from sammed_data.manifest import Record, make_card, make_manifest, read_manifest, unpaired_record
from sammed_data.plan import BuildOptions, DatasetPlan, ShardPlan
from sammed_data.shards import content_hashes, footer_content, read_rows, write_rejections
from sammed_data.staging import record_of, rejections_path, write_text
from sammed_data.stores import is_remote
from sammed_data.types import CorpusError

# An id of a dataset has no hyphen.
_FILE = re.compile(
    r".*?([a-z0-9_]+)-\d{5,}(?:\.rejections)?\.(?:parquet|json)|.*unpaired--([a-z0-9_]+)\.parquet"
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What of an older corpus stays as it is, in the manifest's own words."""

    datasets: Sequence[Mapping[str, Any]] = ()
    shards: Sequence[Mapping[str, Any]] = ()
    not_built: Sequence[Mapping[str, Any]] = ()

    @property
    def ids(self) -> set[str]:
        """Datasets that stay."""
        return {d["id"] for d in self.datasets}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """All that is published together.

    Attributes:
        datasets: built by this run.
        shards: theirs.
        failed: dataset -> why it could not be built at all.
        kept: what stays of an older corpus.
    """

    datasets: Sequence[DatasetPlan]
    shards: Sequence[ShardPlan]
    options: BuildOptions
    failed: Mapping[str, str] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)


def dataset_of(name: str) -> str | None:
    """The dataset that a shard, its rejections or its record belongs to, by its file name."""
    found = _FILE.fullmatch(name)
    return (found[1] or found[2]) if found else None


def keep_others(
    old: Mapping[str, Any] | None, gone: set[str], options: Mapping[str, Any], out: Path
) -> Kept:
    """The datasets of the corpus ``out`` that are not in ``gone``, checked to be whole.

    Raises:
        CorpusError: they were built with other options, or one of their shards is not there.
    """
    datasets = [d for d in (old or {}).get("datasets", ()) if d["id"] not in gone]
    if old is None or not datasets:
        return Kept()
    differ = sorted(k for k, v in options.items() if old["options"].get(k) != _plain(v))
    if differ:
        said = ", ".join(f"{k} {old['options'].get(k)!r}" for k in differ)
        raise CorpusError(
            f"the corpus at {out} was built with {said}: give the same options with --only, build "
            f"all of it anew (without --only), or choose another --out"
        )
    if old["schema_version"] != SCHEMA_VERSION:
        raise CorpusError(
            f"the corpus at {out} has rows of schema version {old['schema_version']}, this sammed "
            f"writes {SCHEMA_VERSION}: build all of it anew (without --only)"
        )
    shards = [s for s in old["shards"] if dataset_of(s["path"]) not in gone]
    for shard in shards:
        if footer_content(out / shard["path"]) != shard["content_sha256"]:
            raise CorpusError(
                f"{out / shard['path']}: expected the shard that the manifest names, found "
                f"another or none: build all of the corpus anew (without --only)"
            )
    missed = [n for n in old["not_built"] if n["id"] not in gone]
    return Kept(datasets=datasets, shards=shards, not_built=missed)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _unpaired_path(dataset: str) -> str:
    return f"rejections/part-unpaired--{dataset}.parquet"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A corpus that is whole but not yet in place: its manifest, and what the shards recorded."""

    manifest: dict[str, Any]
    records: Sequence[Record]


def draft(batch: Batch, staging: Path, out: Path) -> Draft:
    """Add up the finished shards; nothing is moved.

    Raises:
        CorpusError: no shard has a row.
    """
    records: list[Record] = [r for s in batch.shards if (r := record_of(s.stem, staging))]
    hashes: list[str] = []
    for shard, record in zip(batch.shards, records, strict=True):
        staged = staging / f"{shard.stem}.parquet"
        place = staged if staged.is_file() else out / shard.path
        hashes += content_hashes(place) if record["rows"] else []
    for kept in batch.kept.shards:
        hashes += content_hashes(out / kept["path"])
    if not hashes:
        raise CorpusError(_nothing_kept(batch.shards, staging, out))
    unpaired = [unpaired_record(d) for d in batch.datasets if d.unpaired]
    manifest = make_manifest(batch, [*records, *unpaired], hashes)
    return Draft(manifest=manifest, records=records)


def publish(batch: Batch, ready: Draft, extra: Mapping[str, str], staging: Path, out: Path) -> None:
    """Move finished shards into place; the manifest comes last and makes them a corpus.

    ``extra`` holds small files of the corpus by name (recipe, lock, catalogue entries).
    """
    stale = _stale(batch, ready.records, extra, out)
    for dataset in batch.datasets:
        if dataset.unpaired:
            write_rejections(staging / "unpaired.rejections", dataset.unpaired)
            _move(staging / "unpaired.rejections", out / _unpaired_path(dataset.entry.id))
    write_text(staging / "stale.json", json.dumps(stale))
    for shard, record in zip(batch.shards, ready.records, strict=True):
        if record["rows"]:
            _move(staging / f"{shard.stem}.parquet", out / shard.path)
        _move(staging / f"{shard.stem}.rejections.parquet", out / rejections_path(shard.stem))
        fail_point("during_publish")
    for name, text in sorted(extra.items()):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(out / name, text)
    write_text(out / "README.md", make_card(ready.manifest))
    write_text(out / "croissant.json", make_croissant(ready.manifest))
    manifest = json.dumps(ready.manifest, indent=1, sort_keys=True) + "\n"
    write_text(out / "manifest.json", manifest)
    fail_point("after_manifest")
    _clean(batch, staging, out, stale)
    corpus = Corpus(out)
    if not is_remote(out):
        open_index(corpus)  # so that the first training need not make it


def _move(staged: Path, final: Path) -> None:
    if staged.is_file():
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(final)


def _stale(batch: Batch, records: Sequence[Record], extra: Iterable[str], out: Path) -> list[str]:
    """Files of an older corpus that the new one does not have; only files a manifest named."""
    own = list(zip(batch.shards, records, strict=True))
    wanted = {s.path for s, r in own if r["rows"]} | {s["path"] for s in batch.kept.shards}
    wanted |= {rejections_path(s.stem) for s, r in own if r["has_rejections"]}
    wanted |= {_unpaired_path(d.entry.id) for d in batch.datasets if d.unpaired}
    wanted |= {*extra, *map(kept_path, batch.kept.ids)}
    old = read_manifest(out) or {"shards": [], "datasets": []}
    note = out / ".partial" / "stale.json"
    known = {s["path"] for s in old["shards"]} | {kept_path(d["id"]) for d in old["datasets"]}
    rejections = {f"rejections/{p.name}" for p in (out / "rejections").glob("part-*.parquet")}
    known |= {name for name in rejections if dataset_of(name) not in batch.kept.ids}
    if note.is_file():
        known |= set(json.loads(note.read_text(encoding="utf-8")))
    return sorted(known - wanted)


def _clean(batch: Batch, staging: Path, out: Path, stale: Sequence[str]) -> None:
    for name in stale:
        (out / name).unlink(missing_ok=True)
    stems = {s.stem for s in batch.shards}
    for left in list(staging.iterdir()):
        record = left.suffix == ".json" and left.name.removesuffix(".json")
        ours = record in stems or (record and dataset_of(left.name) in batch.kept.ids)
        if left.name != "lock" and not ours:
            left.unlink()


def _nothing_kept(shards: Sequence[ShardPlan], staging: Path, out: Path) -> str:
    reasons: list[str] = []
    for shard in shards:
        path = staging / f"{shard.stem}.rejections.parquet"
        rejected = read_rows(path) if path.is_file() else []
        reasons += [f"{r['case_id']}: {r['reason']}" for r in rejected]
    return f"no image was kept, nothing was written to {out}: {first_of(reasons)}"


def first_of(reasons: Sequence[str]) -> str:
    """The first reason, and how many more there are."""
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return (reasons[0] if reasons else "no slice has a label") + more
