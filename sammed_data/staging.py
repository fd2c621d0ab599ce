"""``<out>/.partial``: unfinished work. Its locks, the plan, and what each shard left there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import gethostname
from typing import IO, Any

from sammed_data.part import Part
from sammed_data.plan import ShardPlan
from sammed_data.pool import Failure
from sammed_data.shards import footer_content
from sammed_data.stores import is_remote
from sammed_data.system import lock_file
from sammed_data.types import CorpusError

PLAN = "plan.json"
_UNFINISHED = ("*.tmp", "*.rejections", "*.new")
_RECORD_KEYS = {
    "plan_hash", "dataset", "split", "path", "rows", "patients", "masks", "cases", "slices",
    "candidates", "rejected", "has_rejections", "content_sha256", "source_hashes",
}  # fmt: skip


@contextmanager
def staging_folder(out: Path, part: Part | None = None) -> Iterator[Path]:
    """The folder of unfinished work, locked: a build or merge works alone, parts beside each other.

    An object store locks nothing, and some cluster file systems do not either; there a second
    build wastes work, but the plan hash of each shard keeps the bytes right.

    Raises:
        CorpusError: the folder cannot be written, or another build is at work.
    """
    staging = out / ".partial"
    with ExitStack() as held:
        try:
            staging.mkdir(parents=True, exist_ok=True)
            if not is_remote(out):
                _lock(held.enter_context((staging / "lock").open("w")), out, shared=bool(part))
            if part and not is_remote(out):
                name = f"part-{part.index}-of-{part.count}.lock"
                _lock(held.enter_context((staging / name).open("w")), out)
        except OSError as err:
            raise CorpusError(
                f"cannot write the corpus to {out} ({err.strerror or err}): choose another --out"
            ) from err
        if part is None and not is_remote(out):  # a part must not sweep what its neighbours write
            for left in [p for end in _UNFINISHED for p in staging.glob(end)]:
                left.unlink()
        try:
            yield staging
        except OSError as err:
            raise CorpusError(
                f"cannot write {err.filename or out} ({err.strerror or err}): make room or choose "
                f"another --out, and run again; finished shards stay"
            ) from err


def _lock(stream: IO[str], out: Path, *, shared: bool = False) -> None:
    try:
        lock_file(stream, shared=shared)
    except BlockingIOError as err:
        raise CorpusError(f"another build is writing {out}: wait for it, or stop it") from err
    except OSError:  # a file system without locks: see staging_folder
        return


def write_plan(staging: Path, order: Mapping[str, Any], shards: Sequence[ShardPlan]) -> None:
    """Note what is to be built, for `merge` and `status`; every part writes the same."""
    listed = [[s.dataset, s.stem, s.plan_hash, s.source_bytes] for s in shards]
    text = json.dumps({"order": order, "shards": listed})
    write_text(staging / PLAN, text, mark=f"{gethostname()}-{os.getpid()}")


def read_plan(staging: Path) -> dict[str, Any] | None:
    """What :func:`write_plan` noted, or None where no build is under way."""
    found = _json(staging / PLAN)
    return found if found and found.keys() >= {"order", "shards"} else None


def write_text(path: Path, text: str, *, mark: str = "") -> None:
    """Write beside and rename, so that a reader sees the old file or the new one.

    ``mark`` tells writers apart where several write the same file.
    """
    if is_remote(path):  # an object appears whole
        path.write_text(text, encoding="utf-8")
        return
    temporary = path.with_name(f".{path.name}{mark}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # a half-written record is no record: built again
        return None
    return found if isinstance(found, dict) else None


def record_of(stem: str, staging: Path) -> dict[str, Any] | None:
    """The record of a finished shard."""
    found = _json(staging / f"{stem}.json")
    return found if found is not None and found.keys() >= _RECORD_KEYS else None


def is_done(shard: ShardPlan, staging: Path, out: Path, *, strict: bool = False) -> bool:
    """Whether a record of this very plan is there, with the files it speaks of.

    Under ``strict`` a shard with quarantined cases is looked at again, so that it is refused.
    """
    record = record_of(shard.stem, staging)
    if record is None or record["plan_hash"] != shard.plan_hash:
        return False
    if strict and any(rule.startswith("case:") for rule in record["rejected"]):
        return False
    if record["has_rejections"]:
        staged = staging / f"{shard.stem}.rejections.parquet"
        if not staged.is_file() and not (out / rejections_path(shard.stem)).is_file():
            return False
    if not record["rows"]:
        return True
    places = (staging / f"{shard.stem}.parquet", out / shard.path)
    return record["content_sha256"] in [footer_content(p) for p in places]


def rejections_path(stem: str) -> str:
    """Where the rejections of a shard lie in the corpus."""
    return f"rejections/part-{stem}.parquet"


def note_failure(staging: Path, shard: ShardPlan, failure: Failure) -> None:
    """Record why a shard could not be built; it is kept until the shard is there."""
    before = _json(staging / f"{shard.stem}.failed.json") or {}
    said = {
        "plan_hash": shard.plan_hash,
        "dataset": shard.dataset,
        "reason": failure.reason,
        "detail": failure.detail,
        "attempts": int(before.get("attempts", 0)) + 1,
    }
    write_text(staging / f"{shard.stem}.failed.json", json.dumps(said, sort_keys=True))


def failure_of(stem: str, plan_hash: str, staging: Path) -> str | None:
    """Why this shard failed when it was last tried, or None."""
    found = _json(staging / f"{stem}.failed.json")
    return str(found["reason"]) if found and found.get("plan_hash") == plan_hash else None


def forget_failure(stem: str, staging: Path) -> None:
    """The shard is there now."""
    (staging / f"{stem}.failed.json").unlink(missing_ok=True)
