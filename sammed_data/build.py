"""Catalogues and archives to a corpus: find, plan, run, publish. Read :func:`build` first.

Shards are finished in ``<out>/.partial`` and moved at the end, so an older corpus in ``out`` stays
whole until the new one is complete. A shard whose record has the planned hash is not built again.
Many machines share the shards by ``parts.build_part`` and end with ``parts.merge``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sammed_data.catalog import CatalogEntry, load_catalogs, refuse_unknown
from sammed_data.curate import RULES
from sammed_data.discover import Discovery, discover, find_root
from sammed_data.engine import interruptible
from sammed_data.exclude import load as load_exclusions
from sammed_data.exclude import read_list
from sammed_data.excluding import apply_list
from sammed_data.licenses import (
    Decision,
    admits,
    check_words,
    load_decisions,
    refusal,
    signed_entry,
    standing,
)
from sammed_data.lock import Lock, corpus_files, refuse_other_sources, refuse_other_trees
from sammed_data.manifest import manifest_options, read_manifest
from sammed_data.ontology import Ontology, load_ontology
from sammed_data.plan import BuildOptions, DatasetPlan, Meaning, ShardPlan, plan_shards
from sammed_data.presence import possible
from sammed_data.privacy import Pseudonyms, pseudonyms, unnamed
from sammed_data.publish import Batch, Kept, draft, first_of, keep_others, publish
from sammed_data.released.classes import completed
from sammed_data.run_shards import How, Ran, run_shards
from sammed_data.splits import overlap_group_split, overlap_groups
from sammed_data.staging import staging_folder, write_plan
from sammed_data.stores import absolute, is_remote
from sammed_data.stores import place as open_place
from sammed_data.types import CatalogError, ReadError, UsageError, nearest


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
        kept: datasets of the older corpus that were left as they are (``only``).
        refused: dataset -> why its licence left it out.
        source_bytes: size of the source files of all shards.
        twice: groups of datasets whose entries find the same images.
    """

    manifest: Mapping[str, Any]
    absent: tuple[CatalogEntry, ...]
    failed: Mapping[str, str]
    reused: int
    built: int
    dropped: tuple[str, ...]
    kept: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    source_bytes: int = 0
    twice: tuple[tuple[str, ...], ...] = ()

    @property
    def quarantined(self) -> int:
        """Cases and datasets that were set aside."""
        rejected: dict[str, int] = self.manifest["counts"]["cases"]["rejected"]
        return sum(n for rule, n in rejected.items() if rule != "excluded") + len(self.failed)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Catalogue against disk."""

    datasets: tuple[DatasetPlan, ...]
    absent: tuple[CatalogEntry, ...]
    failed: Mapping[str, str]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a corpus is to be made of.

    Attributes:
        source: catalogue folder; None = the bundled one.
        root: where the datasets lie.
        only: dataset ids to build; others that the corpus holds stay. Empty = all found on disk.
        drop: dataset ids that the corpus is not to hold.
        exact: the corpus is to hold ``only`` and nothing else (a recipe).
        options: what decides the rows.
        strict: stop at the first case that would be quarantined.
        key_file: secret for restricted datasets.
        exclude: lists of samples, cases or patients that the corpus is to leave out.
        lock: sources that the build must find as they were.
        license: SPDX ids and words of ``licenses.WORDS`` that let a dataset in; empty = any.
        decisions: signed ``licence-decisions.yaml``, or None.
    """

    source: Path | None
    root: Path
    only: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    exact: bool = False
    options: BuildOptions = field(default_factory=BuildOptions)
    strict: bool = False
    key_file: Path | None = None
    exclude: tuple[Path, ...] = ()
    lock: Lock | None = None
    license: tuple[str, ...] = ()
    decisions: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Planned:
    """An order against the disk and the corpus that is already there."""

    order: Order
    found: Found
    shards: tuple[ShardPlan, ...]
    old: Mapping[str, Any] | None
    kept: Kept

    @property
    def batch(self) -> Batch:
        """What is to be published together."""
        return Batch(
            datasets=self.found.datasets,
            shards=self.shards,
            options=self.order.options,
            failed=self.found.failed,
            kept=self.kept,
        )


def _no_progress(done: int, total: int) -> None:
    """Say nothing."""


def build(
    source: Path | None,
    root: Path,
    out: Path,
    *,
    only: Sequence[str] = (),
    drop: Sequence[str] = (),
    options: BuildOptions | None = None,
    workers: int = 1,
    strict: bool = False,
    key_file: Path | None = None,
    progress: Callable[[int, int], object] = _no_progress,
) -> BuildResult:
    """Build, or go on building, the corpus ``out``: :func:`build_order` in plain arguments.

    Args:
        source: catalogue folder; None = the bundled one.
        root: where the datasets lie.
        out: corpus folder, or a URL that fsspec knows.
        only: dataset ids; other datasets of the corpus stay. Empty = every entry found on disk.
        drop: dataset ids to leave out, and to remove from the corpus.
        options: what decides the rows.
        workers: processes; any number gives the same bytes.
        strict: stop at the first case that would be quarantined.
        key_file: secret for restricted datasets.
        progress: called with (finished shards, all shards).

    Raises:
        SammedError: no source, an unwritable folder, a wrong entry, nothing to keep, an interrupt.
    """
    order = Order(
        source=source,
        root=root,
        only=tuple(only),
        drop=tuple(drop),
        options=options or BuildOptions(),
        strict=strict,
        key_file=key_file,
    )
    return build_order(order, out, How(workers=workers, progress=progress))


