"""`sammed data list`: what the catalogue knows, filtered; every filter names its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sammed_data.catalog import OWN_ENTRIES, CatalogEntry, load_catalogs
from sammed_data.discover import find_root
from sammed_data.ontology import Ontology, Structure, load_ontology
from sammed_data.presence import possible
from sammed_data.types import CatalogError, ReadError, UsageError, nearest

EVIDENCE = ("written", "tree-seen", "built")


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which entries to keep; values of one filter are alternatives, filters add up.

    ``organ`` takes an organ of the ontology or any structure or synonym (its organ or itself).
    """

    names: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    organ: tuple[str, ...] = ()
    license: tuple[str, ...] = ()
    access: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    role: tuple[str, ...] = ()
    present: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An entry with what only a look at disk and ontology can say; ``problem``: a look failed."""

    entry: CatalogEntry
    organs: tuple[str, ...]
    place: Path | None
    problem: str = ""


def list_entries(source: Path | None, root: Path, filters: Filters) -> list[Listed]:
    """Entries that pass the filters, by id.

    Raises:
        UsageError: values that no entry can have, all named together with their neighbours.
    """
    entries, ontology = load_catalogs(source), load_ontology(source)
    anatomy = _Anatomy(ontology)
    organs = {name: anatomy.organs(entry) for name, entry in entries.items()}
    structures = {name: anatomy.structures(entry) for name, entry in entries.items()}
    wanted = _checked(filters, entries, structures, ontology, own=source is not None)
    passed = {
        name: entry
        for name, entry in sorted(entries.items())
        if _passes(entry, filters) and (not wanted or wanted & {*organs[name], *structures[name]})
    }
    here = possible(passed, root) if root.is_dir() else frozenset()
    kept = []
    for name, entry in passed.items():
        place, problem = _look(entry, root) if name in here else (None, "")
        if filters.present is None or filters.present == (place is not None):
            kept.append(Listed(entry=entry, organs=organs[name], place=place, problem=problem))
    return kept


def _look(entry: CatalogEntry, root: Path) -> tuple[Path | None, str]:
    """One damaged archive must not hide the other datasets."""
    try:
        return find_root(entry, root), ""
    except ReadError as err:
        return None, str(err)


def evidence_counts(rows: Sequence[Listed]) -> dict[str, int]:
    """How far the entries are proven: written, tree-seen, built."""
    return {level: sum(r.entry.evidence == level for r in rows) for level in EVIDENCE}


def _passes(entry: CatalogEntry, filters: Filters) -> bool:
    fields = {
        "names": entry.id, "modality": entry.modality, "access": entry.access,
        "evidence": entry.evidence, "role": entry.role,
    }  # fmt: skip
    if any(
        getattr(filters, name) and value.lower() not in [v.lower() for v in getattr(filters, name)]
        for name, value in fields.items()
    ):
        return False
    # "CC-BY-4.0" also finds "CC-BY-4.0 (unconfirmed)", but never "CC-BY-NC-4.0".
    licence = entry.license.lower()
    return not filters.license or any(_is_licence(licence, w.lower()) for w in filters.license)


def _is_licence(licence: str, wanted: str) -> bool:
    return licence == wanted or licence.startswith(wanted + " ")


class _Anatomy:
    """Labels of entries in terms of the ontology; each name is resolved once."""

    def __init__(self, ontology: Ontology) -> None:
        self.ontology = ontology
        self._seen: dict[str, tuple[Structure, ...]] = {}

    def chain(self, label: str) -> tuple[Structure, ...]:
        """The structure of a label and the coarser ones that contain it."""
        if label not in self._seen:
            try:
                found = (self.ontology.resolve(label), *self.ontology.ancestors(label))
            except CatalogError:
                found = ()  # `check` and `build` say so; a list still lists
            self._seen[label] = found
        return self._seen[label]

    def structures(self, entry: CatalogEntry) -> frozenset[str]:
        """Names of all structures of an entry, coarser ones included."""
        labels = {*entry.labels.values(), *entry.unions}
        return frozenset(s.name for label in labels for s in self.chain(label))

    def organs(self, entry: CatalogEntry) -> tuple[str, ...]:
        """Organs of the ontology that an entry shows a part of."""
        labels = {*entry.labels.values(), *entry.unions}
        return tuple(sorted({s.organ for label in labels for s in self.chain(label) if s.organ}))


def _checked(
    filters: Filters,
    entries: Mapping[str, CatalogEntry],
    structures: Mapping[str, frozenset[str]],
    ontology: Ontology,
    *,
    own: bool,
) -> frozenset[str]:
    """The organs and structures that are asked for; all unknown values together otherwise."""
    fields = CatalogEntry.model_fields
    known = {
        "names": list(entries),
        "modality": list(get_args(fields["modality"].annotation)),
        "access": list(get_args(fields["access"].annotation)),
        "evidence": list(EVIDENCE),
        "role": list(get_args(fields["role"].annotation)),
        "license": sorted({e.license for e in entries.values()}),
    }
    unknown = []
    for name, values in known.items():
        low = [v.lower() for v in values]
        for value in getattr(filters, name):
            fits = any(_is_licence(v, value.lower()) for v in low)
            if not (fits if name == "license" else value.lower() in low):
                option = "NAME" if name == "names" else f"--{name}"
                unknown.append(f"{option} {value!r}: {nearest(value, values)}")
    wanted, said = _wanted(filters.organ, structures, ontology)
    unknown += said
    if unknown:
        where = "" if own else f"; {OWN_ENTRIES}"
        raise UsageError(f"expected values of the catalogue, found {'; '.join(unknown)}{where}")
    return wanted


def _wanted(
    asked: Sequence[str],
    structures: Mapping[str, frozenset[str]],
    ontology: Ontology,
) -> tuple[frozenset[str], list[str]]:
    every_organ = {s.organ for s in ontology.structures.values() if s.organ}
    wanted: set[str] = set()
    said: list[str] = []
    for value in asked:
        if value.lower() in every_organ:
            wanted.add(value.lower())
            continue
        try:
            wanted.add(ontology.resolve(value).name)
        except CatalogError as err:
            if "synonym" in str(err):
                said.append(f"--organ {err}")
                continue
            every = every_organ.union(*structures.values())
            said.append(f"--organ {value!r}: {nearest(value, every)}")
    return frozenset(wanted), said
