"""Pairs -> groups that one entry describes, each with image and label patterns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sammed_data.propose.align import Aligned, Fields, align, bids_pattern, escape
from sammed_data.propose.carriers import Doubt, Group, Item, Pair, worst
from sammed_data.propose.names import (
    LABEL_WORDS,
    channel_number,
    is_bids,
    observer,
    parse,
    sequence_of,
    tokens,
)
from sammed_data.propose.pairing import SURE

_RANDOM = re.compile(r"[0-9a-f]{8,}|\d+|(?=[a-z0-9]*\d)(?=[a-z0-9]*[a-z])[a-z0-9]{12,}", re.I)
_NUMBERED = re.compile(r"(.*?)[_\-\s]*(\d+)")
MAX_GROUPS = 12


@dataclass(frozen=True, kw_only=True)
class _Joined:
    pair: Pair
    at: Aligned

    @property
    def end(self) -> str:
        """What of the label's stem tells it from other labels of its image."""
        return self.at.label_affix[1]


def find_groups(pairs: Sequence[Pair], known: Callable[[str], bool], binary: Mapping[str, bool],
                named: frozenset[str]) -> list[Group]:  # fmt: skip
    """Cut pairs into groups of one layout, largest first.

    Args:
        pairs: image and one label each.
        known: whether a name is a structure of the ontology.
        binary: label path -> whether it holds one value beside background, where it was looked at.
        named: names that documents beside the data give to labels.
    """
    buckets: dict[tuple[object, ...], list[_Joined]] = {}
    for pair in pairs:
        joined = _Joined(pair=pair, at=align(pair))
        buckets.setdefault(_signature(joined), []).append(joined)
    groups: list[Group] = []
    for members in buckets.values():
        groups += _of_bucket(members, known, binary, named)
    groups = _merge_sequences(groups)
    groups.sort(key=lambda g: (-len(g.pairs), g.label_patterns))
    return _with_names(groups)


def _signature(joined: _Joined) -> tuple[object, ...]:
    image, label, at = joined.pair.image, joined.pair.labels[0], joined.at
    a, b = parse(image.path), parse(label.path)
    entities: tuple[str, ...] = ()
    if is_bids(a.stem) and is_bids(b.stem):
        entities = (_entity_keys(a.stem), _entity_keys(b.stem))
    middle = [f for f in at.image_folders if f in at.label_folders]
    return (
        image.kind, a.suffix.lower(), label.kind, b.suffix.lower(), len(at.shared),
        image.modality, sequence_of(image.path).lower(), channel_number(image.path),
        tuple(_plain(f, at, middle) for f in at.image_folders),
        tuple(_plain(f, at, middle) for f in at.label_folders),
        bool(at.case), at.image_affix if at.case else "", at.label_affix[0], entities,
    )  # fmt: skip


def _entity_keys(stem: str) -> str:
    """Names of the entities of a BIDS stem, with the values of those that tell files apart."""
    parts = [p if p.startswith(("seg-", "desc-")) else p.partition("-")[0] for p in stem.split("_")]
    return "_".join(parts)


def _plain(folder: str, at: Aligned, middle: Sequence[str]) -> str:
    if folder in middle:
        return "{both}"
    if at.case and at.case in folder:
        return folder.replace(at.case, "{case}")
    return re.sub(r"\d+", "0", folder) if _RANDOM.fullmatch(folder) else folder


def _of_bucket(
    members: Sequence[_Joined], known: Callable[[str], bool], binary: Mapping[str, bool],
    named: frozenset[str],
) -> list[Group]:  # fmt: skip
    ends = Counter(m.end for m in members)
    bids = any(is_bids(parse(m.pair.image.path).stem) for m in members)
    a_image = Counter(m.pair.image.path for m in members)
    if bids or members[0].pair.labels[0].kind in ("seg", "rtstruct"):
        return _made(members, None)
    if max(a_image.values()) == 1 and (len(ends) == 1 or not members[0].at.case):
        return _made(members, "{case}" if len(ends) > 1 else None)
    several = [m for m in members if binary.get(m.pair.labels[0].path) is False]
    if several and len(several) < len(members) and len(ends) <= 12:
        rest = [m for m in members if m not in several]
        return [*_of_bucket(rest, known, binary, named), *_alternatives(several)]
    observers = {end: observer(end) for end in ends}
    if all(n is not None for n in observers.values()):
        return _observed(members, observers)
    words = {end: _words(end) for end in ends}
    if all(not w or w.isdigit() for w in words.values()):
        base = min(ends, key=len)
        return _made(members, base if any(not w for w in words.values()) else "", wild=True)
    if all(_RANDOM.fullmatch(w) for w in words.values() if w):
        return _made(members, "{instance}")
    return _structures(members, words, known, named)