def build_order(order: Order, out: Path, how: How) -> BuildResult:
    """Build, or go on building, the corpus ``out``.

    Raises:
        SammedError: as :func:`build`; or some shards failed, and nothing is published.
    """
    out = absolute(out)
    with interruptible():
        planned = plan(order, out)
        with staging_folder(out) as staging:
            write_plan(staging, as_note(order), planned.shards)
            ran = run_shards(planned.batch, planned.shards, staging, out, order.strict, how)
            ran.refuse_gaps(out)
            return finish(planned, ran, staging, out)


def plan(order: Order, out: Path) -> Planned:
    """Find the datasets, cut them into shards, and settle what stays of an older corpus.

    Raises:
        SammedError: a wrong option, entry or name; nothing on disk; a source differs from the lock.
    """
    order.options.check()
    check_words(order.license)
    decisions = load_decisions(order.decisions)
    for path in order.exclude:  # a wrong list is said before the work, applied after it
        read_list(path)
    old = read_manifest(out)
    _refuse_unknown_drop(order, old)
    root = order.root if is_remote(open_place(order.root)) else order.root.absolute()
    found = find_datasets(
        order.source,
        root,  # absolute: a worker on another node has another working folder
        _wanted(order),
        order.key_file,
        strict=order.strict,
        drop=order.drop,
    )
    gone = load_exclusions(out)
    datasets = [replace(d, withdrawn=gone.withdrawn(d.entry.id)) for d in found.datasets]
    found = _licensed(replace(found, datasets=tuple(datasets)), order.license, decisions)
    if order.lock is not None:
        refuse_other_sources(order.lock, found.datasets, order.options, order.root)
    shards = tuple(s for d in found.datasets for s in plan_shards(d, order.options))
    _guard_old(old, found.failed, out)
    kept = Kept()
    if order.only and not order.exact:
        others = {*order.only, *order.drop}
        kept = keep_others(old, others, manifest_options(order.options), out)
    return Planned(order=order, found=found, shards=shards, old=old, kept=kept)


def _licensed(found: Found, words: Sequence[str], decisions: Mapping[str, Decision]) -> Found:
    """Datasets under the licence signed for them, without those that the filter leaves out.

    Raises:
        CatalogError: no dataset is left.
    """
    standings = {d.entry.id: standing(d.entry, decisions) for d in found.datasets}
    refused = {k: refusal(words, s) for k, s in standings.items() if not admits(words, s)}
    datasets = tuple(
        replace(d, entry=signed_entry(d.entry, decisions))
        for d in found.datasets
        if d.entry.id not in refused
    )
    if refused and not datasets:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
        raise CatalogError(f"no dataset on disk is let in by --license: {reasons}")
    return replace(found, datasets=datasets, refused=refused)


def finish(planned: Planned, ran: Ran, staging: Path, out: Path) -> BuildResult:
    """Publish what is complete.

    Raises:
        CorpusError: nothing was kept, or the lock speaks of other files or rows.
    """
    ready = draft(planned.batch, staging, out)
    excludes = bool(planned.order.exclude or load_exclusions(out))
    extra = corpus_files(
        planned.batch,
        ready,
        planned.order.root,
        out,
        excludes=excludes,
        decisions=planned.order.decisions,
    )
    if planned.order.lock is not None:
        refuse_other_trees(planned.order.lock, extra)
    publish(planned.batch, ready, extra, staging, out)
    for path in planned.order.exclude:
        apply_list(out, read_list(path), key_file=planned.order.key_file)
    before = {d["id"] for d in (planned.old or {}).get("datasets", ())}
    now = {d["id"] for d in ready.manifest["datasets"]}
    return BuildResult(
        manifest=ready.manifest,
        absent=planned.found.absent,
        failed=planned.found.failed,
        reused=len(planned.shards) - ran.built,
        built=ran.built,
        dropped=tuple(sorted(before - now)),
        kept=tuple(sorted(planned.kept.ids)),
        refused=planned.found.refused,
        source_bytes=sum(shard.source_bytes for shard in planned.shards),
        twice=_twice(planned.found.datasets),
    )


def _twice(datasets: Sequence[DatasetPlan]) -> tuple[tuple[str, ...], ...]:
    """Groups of datasets that begin with the same image: their entries describe one folder."""
    first: dict[Path, list[str]] = {}
    for dataset in datasets:
        if dataset.cases:
            first.setdefault(dataset.cases[0].image_path, []).append(dataset.entry.id)
    return tuple(tuple(names) for names in first.values() if len(names) > 1)


