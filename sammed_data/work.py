"""One shard, one task: read its cases, slice, curate, write; nothing is shared between shards."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from socket import gethostname
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data import intensity
from sammed_data.audit.fingerprints import CaseMark, mark_case
from sammed_data.curate import CASE_RULES, RULES, broken_rule, burned_in, two_valued
from sammed_data.encodings import pair_on_grid, read_labels
from sammed_data.engine import fail_point, stop_if_asked
from sammed_data.masks import SPLIT_KINDS, Part, Plan, PlaneMasks, plane_masks
from sammed_data.privacy import Pseudonyms
from sammed_data.readers.registry import read_image
from sammed_data.rows import ReadCase, RowMaker, ShardTask
from sammed_data.runs import batches
from sammed_data.shards import ShardWriter, write_rejections
from sammed_data.slices import Cutter, Slice, slices_with_labels
from sammed_data.sources import case_paths, digest, relative, source_hashes
from sammed_data.splits import group_key
from sammed_data.stages import watch
from sammed_data.stores import land
from sammed_data.types import (
    Case,
    GeometryError,
    LabelVolume,
    ReadError,
    Rejection,
)
from sammed_data.unpack import unpacked

# Encodings whose values are objects: a nucleus in two pieces is one nucleus.
_WHOLE_ENCODINGS = ("instance_ids", "file_per_instance", "released_masks")


@dataclass
class Counts:
    """What became of everything a shard looked at."""

    cases: int = 0
    slices: int = 0
    candidates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def build_shard(task: ShardTask) -> str:
    """Write shard, rejections and, last, the record that says they are complete.

    Returns:
        The shard's stem.

    Raises:
        InterruptedRun: asked to stop; nothing of this shard stays.
        SammedError: the first quarantined case under ``strict``.
    """
    stem = task.shard.stem
    final = task.staging / f"{stem}.parquet"
    temporary = (task.scratch or task.staging) / f"{stem}.{gethostname()}-{os.getpid()}.tmp"
    writer = ShardWriter(temporary)
    names = Pseudonyms(dataset=task.shard.dataset, secret=task.dataset.secret)
    counts, rejections, hashes = Counts(), [], set[str]()
    try:
        with unpacked(task.shard.cases, task.scratch or task.staging) as cases:
            for case in cases:
                stop_if_asked()
                for item in case_items(case, task, counts):
                    if isinstance(item, Rejection):
                        rejections.append(item)
                    elif isinstance(item, CaseMark):
                        writer.mark(item)
                    else:
                        writer.add(item)
                hashes |= source_hashes(case, names.path)
                fail_point("after_case")
        content = writer.close()
    except Exception:
        writer.abandon()
        temporary.unlink(missing_ok=True)
        raise
    fail_point("before_rename")
    rejections_file = task.staging / f"{stem}.rejections.parquet"
    rejections_file.unlink(missing_ok=True)
    if rejections:
        write_rejections(temporary.with_suffix(".rejections"), rejections)
        land(temporary.with_suffix(".rejections"), rejections_file)
    land(temporary, final)
    for rejection in rejections:
        counts.rejected[f"{rejection.level}:{rejection.rule}"] += rejection.count
    record = {
        "plan_hash": task.shard.plan_hash,
        "dataset": task.shard.dataset,
        "split": task.shard.split,
        "path": task.shard.path,
        "rows": writer.rows,
        "patients": sorted(writer.patients),
        "masks": writer.masks,
        "cases": counts.cases,
        "slices": counts.slices,
        "candidates": counts.candidates,
        "rejected": dict(sorted(counts.rejected.items())),
        "has_rejections": bool(rejections),
        "content_sha256": content,
        "source_hashes": sorted(hashes),
    }
    fail_point("before_record")
    note = temporary.with_suffix(".json.tmp")
    note.write_text(json.dumps(record, sort_keys=True), encoding="utf-8")
    land(note, task.staging / f"{stem}.json")
    return stem


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A shard that was built, and the CPU seconds of its stages."""

    stem: str
    seconds: Mapping[str, float]


def timed_shard(task: ShardTask) -> Timed:
    """:func:`build_shard`, by the clock."""
    with watch() as seconds:
        stem = build_shard(task)
    return Timed(stem=stem, seconds=dict(seconds))


def case_items(
    case: Case, task: ShardTask, counts: Counts
) -> Iterator[dict[str, Any] | Rejection | CaseMark]:
    """Fingerprint, rows and rejections of one case; a defect of the case is its one rejection."""
    counts.cases += 1
    names = Pseudonyms(dataset=case.dataset, secret=task.dataset.secret)
    patient = names.patient(group_key(case))
    if patient in task.dataset.withdrawn:
        why = f"excluded: {task.dataset.withdrawn[patient]}"
        yield _case_rejection(case, names, "excluded", why)
        return
    try:
        ready = read_case(case, task, names)
    except (ReadError, GeometryError) as err:
        rule = "grid" if isinstance(err, GeometryError) else "unreadable"
        if task.strict and names.secret is not None:  # from None: the cause names the file
            raise type(err)(_keyed_sentence(case, names, RULES[rule][1])) from None
        if task.strict:
            raise type(err)(_with_place(case, str(err))) from err
        yield _case_rejection(case, names, rule, _with_place(case, str(err)))
        return
    broken = [("burned-in", burned_in(ready.volume, task.dataset.entry))]
    broken += [("image-is-label", two_valued(ready.volume, task.dataset.entry))]
    broken += [(n, check(ready.volume, ready.labels)) for n, check in CASE_RULES.items()]
    for name, reason in broken:
        if reason is not None:
            where = relative(case.image_path, case.root)
            if task.strict and names.secret is not None:
                raise ReadError(_keyed_sentence(case, names, RULES[name][1]))
            if task.strict:
                raise ReadError(f"{where}: {reason}")
            yield _case_rejection(case, names, name, f"{where}: {reason}")
            return
    yield mark_case(ready.volume.array, names.case(case.case_id), patient)
    yield from _rows(ready, task, names, counts)


