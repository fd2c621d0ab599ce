"""Which split a patient belongs to: by hash, or by the source's own split; nothing is random."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from sammed_data.catalog import CatalogEntry
from sammed_data.lineage import joined
from sammed_data.privacy import Pseudonyms
from sammed_data.sources import relative
from sammed_data.types import Case

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
MIN_PATIENTS = 10
_RANK = {"test": 0, "validation": 1, "train": 2}


def fraction(dataset: str, patient_key: str) -> float:
    """SHA-256 of dataset and patient key as a number in [0, 1)."""
    digest = hashlib.sha256(f"{dataset}\0{patient_key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hash_split(dataset: str, patient_key: str) -> str:
    """Test 20 %, validation 10 %, train 70 %."""
    value = fraction(dataset, patient_key)
    if value < TEST_SHARE:
        return "test"
    return "validation" if value < TEST_SHARE + VALIDATION_SHARE else "train"


def group_key(case: Case) -> str:
    """The patient key, or what stands for one: cases that share a label file stay together."""
    if case.patient_key is not None:
        return case.patient_key
    paths = [label.path for label in case.labels] or [case.image_path]
    return relative(min(paths), case.root)


def cluster_unit(entry: CatalogEntry, case: Case) -> str:
    """What ``patient_id`` counts: patient, study, image, or unknown without a patient rule."""
    if entry.patient is None or case.patient_key is None:
        return "unknown"
    return entry.patient.unit


def overlap_group_split(group: str, *, held_out: bool) -> str:
    """The one split of all datasets that share patients.

    ``group`` is the name that :func:`overlap_groups` gives; ``held_out`` whether any of them is
    held out, which then takes the whole group with it.
    """
    return "held_out" if held_out else hash_split("overlap-group", group)


def overlap_groups(entries: Mapping[str, CatalogEntry]) -> dict[str, tuple[str, ...]]:
    """Dataset -> all datasets of the catalogue that share patients with it, however indirectly.

    The whole catalogue counts, not what is on disk: a source that is added moves nothing.
    """
    return joined({name: entry.overlaps for name, entry in entries.items()})


def assign_splits(
    entry: CatalogEntry, cases: Sequence[Case], names: Pseudonyms | None = None
) -> dict[str, str]:
    """case_id -> split; whole groups only.

    With keyed ``names`` (restricted data) the hash is over the pseudonym, so that nobody without
    the key can compute which split a patient would be in.

    A labelled official test split wins; without one, or for cases it does not name, the hash
    decides; under ten groups a split would be noise, so all go to the entry's role.
    """
    if entry.role == "held_out":
        return {case.case_id: "held_out" for case in cases}
    groups: dict[str, list[tuple[str, str | None]]] = {}
    for case in cases:  # once: a list of millions makes each case anew
        groups.setdefault(group_key(case), []).append((case.case_id, case.official_split))
    official = {s for members in groups.values() for _, s in members} & {"test", "validation"}
    splits: dict[str, str] = {}
    for key, members in groups.items():
        stated = [s for _, s in members if s]
        if official and stated:
            split = min(stated, key=lambda s: _RANK[s])
        elif len(groups) < MIN_PATIENTS:
            split = "train"
        else:
            keyed = names is not None and names.secret is not None
            split = hash_split(entry.id, names.patient(key) if names and keyed else key)
        splits |= {case_id: split for case_id, _ in members}
    return splits
