"""One corpus by many machines: each builds a part, one merges, anyone asks how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from sammed_data.build import (
    BuildResult,
    Order,
    Planned,
    as_note,
    build_order,
    finish,
    from_note,
    plan,
)
from sammed_data.engine import fail_point, interruptible
from sammed_data.manifest import read_manifest
from sammed_data.part import Part, shares
from sammed_data.plan import ShardPlan
from sammed_data.run_shards import How, Ran, run_shards
from sammed_data.staging import (
    failure_of,
    is_done,
    read_plan,
    record_of,
    staging_folder,
    write_plan,
)
from sammed_data.stores import absolute, place
from sammed_data.types import CorpusError

_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What one part did.

    Attributes:
        part: which.
        shards: that it has to build.
        built: by this run.
        reused: that were there before.
        quarantined: cases of its shards that were set aside.
    """

    part: Part
    shards: int
    built: int
    reused: int
    quarantined: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far shards are.

    Attributes:
        failed: stem -> why, of the last attempt.
    """

    done: int
    remaining: int
    failed: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Counts and reasons."""
        return {
            "done": self.done,
            "failed": len(self.failed),
            "remaining": self.remaining,
            "reasons": self.failed,
        }


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a corpus is: ``published`` once its manifest is that of the plan."""

    published: bool
    datasets: dict[str, Progress]

    @property
    def total(self) -> Progress:
        """Over all datasets."""
        return Progress(
            done=sum(p.done for p in self.datasets.values()),
            remaining=sum(p.remaining for p in self.datasets.values()),
            failed={k: v for p in self.datasets.values() for k, v in p.failed.items()},
        )


def build_part(order: Order, out: Path, part: Part, how: How) -> PartResult:
    """Build the shards of one part into ``<out>/.partial``; no manifest is written.

    Raises:
        SammedError: as ``build``; or a shard of this part failed.
    """
    out = absolute(out)
    with interruptible():
        planned = plan(order, out)
        mine = shares(planned.shards, part.count)[part.index]
        with staging_folder(out, part) as staging:
            write_plan(staging, as_note(order), planned.shards)
            ran = run_shards(planned.batch, mine, staging, out, order.strict, how)
            ran.refuse_gaps(out)
            records = [record_of(s.stem, staging) or {"rejected": {}} for s in mine]
    bad = sum(n for r in records for k, n in r["rejected"].items() if k.startswith("case:"))
    return PartResult(
        part=part, shards=len(mine), built=ran.built, reused=ran.reused, quarantined=bad
    )


def merge(out: Path, root: Path | None = None) -> BuildResult:
    """Publish a corpus whose parts are all there; the bytes are those of one build.

    Args:
        out: the corpus folder that the parts wrote to.
        root: where the datasets lie, if not where the parts saw them.

    Raises:
        CorpusError: no part has run, or shards are missing: which, and how to get them.
    """
    out = place(out)
    order = _order_of(out, root)
    with interruptible():
        planned = plan(order, out)
        with staging_folder(out) as staging:
            missing = [s for s in planned.shards if not is_done(s, staging, out)]
            if missing:
                raise CorpusError(_missing(planned, missing, out))
            fail_point("before_merge")
            ran = Ran(built=0, reused=len(planned.shards), failed={})
            return finish(planned, ran, staging, out)


def survey_merge(out: Path, root: Path | None = None, *, build: bool = False) -> tuple[int, int]:
    """What :func:`merge` would publish, without a trace: all shards, and those still missing.

    Args:
        out: as for :func:`merge`.
        root: likewise.
        build: missing shards would be built here; else they are an error.

    Raises:
        CorpusError: as :func:`merge`.
    """
    out = place(out)
    planned = plan(_order_of(out, root), out)
    missing = [s for s in planned.shards if not is_done(s, out / ".partial", out)]
    if missing and not build:
        raise CorpusError(_missing(planned, missing, out))
    return len(planned.shards), len(missing)


def _order_of(out: Path, root: Path | None) -> Order:
    note = _plan_of(out)
    if note is None:
        if read_manifest(out):
            raise CorpusError(f"nothing to merge: {out} is complete already")
        raise CorpusError(
            f"nothing to merge: {out} holds no part of a build; run `sammed data build --part 0/N`"
        )
    return from_note(note["order"] | ({"root": str(root.absolute())} if root else {}))


def _missing(planned: Planned, missing: Sequence[ShardPlan], out: Path) -> str:
    stems = [s.stem for s in missing]
    named = ", ".join(stems[:_MOST_NAMED]) + (", ..." if len(stems) > _MOST_NAMED else "")
    return (
        f"{len(stems)} of {len(planned.shards)} shards are not there, or were made with other "
        f"options or from files of another size or date: {named}; run {_homes(planned, stems, out)}"
        f" once more (finished shards are not built again), or `sammed data merge "
        f"{quote(str(out))} --build` to build them here"
    )


def _homes(planned: Planned, stems: Sequence[str], out: Path) -> str:
    """Which parts the shards belong to, if all parts were cut alike."""
    counts = {
        int(p.name.split("-")[3].split(".")[0]) for p in (out / ".partial").glob("part-*-of-*")
    }
    if len(counts) != 1:
        return "every part"
    count = counts.pop()
    parts = shares(planned.shards, count)
    wanted = [i for i, part in enumerate(parts) if {s.stem for s in part} & set(stems)]
    return f"parts {', '.join(map(str, wanted))} of {count}"


def merge_and_build(out: Path, how: How, root: Path | None = None) -> BuildResult:
    """Build what is missing on this machine, then publish.

    Raises:
        SammedError: as ``build``.
    """
    return build_order(_order_of(place(out), root), out, how)


def _plan_of(out: Path) -> dict[str, Any] | None:
    return read_plan(out / ".partial")


def status(out: Path) -> Status:
    """How far each dataset is; reads notes only, also while builds are at work.

    Raises:
        CorpusError: neither a corpus nor a build under way.
    """
    out = place(out)
    note, manifest = _plan_of(out), read_manifest(out)
    if note is None:
        if manifest is None:
            raise CorpusError(
                f"expected a corpus or an unfinished build at {out}, found neither: run "
                f"`sammed data build --out {quote(str(out))}`"
            )
        return Status(published=True, datasets=_published(manifest))
    staging = out / ".partial"
    done, left = Counter[str](), Counter[str]()
    failed: dict[str, dict[str, str]] = {}
    for dataset, stem, plan_hash, _ in note["shards"]:
        record = record_of(stem, staging)
        reason = failure_of(stem, plan_hash, staging)
        failed.setdefault(dataset, {})
        if record is not None and record["plan_hash"] == plan_hash:
            done[dataset] += 1
        elif reason is not None:
            failed[dataset][stem] = reason
        else:
            left[dataset] += 1
    datasets = {
        name: Progress(done=done[name], remaining=left[name], failed=reasons)
        for name, reasons in failed.items()
    }
    return Status(published=False, datasets=datasets)


def _published(manifest: dict[str, Any]) -> dict[str, Progress]:
    names = [s["path"].split("/")[-1].partition("-")[0] for s in manifest["shards"]]
    counts = Counter(names)
    return {
        d["id"]: Progress(done=counts[d["id"]], remaining=0, failed={})
        for d in manifest["datasets"]
    }
