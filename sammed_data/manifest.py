"""The manifest and the dataset card: what makes a folder of shards a corpus."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sammed_data.corpus import SCHEMA_VERSION, SPLITS, load_manifest
from sammed_data.plan import BuildOptions, DatasetPlan

if TYPE_CHECKING:
    from sammed_data.publish import Batch

DEFAULT_VIEW = "sam-med2d"
Record = Mapping[str, Any]


def totals(records: Iterable[Record]) -> dict[str, Any]:
    """Sum what the shards counted, and check that nothing vanished.

    Raises:
        RuntimeError: candidates differ from kept + rejected; a bug of ours, not of the data.
    """
    found = Counter[str]()
    rejected = Counter[str]()
    for record in records:
        rejected.update(record["rejected"])
        for name in ("cases", "slices", "candidates", "rows", "masks"):
            found[name] += record[name]
    by_level = {
        level: {k.split(":")[1]: n for k, n in sorted(rejected.items()) if k.startswith(level)}
        for level in ("case", "image", "mask")
    }
    sums = {level: sum(rules.values()) for level, rules in by_level.items()}
    if found["candidates"] != found["masks"] + sums["mask"]:
        raise RuntimeError(f"masks do not add up: {dict(found)} and rejected {by_level['mask']}")
    if found["slices"] != found["rows"] + sums["image"]:
        raise RuntimeError(f"slices do not add up: {dict(found)} and rejected {by_level['image']}")
    return {
        "cases": {"found": found["cases"], "rejected": by_level["case"]},
        "images": {"found": found["slices"], "kept": found["rows"], "rejected": by_level["image"]},
        "masks": {
            "candidates": found["candidates"],
            "kept": found["masks"],
            "rejected": by_level["mask"],
        },
    }


def make_manifest(
    batch: Batch, records: Sequence[Record], row_hashes: Iterable[str]
) -> dict[str, Any]:
    """The manifest: the same for the same rows, wherever and whenever it is made.

    ``records`` are those of the shards and of files that never became cases.
    """
    kept = batch.kept
    datasets = [_dataset(d, records) for d in batch.datasets]
    shards = [
        {k: r[k] for k in ("path", "rows", "masks", "content_sha256")} for r in records if r["rows"]
    ]
    failed = [{"id": k, "reason": v} for k, v in batch.failed.items()]
    return {
        "schema_version": SCHEMA_VERSION,
        "sammed_version": sammed_version(),
        "default_view": DEFAULT_VIEW,
        "options": manifest_options(batch.options),
        "counts": _add([totals(records), *(d["counts"] for d in kept.datasets)]),
        "datasets": sorted([*datasets, *kept.datasets], key=itemgetter("id")),
        "not_built": sorted([*failed, *kept.not_built], key=itemgetter("id")),
        "shards": sorted([*shards, *kept.shards], key=_shard_order),
        "content_sha256": hashlib.sha256("\n".join(sorted(row_hashes)).encode()).hexdigest(),
    }


def manifest_options(options: BuildOptions) -> dict[str, Any]:
    """Those options that decide a row."""
    return {k: v for k, v in asdict(options).items() if k != "shard_mb"}


def _add(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum of what :func:`totals` gives for each."""
    first = counts[0]
    return {
        key: _add([c[key] for c in counts])
        if key in ("cases", "images", "masks")
        else dict(sorted(sum((Counter(c[key]) for c in counts), Counter[str]()).items()))
        if key == "rejected"
        else sum(c[key] for c in counts)
        for key in first
    }


def _shard_order(shard: Mapping[str, Any]) -> tuple[str, int, str]:
    """By dataset, split and number: the order of a plan."""
    _, split, name = shard["path"].split("/")
    dataset, _, number = name.partition("-")
    return dataset, SPLITS.index(split), number.zfill(24)


def unpaired_record(plan: DatasetPlan) -> Record:
    """What a shard record says, for files that never became cases."""
    counts = Counter[str]()
    for rejection in plan.unpaired:
        counts[f"case:{rejection.rule}"] += rejection.count
    return {
        "dataset": plan.entry.id,
        "split": "",
        "patients": [],
        "rejected": dict(sorted(counts.items())),
        "cases": sum(counts.values()),
        "slices": 0,
        "candidates": 0,
        "rows": 0,
        "masks": 0,
    }


def _dataset(plan: DatasetPlan, records: Sequence[Record]) -> dict[str, Any]:
    entry = plan.entry
    own = [r for r in records if r["dataset"] == entry.id]
    return {
        "id": entry.id,
        "name": entry.name,
        "version": entry.version,
        "modality": entry.modality,
        "license": entry.license,
        "license_confidence": entry.license_confidence,
        "license_evidence": entry.license_evidence or entry.homepage,
        "access": entry.access,
        "privacy": entry.privacy,
        "homepage": entry.homepage,
        "citation": entry.citation,
        "role": entry.role,
        "evidence": entry.evidence,
        "overlaps": list(entry.overlaps),
        "used_by": list(entry.used_by),
        "patient_unit": entry.patient.unit if entry.patient else "unknown",
        "patients": len({p for r in own for p in r["patients"]}),
        "splits": {s: sum(r["rows"] for r in own if r["split"] == s) for s in SPLITS},
        "counts": totals(own),
        "organs": {raw: meaning.organ for raw, meaning in plan.meanings.items()},
    }


def sammed_version() -> str:
    """Installed version, or 'source' when run from a tree that is not installed."""
    try:
        return version("sammed")
    except PackageNotFoundError:
        return "source"


def make_card(manifest: Mapping[str, Any]) -> str:
    """README.md of a corpus: front matter that `datasets` reads, then a card for people."""
    present = [s for s in SPLITS if any(x["path"].split("/")[1] == s for x in manifest["shards"])]
    files = "\n".join(
        f"      - split: {split}\n        path:\n"
        + "\n".join(
            f"          - {x['path']}"
            for x in manifest["shards"]
            if x["path"].split("/")[1] == split
        )
        for split in present
    )
    counts = manifest["counts"]
    rows = "\n".join(
        f"| {d['id']} | {d['modality']} | {d['counts']['images']['kept']} "
        f"| {d['counts']['masks']['kept']} | {d['patients']} | {d['role']} | {d['license']} "
        f"({d['license_confidence']} confidence) | {d['access']} |"
        for d in manifest["datasets"]
    )
    return f"""---
pretty_name: sammed corpus
task_categories:
  - image-segmentation
tags:
  - medical
configs:
  - config_name: default
    data_files:
{files}
---

# sammed corpus

{counts["images"]["kept"]} images with {counts["masks"]["kept"]} masks, built by sammed
{manifest["sammed_version"]}. One row is one 2D image with all its masks.

Masks: {counts["masks"]["candidates"]} candidates = {counts["masks"]["kept"]} kept +
{sum(counts["masks"]["rejected"].values())} rejected. Each rejection, with rule and reason, is in
`rejections/`. No mask was left out for its size: the paper's threshold is the view
`{manifest["default_view"]}`, applied when reading.

| dataset | modality | images | masks | patients | role | licence | access |
|---|---|---|---|---|---|---|---|
{rows}

Licences are those of the sources, as far as we know; each row names its own. "patients" counts
distinct `patient_id`; the column `cluster` says what that is: a patient, a study or only an image.

Content hash: `{manifest["content_sha256"]}` (decoded pixels, masks and metadata).
"""


def read_manifest(out: Path) -> dict[str, Any] | None:
    """The manifest of a corpus that is already there, or None."""
    path = out / "manifest.json"
    if not path.is_file():
        return None
    return load_manifest(path)
