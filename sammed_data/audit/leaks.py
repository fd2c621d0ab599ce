"""Leaks that need no pixels: patients on two sides, and datasets that share patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sammed_data.audit.findings import OverlapGroup, Pair, TwoSides
from sammed_data.audit.scan import CaseKey


def two_sides(cases: Iterable[CaseKey]) -> tuple[TwoSides, ...]:
    """Patients of one dataset whose images lie in several splits."""
    sides: dict[tuple[str, str], set[str]] = {}
    for case in cases:
        sides.setdefault((case.dataset, case.patient_id), set()).add(case.split)
    return tuple(
        TwoSides(dataset=dataset, patient_id=patient, splits=tuple(sorted(splits)))
        for (dataset, patient), splits in sorted(sides.items())
        if len(splits) > 1
    )


def overlap_groups(
    manifest: Mapping[str, Any], cases: Sequence[CaseKey], pairs: Iterable[Pair]
) -> tuple[OverlapGroup, ...]:
    """Connected groups of the datasets present, by the ``overlaps`` of their entries."""
    present = {case.dataset for case in cases}
    group = {name: name for name in present}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    bridges: dict[str, str] = {}  # a dataset that is absent still joins those that name it
    for dataset in manifest["datasets"]:
        if dataset["id"] not in present:
            continue
        for other in dataset["overlaps"]:
            near = other if other in present else bridges.setdefault(other, dataset["id"])
            group[root(near)] = root(dataset["id"])
    members: dict[str, list[str]] = {}
    for name in sorted(present):
        members.setdefault(root(name), []).append(name)
    splits: dict[str, set[str]] = {}
    for case in cases:
        splits.setdefault(case.dataset, set()).add(case.split)
    listed = list(pairs)
    return tuple(
        OverlapGroup(
            datasets=tuple(names),
            trained=tuple(n for n in names if "train" in splits[n]),
            tested=tuple(n for n in names if splits[n] & {"test", "held_out"}),
            found=sum(
                p.a.dataset != p.b.dataset and {p.a.dataset, p.b.dataset} <= set(names)
                for p in listed
            ),
        )
        for names in sorted(members.values())
        if len(names) > 1
    )
