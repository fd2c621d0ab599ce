"""Counts of a corpus as tables and sentences: by dataset, modality, organ and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sammed_data.counts import NO_ORGAN, Amount, Counts
from sammed_data.splits import MIN_PATIENTS


@dataclass(frozen=True, kw_only=True)
class Table:
    """A small table of text and whole numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int, ...], ...]


def count_tables(counts: Counts, *, lesions_in_both: bool = False) -> list[Table]:
    """Images, masks, patients and rejected masks by dataset, modality, organ, group and split."""
    rejected = _rejected(counts)
    found = {
        "dataset": counts.by_row("dataset"),
        "modality": counts.by_row("modality"),
        "organ": counts.by_organ(),
        "group": counts.by_group(lesions_in_both=lesions_in_both),
        "split": counts.by_row("split"),
    }
    return [_table(kind, amounts, rejected.get(kind)) for kind, amounts in found.items()]


def _rejected(counts: Counts) -> dict[str, Counter[str]]:
    """Masks that were not kept, by dataset, modality and organ."""
    datasets = {d["id"]: d for d in counts.corpus.manifest["datasets"]}
    found = {kind: Counter[str]() for kind in ("dataset", "modality", "organ")}
    for said in counts.rejected_masks():
        dataset = datasets.get(said["dataset"], {})
        found["dataset"][said["dataset"]] += said["count"]
        found["modality"][dataset.get("modality", "?")] += said["count"]
        organ = dataset.get("organs", {}).get(said["label"]) or NO_ORGAN
        found["organ"][organ] += said["count"]
    return found


def _table(kind: str, amounts: Mapping[str, Amount], rejected: Counter[str] | None) -> Table:
    nothing = Amount(images=0, masks=0, in_view=0, patients=0)
    names = sorted({*amounts, *(rejected or ())})
    more = () if rejected is None else ("rejected masks",)
    return Table(
        title=f"By {kind}",
        columns=(kind, "images", "masks", "in view", "patients", *more),
        rows=tuple(
            (name, a.images, a.masks, a.in_view, a.patients,
             *(() if rejected is None else (rejected[name],)))
            for name in names
            for a in (amounts.get(name, nothing),)
        ),
    )  # fmt: skip


def counts_lines(manifest: Mapping[str, Any]) -> list[str]:
    """The sums of a build, each as `all = kept + rejected by rule`, and what to be wary of."""
    counts, datasets = manifest["counts"], manifest["datasets"]
    masks, images, cases = counts["masks"], counts["images"], counts["cases"]
    kept_cases = cases["found"] - sum(cases["rejected"].values())
    lines = [
        _sum_line("masks", "candidates", masks["candidates"], masks["kept"], masks["rejected"]),
        _sum_line("images", "slices", images["found"], images["kept"], images["rejected"]),
        _sum_line("cases", "found", cases["found"], kept_cases, cases["rejected"]),
    ]
    unknown = sorted(d["id"] for d in datasets if d.get("patient_unit") != "patient")
    if unknown:
        lines.append(f"patients are files or studies, not persons, in: {', '.join(unknown)}")
    untested = sorted(d["id"] for d in datasets if _only_trains(d["splits"]))
    if untested:
        lines.append(
            f"no patient to test on in: {', '.join(untested)} (under {MIN_PATIENTS} patients all "
            "train, unless the entry names some under `splits: {test: [...]}`)"
        )
    leaks = _overlapping_splits(datasets)
    if leaks:
        lines.append(f"the same patients may be in training and in test: {', '.join(leaks)}")
    return lines


def _only_trains(splits: Mapping[str, int]) -> bool:
    return splits["train"] > 0 and not splits["test"] + splits["validation"] + splits["held_out"]


def _overlapping_splits(datasets: Sequence[Mapping[str, Any]]) -> list[str]:
    """Overlapping sources of which one has training images and the other images to test on."""
    trained = {d["id"]: d["splits"]["train"] > 0 for d in datasets}
    tested = {d["id"]: d["splits"]["test"] + d["splits"]["held_out"] > 0 for d in datasets}
    pairs = {(d["id"], o) for d in datasets for o in d["overlaps"] if o in trained}
    pairs |= {(b, a) for a, b in pairs}
    return sorted(f"{a} (train) ~ {b}" for a, b in pairs if trained[a] and tested[b])


def _sum_line(what: str, all_: str, total: int, kept: int, rejected: Mapping[str, int]) -> str:
    rules = ", ".join(f"{n:,} {rule}" for rule, n in sorted(rejected.items()))
    return f"{what}: {total:,} {all_} = {kept:,} kept + {sum(rejected.values()):,} rejected" + (
        f" ({rules})" if rules else ""
    )
