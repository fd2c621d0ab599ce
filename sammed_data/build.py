"""Catalogues and archives to a corpus: find, plan, run, publish. Read :func:`build` first.

Shards are finished in ``<out>/.partial`` and moved at the end, so an older corpus in ``out`` stays
whole until the new one is complete. A shard whose record has the planned hash is not built again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sammed_data.catalog import CatalogEntry, load_catalogs
from sammed_data.curate import RULES
from sammed_data.discover import discover, find_root
from sammed_data.engine import fail_point, run_tasks
from sammed_data.manifest import read_manifest
from sammed_data.ontology import Ontology, load_ontology
from sammed_data.plan import BuildOptions, DatasetPlan, Meaning, plan_shards
from sammed_data.privacy import Pseudonyms, pseudonyms
from sammed_data.publish import first_of, is_done, publish, staging_folder
from sammed_data.rows import ShardTask
from sammed_data.types import CatalogError, ReadError, nearest
from sammed_data.work import build_shard


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a build did.

    Attributes:
        manifest: as written.
        absent: entries that are not on disk.
        failed: dataset -> why it could not be built at all.
        reused: shards that an earlier run had finished.
        built: shards built by this run.
        dropped: datasets of the older corpus in ``out`` that are not in the new one.
    """

    manifest: Mapping[str, Any]
    absent: tuple[CatalogEntry, ...]
    failed: Mapping[str, str]
    reused: int
    built: int
    dropped: tuple[str, ...]

    @property
    def quarantined(self) -> int:
        """Cases and datasets that were set aside."""
        rejected: dict[str, int] = self.manifest["counts"]["cases"]["rejected"]
        return sum(rejected.values()) + len(self.failed)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Catalogue against disk."""

    datasets: tuple[DatasetPlan, ...]
    absent: tuple[CatalogEntry, ...]
    failed: Mapping[str, str]


def _no_progress(done: int, total: int) -> None:
    """Say nothing."""


def build(
    source: Path | None,
    root: Path,
    out: Path,
    *,
    only: Sequence[str] = (),
    options: BuildOptions | None = None,
    workers: int = 1,
    strict: bool = False,
    key_file: Path | None = None,
    progress: Callable[[int, int], object] = _no_progress,
) -> BuildResult:
    """Build, or go on building, the corpus ``out``.

    Args:
        source: catalogue folder; None = the bundled one.
        root: where the datasets lie.
        out: corpus folder.
        only: dataset ids; empty = every entry found on disk.
        options: what decides the rows.
        workers: processes; any number gives the same bytes.
        strict: stop at the first case that would be quarantined.
        key_file: secret for restricted datasets.
        progress: called with (finished shards, all shards).

    Raises:
        SammedError: no source, an unwritable folder, a wrong entry, nothing to keep, an interrupt.
    """
    chosen = options or BuildOptions()
    chosen.check()
    found = find_datasets(source, root, only, key_file, strict=strict)
    shards = [s for d in found.datasets for s in plan_shards(d, chosen)]
    old = read_manifest(out)
    _guard_old(old, found.failed, out)
    with staging_folder(out) as staging:
        todo = [s for s in shards if not is_done(s, staging, out, strict=strict)]
        plans = {d.entry.id: d for d in found.datasets}
        tasks = [
            ShardTask(
                shard=shard,
                dataset=plans[shard.dataset],
                options=chosen,
                staging=staging,
                strict=strict,
            )
            for shard in todo
        ]
        progress(len(shards) - len(todo), len(shards))
        for number, _ in enumerate(run_tasks(build_shard, tasks, workers), start=1):
            progress(len(shards) - len(todo) + number, len(shards))
            fail_point("after_shard")
        manifest = publish(found.datasets, found.failed, shards, chosen, staging, out)
    dropped = {d["id"] for d in (old or {}).get("datasets", ())} - set(plans)
    return BuildResult(
        manifest=manifest,
        absent=found.absent,
        failed=found.failed,
        reused=len(shards) - len(todo),
        built=len(todo),
        dropped=tuple(sorted(dropped)),
    )


def find_datasets(
    source: Path | None,
    root: Path,
    only: Sequence[str],
    key_file: Path | None,
    *,
    strict: bool = False,
    keyed: bool = True,
) -> Found:
    """Which entries lie under ``root``, with their cases and what their labels mean.

    ``keyed=False`` asks for no key file: nothing of the answer is to be stored.

    Raises:
        CatalogError: an unknown or absent dataset was named, or nothing at all is on disk.
        ReadError: a dataset is incomplete, and it is the only one or was named.
    """
    entries = load_catalogs(source)
    ontology = load_ontology(source)
    unknown = [name for name in only if name not in entries]
    if unknown:
        hints = "; ".join(f"{name!r}: {nearest(name, entries)}" for name in unknown)
        raise CatalogError(f"expected ids of catalogue entries, found unknown ones: {hints}")
    datasets, absent, failed = [], [], {}
    for name in sorted(set(only) or entries):
        entry = entries[name]
        place = find_root(entry, root)
        if place is None:
            absent.append(entry)
            continue
        names = pseudonyms(entry, key_file) if keyed else Pseudonyms(dataset=name)
        pairs = discover(entry, place)
        if pairs.problems and (strict or not pairs.cases):
            reason = first_of([p.reason for p in pairs.problems])
            reason += "; add what is missing, or name the rest under layout.exclude"
            if strict or only:
                raise ReadError(f"{entry.id} at {place}: {reason}")
            failed[name] = reason
            continue
        datasets.append(
            DatasetPlan(
                entry=entry,
                cases=pairs.cases,
                meanings=resolve_labels(entry, ontology),
                unpaired=tuple(names.rejection(p, RULES["unpaired"][1]) for p in pairs.problems),
                secret=names.secret,
            )
        )
    if only and absent:
        raise CatalogError("\n".join(absent_sentence(entry, root) for entry in absent))
    if not datasets and failed:
        raise ReadError("\n".join(f"{name}: {reason}" for name, reason in sorted(failed.items())))
    if not datasets:
        raise CatalogError(
            f"none of the {len(absent)} catalogued datasets lies under {root}: pass --root FOLDER "
            f"with the unpacked archives (or set $SAMMED_DATA); `sammed data list` says where to "
            f"get each, `sammed demo` makes phantoms"
        )
    return Found(datasets=tuple(datasets), absent=tuple(absent), failed=failed)


def absent_sentence(entry: CatalogEntry, root: Path) -> str:
    """What to do about a dataset that is not on disk."""
    folders = list(dict.fromkeys([*entry.root, entry.id]))
    places = " or ".join(str(root / name) for name in folders[:2])
    access = "" if entry.access == "open" else f" ({entry.access} needed)"
    return (
        f"{entry.id} is not on disk: get it from {entry.homepage}{access} and unpack it to {places}"
    )


def resolve_labels(entry: CatalogEntry, ontology: Ontology) -> dict[str, Meaning]:
    """Raw label or union name -> structure.

    Raises:
        CatalogError: a name is unknown to the ontology, or ambiguous; all of an entry together.
    """
    meanings: dict[str, Meaning] = {}
    problems: list[str] = []
    for raw, name in [*entry.labels.items(), *((u, u) for u in entry.unions)]:
        try:
            found = ontology.resolve(name)
        except CatalogError as err:
            problems.append(str(err))
            continue
        meanings[raw] = Meaning(
            structure=found.name,
            organ=found.organ or "",
            group=found.group or "",
            kind=found.kind,
            side=found.side or "",
        )
    if problems:
        raise CatalogError(f"{entry.id}: " + "; ".join(problems))
    return meanings


def _guard_old(old: Mapping[str, Any] | None, failed: Mapping[str, str], out: Path) -> None:
    held = {d["id"] for d in (old or {}).get("datasets", ())} & set(failed)
    if held:
        name = sorted(held)[0]
        raise ReadError(
            f"{name}: {failed[name]}; the corpus at {out} holds this dataset and was left as it is"
        )
