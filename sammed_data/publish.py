"""From finished shards to a corpus: staging, records, and the swap that replaces an older one."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sammed_data.corpus import Corpus
from sammed_data.engine import fail_point
from sammed_data.manifest import (
    Record,
    make_card,
    make_manifest,
    read_manifest,
    unpaired_record,
    write_text,
)
from sammed_data.plan import BuildOptions, DatasetPlan, ShardPlan
from sammed_data.shards import content_hashes, footer_content, read_rows, write_rejections
from sammed_data.types import CorpusError

_RECORD_KEYS = {
    "plan_hash", "dataset", "split", "path", "rows", "patients", "masks", "cases", "slices",
    "candidates", "rejected", "has_rejections", "content_sha256",
}  # fmt: skip


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """The folder of unfinished work, locked against a second build.

    Raises:
        CorpusError: the folder cannot be written, or another build is at work.
    """
    staging = out / ".partial"
    try:
        staging.mkdir(parents=True, exist_ok=True)
        lock = (staging / "lock").open("w")
    except OSError as err:
        raise CorpusError(
            f"cannot write the corpus to {out} ({err.strerror}): choose another --out"
        ) from err
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise CorpusError(f"another build is writing {out}: wait for it, or stop it") from err
        for left in [*staging.glob("*.tmp"), *staging.glob("*.tmp.rejections")]:
            left.unlink()
        try:
            yield staging
        except OSError as err:
            raise CorpusError(
                f"cannot write {err.filename or out} ({err.strerror}): make room or choose "
                f"another --out, and run again; finished shards stay"
            ) from err


def _record(stem: str, staging: Path) -> dict[str, Any] | None:
    path = staging / f"{stem}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # a half-written record is no record: built again
        return None
    return found if isinstance(found, dict) and found.keys() >= _RECORD_KEYS else None


def is_done(shard: ShardPlan, staging: Path, out: Path, *, strict: bool = False) -> bool:
    """Whether a record of this very plan is there, with the files it speaks of.

    Under ``strict`` a shard with quarantined cases is looked at again, so that it is refused.
    """
    record = _record(shard.stem, staging)
    if record is None or record["plan_hash"] != shard.plan_hash:
        return False
    if strict and any(rule.startswith("case:") for rule in record["rejected"]):
        return False
    if record["has_rejections"]:
        staged = staging / f"{shard.stem}.rejections.parquet"
        if not staged.is_file() and not (out / _rejections_path(shard)).is_file():
            return False
    if not record["rows"]:
        return True
    places = (staging / f"{shard.stem}.parquet", out / shard.path)
    return record["content_sha256"] in [footer_content(p) for p in places]


def _rejections_path(shard: ShardPlan) -> str:
    return f"rejections/part-{shard.stem}.parquet"


def _unpaired_path(dataset: str) -> str:
    return f"rejections/part-unpaired--{dataset}.parquet"


def publish(
    datasets: Sequence[DatasetPlan],
    failed: Mapping[str, str],
    shards: Sequence[ShardPlan],
    options: BuildOptions,
    staging: Path,
    out: Path,
) -> dict[str, Any]:
    """Move finished shards into place; the manifest comes last and makes them a corpus.

    Returns:
        The manifest.

    Raises:
        CorpusError: no shard has a row; nothing is moved.
    """
    records: list[Record] = [r for s in shards if (r := _record(s.stem, staging)) is not None]
    hashes: list[str] = []
    for shard, record in zip(shards, records, strict=True):
        staged = staging / f"{shard.stem}.parquet"
        place = staged if staged.is_file() else out / shard.path
        hashes += content_hashes(place) if record["rows"] else []
    if not hashes:
        raise CorpusError(_nothing_kept(shards, staging, out))
    records += [unpaired_record(d) for d in datasets if d.unpaired]
    manifest = make_manifest(datasets, records, options, hashes, failed)
    stale = _stale(out, shards, records)
    for dataset in datasets:
        if dataset.unpaired:
            write_rejections(staging / "unpaired.tmp.rejections", dataset.unpaired)
            _move(staging / "unpaired.tmp.rejections", out / _unpaired_path(dataset.entry.id))
    write_text(staging / "stale.json", json.dumps(stale))
    for shard, record in zip(shards, records[: len(shards)], strict=True):
        if record["rows"]:
            _move(staging / f"{shard.stem}.parquet", out / shard.path)
        _move(staging / f"{shard.stem}.rejections.parquet", out / _rejections_path(shard))
        fail_point("during_publish")
    write_text(out / "README.md", make_card(manifest))
    write_text(out / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    fail_point("after_manifest")
    _clean(out, staging, shards, stale)
    Corpus(out)
    return manifest


def _move(staged: Path, final: Path) -> None:
    if staged.is_file():
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(final)


def _stale(
    out: Path, shards: Sequence[ShardPlan], records: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Files of an older corpus that the new one does not have; only files a manifest named."""
    own = list(zip(shards, records, strict=False))
    wanted = {s.path for s, r in own if r["rows"]}
    wanted |= {_rejections_path(s) for s, r in own if r["has_rejections"]}
    wanted |= {_unpaired_path(r["dataset"]) for r in records[len(shards) :]}
    old = read_manifest(out) or {"shards": []}
    note = out / ".partial" / "stale.json"
    known = {s["path"] for s in old["shards"]}
    known |= {p.relative_to(out).as_posix() for p in (out / "rejections").glob("part-*.parquet")}
    if note.is_file():
        known |= set(json.loads(note.read_text(encoding="utf-8")))
    return sorted(known - wanted)


def _clean(out: Path, staging: Path, shards: Sequence[ShardPlan], stale: Sequence[str]) -> None:
    for name in stale:
        (out / name).unlink(missing_ok=True)
    stems = {s.stem for s in shards}
    for left in staging.iterdir():
        if left.name == "stale.json" or (
            left.suffix in (".json", ".parquet")
            and left.name.removesuffix(".json").removesuffix(".parquet") not in stems
        ):
            left.unlink()
    for shard in shards:  # a shard without rows stays here, empty
        (staging / f"{shard.stem}.parquet").unlink(missing_ok=True)


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