def _words(end: str) -> str:
    """An ending without separators at its sides and without words that say mask."""
    inner = end.strip("_- .")
    kept = [t for t in tokens(inner) if t.lower() not in LABEL_WORDS]
    return inner if len(kept) == len(tokens(inner)) else "_".join(kept)


def _structures(
    members: Sequence[_Joined], words: Mapping[str, str], known: Callable[[str], bool],
    named: frozenset[str],
) -> list[Group]:  # fmt: skip
    """Endings that name structures, maybe with a number; other endings are alternatives."""
    bare = {end: w if known(w) else _name_of(w) for end, w in words.items()}
    names = set(bare.values())
    good = [n for n in names if known(n) or n in named]
    uses = Counter(bare[m.end] for m in members)
    repeated = sum(n > 1 for n in uses.values()) >= 0.5 * len(uses)
    many = Counter(m.pair.image.path for m in members)
    if len(good) >= 0.5 * len(names) or (repeated and max(many.values()) > 2):
        numbered = any(bare[e] != w for e, w in words.items())
        doubt: Doubt = "low" if len(good) >= 0.8 * len(names) else "high"
        made = _made(members, _structure_end(words, bare, numbered=numbered))
        why = f"; {len(good)} of {len(names)} mask names are structures of the ontology"
        return [replace(g, doubt=worst(g.doubt, doubt), evidence=g.evidence + why,
                        structures=tuple(sorted(names))) for g in made]  # fmt: skip
    if len(names) > 6:
        found = _made(members, "{instance}")
        why = f"; {len(names)} mask endings that name no known structure, taken as objects"
        return [replace(g, doubt="high", evidence=g.evidence + why) for g in found]
    return _alternatives(members)


def _name_of(words: str) -> str:
    numbered = _NUMBERED.fullmatch(words)
    return numbered[1] if numbered and numbered[1] and len(numbered[2]) >= 2 else words


def _structure_end(
    words: Mapping[str, str], bare: Mapping[str, str], *, numbered: bool
) -> str:  # fmt: skip
    end, name = next(iter(bare.items()))
    before, _, after = end.partition(name)
    if numbered:
        number = words[end][len(name) :]
        separator = number[: len(number) - len(number.lstrip("_- "))]
        after = separator + "{instance}" + after[len(number) :]
    return escape(before) + "{structure}" + after


def _alternatives(members: Sequence[_Joined]) -> list[Group]:
    """One group an ending: different label maps of the same images."""
    out: list[Group] = []
    for end in sorted({m.end for m in members}):
        for group in _made([m for m in members if m.end == end], None):
            why = "; other masks of the same images are proposed as entries of their own"
            out.append(replace(group, doubt=worst(group.doubt, "medium"),
                               evidence=group.evidence + why))  # fmt: skip
    return out


def _observed(members: Sequence[_Joined], observers: Mapping[str, int | None]) -> list[Group]:
    groups = [
        (number or 1, g)
        for end, number in sorted(observers.items(), key=lambda o: (o[1] or 0, o[0]))
        for g in _made([m for m in members if m.end == end], None)
    ]
    first = groups[0][1]
    images = len({m.pair.image.path for m in members})
    return [
        replace(
            first,
            pairs=tuple(p for _, g in groups for p in g.pairs),
            label_patterns=tuple((g.label_patterns[0][0], n) for n, g in groups),
            evidence=f"{images} images with {len(members)} masks by: {members[0].pair.how}; "
            f"{len(groups)} observers by the endings of the masks",
            doubt=worst(*(g.doubt for _, g in groups)),
        )
    ]