def as_note(order: Order) -> dict[str, Any]:
    """An order as JSON, for :func:`from_note` on another machine that sees the same paths."""
    paths = {k: getattr(order, k) for k in ("source", "root", "key_file", "decisions")}
    return {
        **{k: None if p is None else str(p.absolute()) for k, p in paths.items()},
        "only": list(order.only),
        "drop": list(order.drop),
        "exact": order.exact,
        "exclude": [str(p.absolute()) for p in order.exclude],
        "options": asdict(order.options),
        "strict": order.strict,
        "license": list(order.license),
        "lock": None if order.lock is None else order.lock.model_dump(mode="json"),
    }


def from_note(note: Mapping[str, Any]) -> Order:
    """The order that :func:`as_note` wrote."""
    return Order(
        source=Path(note["source"]) if note["source"] else None,
        root=Path(note["root"]),
        only=tuple(note["only"]),
        drop=tuple(note["drop"]),
        exact=note["exact"],
        exclude=tuple(Path(p) for p in note["exclude"]),
        options=BuildOptions.from_plain(note["options"]),
        strict=note["strict"],
        key_file=Path(note["key_file"]) if note["key_file"] else None,
        license=tuple(note["license"]),
        decisions=Path(note["decisions"]) if note["decisions"] else None,
        lock=Lock.model_validate(note["lock"]) if note["lock"] else None,
    )


def _wanted(order: Order) -> tuple[str, ...]:
    """What is looked for by name; a lock names its sources."""
    if order.lock is None or order.only:
        return order.only
    return tuple(name for name in sorted(order.lock.sources) if name not in order.drop)


def _refuse_unknown_drop(order: Order, old: Mapping[str, Any] | None) -> None:
    known = {d["id"] for d in (old or {}).get("datasets", ())} | set(load_catalogs(order.source))
    wrong = [f"{name!r}: {nearest(name, known)}" for name in order.drop if name not in known]
    wrong += [f"{name!r} is also under --only" for name in order.drop if name in order.only]
    if wrong:
        raise UsageError("--drop takes datasets of the corpus or catalogue: " + "; ".join(wrong))


def find_datasets(
    source: Path | None,
    root: Path,
    only: Sequence[str],
    key_file: Path | None,
    *,
    strict: bool = False,
    keyed: bool = True,
    drop: Sequence[str] = (),
) -> Found:
    """Which entries lie under ``root``, with their cases and what their labels mean.

    ``keyed=False`` asks for no key file: nothing of the answer is to be stored. Entries in
    ``drop`` are not looked for.

    Raises:
        UsageError: ``root`` is a URL, or an unknown dataset was named.
        CatalogError: an absent dataset was named, or nothing at all is on disk.
        ReadError: a dataset is incomplete, and it is the only one or was named.
    """
    if is_remote(open_place(root)):
        raise UsageError(
            f"--root is a local folder, not {root}: mount the store or copy the archives; only the "
            f"corpus itself may lie at a URL"
        )
    entries = load_catalogs(source)
    ontology = load_ontology(source)
    refuse_unknown(only, entries, source)
    datasets, absent, failed = [], [], {}
    # Without names, one look at the tree in place of one walk an entry.
    near = set(only) or possible(entries, root)
    shared = overlap_groups(entries)
    for name in sorted(set(only) or set(entries) - set(drop)):
        entry = entries[name]
        try:
            with unnamed(entry):
                place = find_root(entry, root) if name in near else None
                entry, pairs = _looked_up(entry, place, ontology)
        except ReadError as err:
            if strict or only:
                raise
            failed[name] = str(err)
            continue
        if pairs is None:
            absent.append(entry)
            continue
        names = pseudonyms(entry, key_file) if keyed else Pseudonyms(dataset=name)
        if pairs.problems and (strict or not pairs.cases):
            found = [names.rejection(p, RULES[p.rule][1]) for p in pairs.problems]
            reason = first_of([p.reason for p in found])
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
                unpaired=tuple(names.rejection(p, RULES[p.rule][1]) for p in pairs.problems),
                secret=names.secret,
                group_split=_group_split(shared[name], entries),
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


def _group_split(members: Sequence[str], entries: Mapping[str, CatalogEntry]) -> str | None:
    if len(members) == 1:
        return None
    held_out = any(entries[name].role == "held_out" for name in members)
    return overlap_group_split(members[0], held_out=held_out)


def _looked_up(
    entry: CatalogEntry, place: Path | None, ontology: Ontology
) -> tuple[CatalogEntry, Discovery | None]:
    """The cases at a place, and the entry with what only the files there say of its labels."""
    if place is None:
        return entry, None
    return completed(entry, place, ontology), discover(entry, place)


def absent_sentence(entry: CatalogEntry, root: Path) -> str:
    """What to do about a dataset that is not on disk."""
    folders = list(dict.fromkeys([*entry.root, entry.id]))
    places = " or ".join(str(root / name) for name in folders[:2])
    access = "" if entry.access == "open" else f" ({entry.access} needed)"
    if not entry.homepage.startswith("http"):  # one's own
        return (
            f"{entry.id} is not on disk: expected its files in {places}, or in {root} itself; let "
            "--root name their folder, or mend the patterns of the entry"
        )
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