def read_case(case: Case, task: ShardTask, names: Pseudonyms) -> ReadCase:
    """Image and labels on one grid, with digests of their files.

    Raises:
        ReadError: a file is damaged or holds unknown values.
        GeometryError: the grids do not agree.
    """
    entry = task.dataset.entry
    if case.damage:
        raise ReadError(case.damage)
    volume = read_image(case)
    labels = read_labels(case, entry, volume)
    volume = pair_on_grid(volume, labels, entry)
    member = "" if case.channel is None else f"channel {case.channel}"
    within = f"in {names.path(case.archive)}" if case.archive else ""
    sources = [
        {
            "role": role,
            "path": names.path(relative(path, case.root)),
            "member": f"{member if role == 'image' else ''} {within}".strip(),
            "sha256": digest(path),
        }
        for role, path in case_paths(case)
    ]
    finite = volume.array
    if np.issubdtype(finite.dtype, np.floating) and not np.isfinite(finite).all():
        finite = np.zeros(1, np.float32)  # the rule `not-finite` speaks of it
    stats = intensity.statistics(finite)
    return ReadCase(case=case, volume=volume, labels=labels, stats=stats, sources=sources)


def _with_place(case: Case, reason: str) -> str:
    """The sentence, led by the image's path where it names none of the case's files."""
    names = [path.name for _, path in case_paths(case)]
    if any(name in reason for name in names):
        return reason
    return f"{relative(case.image_path, case.root)}: {reason}"


def _keyed_sentence(case: Case, names: Pseudonyms, rule_text: str) -> str:
    return (
        f"case {names.case(case.case_id)} of {case.dataset}: {rule_text}; "
        "`sammed data trace` with the key of the site says which file it is"
    )


def _case_rejection(case: Case, names: Pseudonyms, rule: str, reason: str) -> Rejection:
    text = reason.replace(f"{case.root}/", "")
    found = Rejection(
        dataset=case.dataset, case_id=case.case_id, level="case", rule=rule, reason=text
    )
    return names.rejection(found, RULES[rule][1])


def _mask_plan(task: ShardTask) -> Plan:
    entry = task.dataset.entry
    whole = entry.label_encoding.type in _WHOLE_ENCODINGS
    return Plan(
        split={
            raw: meaning.kind in SPLIT_KINDS and not whole and task.options.components
            for raw, meaning in task.dataset.meanings.items()
        },
        unions={
            union: [raw for raw, name in entry.labels.items() if {raw, name} & set(members)]
            for union, members in entry.unions.items()
        },
        min_part_px=task.options.min_part_px,
        components=task.options.components,
    )


def _rows(
    ready: ReadCase, task: ShardTask, names: Pseudonyms, counts: Counts
) -> Iterator[dict[str, Any] | Rejection]:
    entry, options, case = task.dataset.entry, task.options, ready.case
    axes = ("native",) if entry.dims == "2D" else options.axes or tuple(entry.axes)
    plan = _mask_plan(task)
    maker = RowMaker(ready, task, names)
    maps = [layer.array_ZYX for layer in ready.labels.layers]
    kinds = {raw: meaning.kind for raw, meaning in task.dataset.meanings.items()}

    def reject(level: str, rule: str, count: int, where: Slice | None, **more: str) -> Rejection:
        return Rejection(
            dataset=case.dataset,
            case_id=names.case(case.case_id),
            level=level,
            rule=rule,
            reason=more.get("reason", RULES[rule][1]),
            slice_index=None if where is None else where.index,
            axis=more.get("axis") if where is None else where.axis,
            label=more.get("label"),
            count=count,
        )

    for mask in ready.labels.refused:
        counts.candidates += 1
        yield reject("mask", mask.rule, 1, None, reason=mask.reason, label=mask.label)
    for kind, n in sorted(ready.labels.without_area.items()):
        counts.candidates += n
        yield reject("mask", "no-area", n, None, reason=f"{n} x {kind}: encloses no pixel")
    for axis, places, blank in slices_with_labels(ready.volume, ready.labels.layers, axes):
        counts.slices += len(places) + blank
        if blank:
            yield reject("image", "unlabelled", blank, None, axis=axis)
        for where, found in _masks_by_slice(places, maps, ready.labels, plan, options.cutter):
            counts.candidates += found.candidates
            for raw, count in sorted(found.small.items()):
                yield reject("mask", "small-part", count, where, label=raw)
            kept: list[Part] = []
            for part in found.parts:
                broken = broken_rule(part, kinds[part.raw])
                if broken is None:
                    kept.append(part)
                else:
                    yield reject("mask", broken[0], 1, where, label=part.raw, reason=broken[1])
            if kept:
                yield maker.row(where, kept)
            else:
                yield reject("image", "no-mask-left", 1, where)


def _masks_by_slice(
    places: Sequence[Slice],
    maps: Sequence[NDArray[Any]],
    labels: LabelVolume,
    plan: Plan,
    cutter: Cutter,
) -> Iterator[tuple[Slice, PlaneMasks]]:
    n_pixels = sum(m.size // max(1, m.shape[0]) for m in maps)
    for some in batches(places, n_pixels):
        planes = [[cutter.labels(m, where) for m in maps] for where in some]
        whole = all(cutter.is_plane(where) for where in some)
        indices = [where.index for where in some] if whole else None
        yield from zip(some, plane_masks(planes, labels.layers, plan, indices), strict=True)
