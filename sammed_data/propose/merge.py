"""Groups that belong together: sequences, classes or observers of the same images; their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sammed_data.propose.carriers import Doubt, Group, Item, worst
from sammed_data.propose.names import observer


def merge_folders(
    groups: Sequence[Group], known: Callable[[str], bool], binary: Mapping[str, bool]
) -> list[Group]:
    """Join groups of the same image pattern whose one label pattern differs in one folder.

    Args:
        groups: of one label pattern each, or left alone.
        known: whether a name is a structure of the ontology.
        binary: label path -> whether it holds one value beside background.
    """
    out: list[Group] = []
    taken: set[int] = set()
    for number, group in enumerate(groups):
        if number in taken:
            continue
        alike = [
            k for k in range(number + 1, len(groups))
            if k not in taken and _differing(group, groups[k]) is not None
        ]  # fmt: skip
        places = {_differing(group, groups[k]) for k in alike}
        joined = None
        if len(places) == 1:
            members = [group, *(groups[k] for k in alike)]
            joined = _joined(members, next(iter(places)) or 0, known, binary)
        if joined is None:
            out.append(group)
        else:
            taken |= set(alike)
            out.append(joined)
    return out


def _differing(a: Group, b: Group) -> int | None:
    """The one folder in which two groups' label patterns differ, None if there is no such one."""
    if a.image_patterns != b.image_patterns or len(a.label_patterns) + len(b.label_patterns) != 2:
        return None
    left, right = (g.label_patterns[0][0].split("/") for g in (a, b))
    if len(left) != len(right):
        return None
    places = [k for k, (x, y) in enumerate(zip(left, right, strict=True)) if x != y]
    if len(places) != 1 or places[0] == len(left) - 1 or "{" in left[places[0]] + right[places[0]]:
        return None
    return places[0]


def _joined(
    members: Sequence[Group], place: int, known: Callable[[str], bool], binary: Mapping[str, bool]
) -> Group | None:
    parts = [g.label_patterns[0][0].split("/") for g in members]
    names = [p[place] for p in parts]
    pairs = tuple(p for g in members for p in g.pairs)
    if any(binary.get(p.labels[0].path) is False for p in pairs):
        return None
    numbers = [_observer(n) for n in names]
    said = f"{members[0].evidence}; masks of one image in {len(names)} folders, taken as "
    doubt = worst(*(g.doubt for g in members))
    if None not in numbers and len(set(numbers)) == len(numbers):
        patterns = sorted(
            (g.label_patterns[0][0], int(n or 1)) for g, n in zip(members, numbers, strict=True)
        )
        return replace(
            members[0], pairs=pairs, label_patterns=tuple(patterns),
            doubt=worst(doubt, "medium"), evidence=said + "observers",
        )  # fmt: skip
    sure: Doubt = "low" if all(known(n) for n in names) else "medium"
    pattern = "/".join([*parts[0][:place], "{structure}", *parts[0][place + 1 :]])
    return replace(
        members[0],
        pairs=pairs,
        label_patterns=((pattern, 1),),
        doubt=worst(doubt, sure),
        evidence=said + "classes",
        structures=tuple(sorted(names)),
    )


def _observer(name: str) -> int | None:
    """Number of an observer: said, or the only number in a name of the mask kind."""
    said = observer(name)
    if said is not None:
        return said
    words = re.fullmatch(r"(?:seg|mask|manual|annot|label|gt)\D*(\d)", name, re.IGNORECASE)
    return int(words[1]) if words else None


def merge_sequences(groups: Sequence[Group]) -> list[Group]:
    """Sequences of one case that share their labels become image patterns of one group."""
    out: dict[object, Group] = {}
    for group in groups:
        labels = frozenset(p.labels[0].path for p in group.pairs)
        key = (labels, group.label_patterns)
        old = out.get(key)
        if old is None or not group.image_patterns[0][1]:
            out[key if old is None else (key, len(out))] = group
            continue
        out[key] = replace(
            old,
            pairs=(*old.pairs, *group.pairs),
            image_patterns=(*old.image_patterns, *group.image_patterns),
            doubt=worst(old.doubt, group.doubt),
        )
    return list(out.values())


def with_names(groups: Sequence[Group]) -> list[Group]:
    """Short distinct names, from what tells the groups' patterns apart."""
    if len(groups) <= 1:
        return list(groups)
    bags = [_bag(g) for g in groups]
    common = set.intersection(*map(set, bags))
    out: list[Group] = []
    taken: set[str] = set()
    for group, bag in zip(groups, bags, strict=True):
        words = list(dict.fromkeys(w for w in bag if w not in common))[:4]
        name = base = "_".join(words) or "set"
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        out.append(replace(group, name=name))
    return out


def _bag(group: Group) -> list[str]:
    texts = [p for p, _ in group.image_patterns[:1]] + [p for p, _ in group.label_patterns[:1]]
    text = " ".join(re.sub(r"\{\w+\}|\*", " ", t) for t in texts)
    found = [w.lower() for w in re.findall(r"[A-Za-z0-9]+", text)]
    return [*found, *(i.kind for i in _kinds(group))]


def _kinds(group: Group) -> list[Item]:
    return [group.pairs[0].labels[0]]
