"""The catalogue says what the facts say: examples, structures, splits, roles, overlaps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sammed_data.catalog import CatalogEntry, load_catalogs, read_yaml
from sammed_data.discover import discover
from sammed_data.ontology import load_ontology
from sammed_data.patterns import compile_pattern, glob_regex
from tests.fakes import build_fake

HERE = Path(__file__).parent
ENTRIES = load_catalogs(None)
ONTOLOGY = load_ontology(None)
FACTS = read_yaml(HERE / "facts.yaml")
KEYS = yaml.safe_load((HERE / "patient_keys.yaml").read_text())
PARTS = {  # one source of the facts, several entries
    "amos22_ct": "amos22", "amos22_mr": "amos22", "autopet_fdg_ct": "autopet_fdg",
    "autopet_fdg_pet": "autopet_fdg", "hecktor22_ct": "hecktor22", "hecktor22_pet": "hecktor22",
}  # fmt: skip
#: Why an entry has another number of structures than its facts.
OTHER_STRUCTURES: dict[str, int] = {
    "endovis17_ris": 3,  # the pixels tell the parts of an instrument apart
}
#: The facts' example shows the other part of these.
OTHER_EXAMPLE = ("autopet_fdg_ct", "hecktor22_pet")
KNOWN = {i: FACTS[PARTS.get(i, i)] for i in ENTRIES if PARTS.get(i, i) in FACTS}


def _structures(entry: CatalogEntry) -> set[str]:
    return {ONTOLOGY.resolve(name).name for name in entry.labels.values()}


def test_the_catalogue_covers_the_facts():
    covered = {PARTS.get(i, i) for i in ENTRIES} & set(FACTS)
    assert len(ENTRIES) >= 170
    assert len(covered) >= 150
    nine = {i for i, f in FACTS.items() if f.get("held_out")}
    assert len(nine) == 9
    assert len(nine - covered) <= 1


@pytest.mark.parametrize("entry_id", sorted(KNOWN))
def test_the_example_of_the_facts_is_an_image(entry_id):
    entry, image = ENTRIES[entry_id], KNOWN[entry_id]["image"]
    patterns = [compile_pattern(p.pattern) for p in entry.layout.images]
    places = [image, *(p.as_posix() for p in Path(image).parents)]  # a DICOM slice: its folder
    matching = [p for p in places for r in patterns if r.fields_of(p) is not None]
    assert matching or entry_id in OTHER_EXAMPLE


@pytest.mark.parametrize("entry_id", sorted(KNOWN))
def test_the_structures_are_those_of_the_facts(entry_id):
    entry, facts = ENTRIES[entry_id], KNOWN[entry_id]
    number = OTHER_STRUCTURES.get(entry_id, facts["structures"])
    assert len(_structures(entry)) == number, _structures(entry)
    for raw, structure in facts["labels"].items():
        if raw in entry.labels:
            assert ONTOLOGY.resolve(entry.labels[raw]).name == structure
        assert structure in _structures(entry) or entry_id in OTHER_STRUCTURES


@pytest.mark.parametrize("entry_id", sorted(KNOWN))
def test_role_and_use_are_those_of_the_facts(entry_id):
    entry, facts = ENTRIES[entry_id], KNOWN[entry_id]
    assert (entry.role == "held_out") == bool(facts.get("held_out"))
    assert ("sa_med2d_20m" in entry.used_by) == bool(facts.get("sa_med2d_20m"))
    assert ("miccai2023_generalisation" in entry.used_by) == bool(facts.get("held_out"))


@pytest.mark.parametrize("entry_id", sorted(i for i in KNOWN if ENTRIES[i].splits))
def test_official_splits_are_those_of_the_facts(entry_id, tmp_path):
    entry = ENTRIES[entry_id]
    paths: dict[str, str] = KNOWN[entry_id].get("splits", {})
    assert paths, "write one image path of each official split into facts.yaml"
    globs = {name: glob_regex(g) for name, g in entry.splits.items()}
    for name, path in paths.items():
        named = [s for s, regex in globs.items() if regex is not None and regex.fullmatch(path)]
        assert named == [name], path
    assert set(paths) == set(entry.splits)
    truth = build_fake(entry, tmp_path, n_cases=1, key=KEYS[entry_id])
    cases = discover(entry, truth.root).cases
    example = {p: s for s, p in paths.items()}.get(entry.layout.example["image"])
    assert {c.official_split for c in cases} == {example or next(iter(entry.splits))}


def _component(start: str, links: dict[str, set[str]]) -> Iterator[str]:
    todo, seen = [start], {start}
    while todo:
        name = todo.pop()
        yield name
        todo += (new := links.get(name, set()) - seen)
        seen |= new


def test_overlaps_are_the_groups_of_the_facts():
    """Entries that share images hang together, and with nothing else of the facts."""
    links: dict[str, set[str]] = {}
    for entry_id in KNOWN:
        for other in ENTRIES[entry_id].overlaps:
            one, two = PARTS.get(entry_id, entry_id), PARTS.get(other, other)
            if one != two and two in FACTS:
                links.setdefault(one, set()).add(two)
                links.setdefault(two, set()).add(one)
    for entry_id, facts in KNOWN.items():
        found = set(_component(PARTS.get(entry_id, entry_id), links))
        group = facts.get("group")
        members = {i for i, f in FACTS.items() if group is not None and f.get("group") == group}
        present = members & {PARTS.get(i, i) for i in ENTRIES}
        assert present <= found, (entry_id, present - found)
        assert found <= (members or {PARTS.get(entry_id, entry_id)}), (entry_id, found - members)


def test_parts_of_one_source_name_each_other():
    for one, source in PARTS.items():
        others = {i for i, s in PARTS.items() if s == source and i != one}
        if source != "amos22":  # its CT and MR are different patients
            assert others <= set(ENTRIES[one].overlaps)
