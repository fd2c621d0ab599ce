"""Canonical structures: what a label of a catalogue entry means, and what contains it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from sammed_data.catalog import read_yaml
from sammed_data.lineage import bundled_catalogs
from sammed_data.types import CatalogError, nearest

Side = Literal["left", "right"]
_FILE = "_ontology.yaml"
_FIELDS = ("organ", "group", "kind", "parent", "snomed")
_OPTIONAL = ("synonyms", "snomed_category", "snomed_region", "match", "levels")
_SIDED = re.compile(r"(?P<base>.+)_(?P<side>left|right)")
_SIDE_FIRST = re.compile(r"(?P<side>left|right)_(?P<base>.+)")  # as people write: Left kidney
KINDS = (
    "organ", "bone", "vessel", "muscle", "tissue", "tooth", "lesion", "instrument", "device",
    "cell", "ignore",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Structure:
    """One thing a mask can show.

    Attributes:
        name: canonical name with its side (``kidney_left``); the key of aggregated results.
        organ: one of the 31 organs of the SAM-Med2D figure, or None.
        group: head_neck, thorax, abdomen, pelvis or other.
        kind: one of ``KINDS``; a lesion is a kind, not a place.
        parent: the coarser structure (``kidney``), or None.
        side: None for unpaired structures and for both sides together.
        snomed: (code, meaning) in scheme SCT, or None.
        synonyms: other spellings.
    """

    name: str
    organ: str | None
    group: str
    kind: str
    parent: str | None = None
    side: Side | None = None
    snomed: tuple[str, str] | None = None
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Family:
    """Many structures under one rule: the whole name matches; ``levels`` maps levels to SNOMED."""

    match: re.Pattern[str]
    of: Structure
    levels: Mapping[str, str] = field(default_factory=dict)

    def member(self, name: str) -> Structure | None:
        """The structure of that name, or None if the name is not of this family."""
        found = self.match.fullmatch(name)
        if found is None:
            return None
        groups = found.groupdict()
        code = self.levels.get(groups.get("level") or "")
        meaning = name.replace("_", " ").capitalize()
        side: Side | None = "left" if groups.get("side") == "left" else None
        side = "right" if groups.get("side") == "right" else side
        return Structure(
            name=name,
            organ=self.of.organ,
            group=self.of.group,
            kind=self.of.kind,
            parent=self.of.parent,
            side=side,
            snomed=(code, meaning) if code else self.of.snomed,
        )


@dataclass(frozen=True, kw_only=True)
class Ontology:
    """All structures and families, and the spellings that lead to them."""

    structures: Mapping[str, Structure]
    families: tuple[Family, ...]
    spellings: Mapping[str, tuple[str, ...]]

    def resolve(self, name: str) -> Structure:
        """Return the structure a name, a sided name, a family member or a synonym stands for.

        Raises:
            CatalogError: unknown (names its neighbours), or a synonym of several structures
                (lists all of them).
        """
        exact = self._named(name)
        if exact is not None:
            return exact
        spelt = self._spelt(name)
        if spelt is None:
            hint = nearest(name, {*self.structures, *self.spellings})
            raise CatalogError(f"no structure is called {name!r}; {hint}")
        return spelt

    def ancestors(self, name: str) -> Iterator[Structure]:
        """The coarser structures of a name, nearest first."""
        parent = self.resolve(name).parent
        while parent is not None:
            structure = self.resolve(parent)
            yield structure
            parent = structure.parent

    def _named(self, name: str) -> Structure | None:
        if name in self.structures:
            return self.structures[name]
        for family in self.families:
            member = family.member(name)
            if member is not None:
                return member
        sided = _SIDED.fullmatch(name)
        if sided is None or sided["base"] not in self.structures:
            return None
        return _with_side(
            self.structures[sided["base"]], "left" if sided["side"] == "left" else "right"
        )

    def _spelt(self, name: str) -> Structure | None:
        spelling = normal_spelling(name)
        targets = self.spellings.get(spelling, ())
        if len(targets) > 1:
            raise CatalogError(
                f"{name!r} is a synonym of {' and '.join(repr(t) for t in targets)}; "
                "use one of these names"
            )
        if targets:
            return self._named(targets[0])
        sided = _SIDED.fullmatch(spelling) or _SIDE_FIRST.fullmatch(spelling)
        if sided is None:
            return None
        base = self._spelt(sided["base"])
        if base is None or base.side is not None:
            return None
        return _with_side(base, "left" if sided["side"] == "left" else "right")


def normal_spelling(name: str) -> str:
    """Lower case with one underscore for spaces, dashes and slashes."""
    return re.sub(r"[\s_\-/]+", "_", name.strip()).strip("_").lower()


def load_ontology(folder: Path | None) -> Ontology:
    """Read ``_ontology.yaml`` beside the catalogues, else the one that travels with the package.

    Raises:
        CatalogError: the file is not what docs/catalogue.md describes; the place is named.
    """
    path = (folder or bundled_catalogs()) / _FILE
    if not path.is_file():
        path = bundled_catalogs() / _FILE
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int) -> Ontology:
    """Kept: many builds of one process, as in tests and in the app, share the file."""
    raw = read_yaml(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("structures"), dict):
        raise CatalogError(f"{path}: expected a mapping with the key 'structures'")
    structures = {n: _structure(path, n, row) for n, row in raw["structures"].items()}
    families = tuple(_family(path, n, row) for n, row in (raw.get("families") or {}).items())
    for structure in (*structures.values(), *(f.of for f in families)):
        if structure.parent is not None and structure.parent not in structures:
            hint = nearest(structure.parent, structures)
            raise CatalogError(f"{path}: {structure.name}: no parent {structure.parent!r}; {hint}")
    return Ontology(structures=structures, families=families, spellings=_spellings(structures))


def _spellings(structures: Mapping[str, Structure]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for structure in structures.values():
        for synonym in structure.synonyms:
            found.setdefault(normal_spelling(synonym), set()).add(structure.name)
    for name in structures:  # a canonical name is never ambiguous
        found[normal_spelling(name)] = {name}
    return {spelling: tuple(sorted(names)) for spelling, names in found.items()}


def _structure(path: Path, name: str, row: object) -> Structure:
    if not isinstance(row, dict):
        raise CatalogError(f"{path}: {name}: expected a mapping, found {row!r}")
    for key in row:
        if key not in _FIELDS + _OPTIONAL:
            raise CatalogError(
                f"{path}: {name}: unknown key {key!r}; {nearest(str(key), _FIELDS + _OPTIONAL)}"
            )
    if row.get("kind") not in KINDS or not row.get("group"):
        raise CatalogError(f"{path}: {name}: needs 'group' and a 'kind' out of {', '.join(KINDS)}")
    snomed: Any = row.get("snomed")
    return Structure(
        name=name,
        organ=row.get("organ"),
        group=str(row["group"]),
        kind=str(row["kind"]),
        parent=row.get("parent"),
        snomed=(str(snomed[0]), str(snomed[1])) if snomed else None,
        synonyms=tuple(str(s) for s in row.get("synonyms") or ()),
    )


def _family(path: Path, name: str, row: object) -> Family:
    if not isinstance(row, dict):
        raise CatalogError(f"{path}: family {name}: expected a mapping, found {row!r}")
    of = _structure(path, name, row)
    try:
        match = re.compile(str(row["match"]))
    except (KeyError, re.error) as err:
        raise CatalogError(f"{path}: family {name}: 'match' must be a regular expression") from err
    levels = {str(k): str(v) for k, v in (row.get("levels") or {}).items()}
    return Family(match=match, of=of, levels=levels)


def _with_side(base: Structure, side: Side) -> Structure:
    return Structure(
        name=f"{base.name}_{side}",
        organ=base.organ,
        group=base.group,
        kind=base.kind,
        parent=base.name,
        side=side,
        snomed=base.snomed,
    )