def _made(members: Sequence[_Joined], end: str | None, *, wild: bool = False) -> list[Group]:
    """A group with its patterns.

    Args:
        members: pairs of one signature.
        end: pattern of the label's ending; None = the ending itself, the same for all.
        wild: a ``*`` follows the ending.
    """
    fields = Fields(values={})
    image = _image_pattern(members, fields)
    label = _label_pattern(members, fields, end)
    if wild:
        label = label.removesuffix(parse(members[0].pair.labels[0].path).suffix)
        label += "*" + parse(members[0].pair.labels[0].path).suffix
    hows = Counter(m.pair.how for m in members)
    images = len({m.pair.image.path for m in members})
    said = f"{images} images with {len(members)} masks by: {', '.join(sorted(hows))}"
    sequence = channel_number(members[0].pair.image.path) or sequence_of(members[0].pair.image.path)
    return [
        Group(
            name="",
            pairs=tuple(m.pair for m in members),
            image_patterns=((image, sequence),),
            label_patterns=((label, 1),),
            doubt=worst(*(_sure(h) for h in hows)),
            evidence=said,
        )
    ]


def _sure(how: str) -> Doubt:
    found = SURE[how]
    return "low" if found == "low" else "medium"


def _image_pattern(members: Sequence[_Joined], fields: Fields) -> str:
    names = [parse(m.pair.image.path) for m in members]
    if members[0].at.case:
        cases = [m.at.case for m in members]
        before, after = members[0].at.image_affix
        stem = escape(before) + fields.name_of(cases, "case") + escape(after)
    elif is_bids(names[0].stem):
        stem = bids_pattern([n.stem for n in names], fields) or "{case}"
    elif names[0].stem:
        stem = fields.name_of([n.stem for n in names], "case")
    else:
        stem = ""
    folders = [
        _folder([m.at for m in members], [n.folders[k] for n in names], fields)
        for k in range(len(names[0].folders))
    ]
    if names[0].suffix == "/":
        return "/".join(folders) + "/"
    return "/".join([*folders, stem + _suffixes([n.suffix for n in names])])


def _suffixes(found: Sequence[str]) -> str:
    return found[0] if len(set(found)) == 1 else ".*"


def _folder(at: Sequence[Aligned], column: Sequence[str], fields: Fields) -> str:
    """A folder's text, which may hold the case name."""
    if len(set(column)) == 1 or fields.find(column) is not None:
        return fields.name_of(column, "folder")
    cases = [a.case for a in at]
    affixes = {tuple(c.split(a, 1)) for c, a in zip(column, cases, strict=True) if a and a in c}
    if "case" in fields.values and len(affixes) == 1 and all(a and a in c for c, a in zip(
        column, cases, strict=True
    )):  # fmt: skip
        before, after = affixes.pop()
        return escape(before) + "{case}" + escape(after)
    return fields.name_of(column, "folder")


def _label_pattern(members: Sequence[_Joined], fields: Fields, end: str | None) -> str:
    names = [parse(m.pair.labels[0].path) for m in members]
    folders = []
    for k in range(len(names[0].folders)):
        column = [n.folders[k] for n in names]
        found = _folder([m.at for m in members], column, fields)
        folders.append(found)
    if is_bids(names[0].stem):
        stem = bids_pattern([n.stem for n in names], fields) or "*"
    elif members[0].at.case:
        cases = [m.at.case for m in members]
        tail = escape(members[0].end) if end is None else end
        stem = escape(members[0].at.label_affix[0]) + fields.name_of(cases, "case") + tail
    else:
        stem = _free_stem([n.stem for n in names], fields, end)
    return "/".join([*folders, stem + _suffixes([n.suffix for n in names])])


def _free_stem(stems: Sequence[str], fields: Fields, end: str | None) -> str:
    """A label stem that holds no case name."""
    if len(set(stems)) == 1:
        return escape(stems[0])
    if end not in (None, "", "{case}"):
        return str(end)
    prefix = stems[0]
    for stem in stems:
        while not stem.startswith(prefix):
            prefix = prefix[:-1]
    return fields.find(stems) or escape(prefix.rstrip("0123456789")) + "*"


def _merge_sequences(groups: Sequence[Group]) -> list[Group]:
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


def _with_names(groups: Sequence[Group]) -> list[Group]:
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
