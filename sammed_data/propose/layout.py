"""Pairs -> groups that one entry describes, each with image and label patterns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os.path import commonprefix

from sammed_data.propose.align import Aligned, align, escape
from sammed_data.propose.carriers import Doubt, Group, Item, Pair, worst
from sammed_data.propose.merge import merge_folders, merge_sequences, with_names
from sammed_data.propose.names import (
    LABEL_WORDS,
    channel_of,
    is_bids,
    observer,
    parse,
    sequence_of,
    split_word,
    tokens,
)
from sammed_data.propose.synth import Joined, made

_RANDOM = re.compile(r"[0-9a-f]{8,}|\d+|(?=[a-z0-9]*\d)(?=[a-z0-9]*[a-z])[a-z0-9]{12,}", re.I)
_NUMBERED = re.compile(r"(.*?)[_\-\s]*(\d+)")
MAX_GROUPS, _MAX_HEADS = 12, 4


def find_groups(pairs: Sequence[Pair], known: Callable[[str], bool], binary: Mapping[str, bool],
                named: frozenset[str]) -> list[Group]:  # fmt: skip
    """Cut pairs into groups of one layout, largest first.

    Args:
        pairs: image and one label each.
        known: whether a name is a structure of the ontology.
        binary: label path -> whether it holds one value beside background, where it was looked at.
        named: names that documents beside the data give to labels.
    """
    buckets: dict[tuple[object, ...], list[Joined]] = {}
    mixed = not _doubles(pairs)
    for pair in pairs:
        joined = Joined(pair=pair, at=align(pair))
        buckets.setdefault(_signature(joined, mixed=mixed), []).append(joined)
    groups: list[Group] = []
    for members in buckets.values():
        groups += _of_bucket(members, known, binary, named)
    groups = merge_folders(merge_sequences(groups), known, binary)
    groups.sort(key=lambda g: (-len(g.pairs), g.label_patterns))
    if len(groups) > 1:
        groups = [_lonely(g) for g in groups]
    groups = [_mixed(g) for g in groups]
    return with_names(groups)


def _doubles(pairs: Sequence[Pair]) -> bool:
    """Whether two images, or two labels, have one name but for their endings."""
    for paths in ({p.image.path for p in pairs}, {p.labels[0].path for p in pairs}):
        if len({p.removesuffix(parse(p).suffix) for p in paths}) < len(paths):
            return True
    return False


def _ending(item: Item, *, mixed: bool) -> str:
    """The ending that all of a group have; pictures of several formats may make one group."""
    return "" if mixed and item.kind == "raster" else parse(item.path).suffix.lower()


def _lonely(group: Group) -> Group:
    """A group of one image beside others may be a part of one of them."""
    if len({p.image.path for p in group.pairs}) > 1:
        return group
    why = "; one image alone, beside other groups"
    return replace(group, doubt=worst(group.doubt, "medium"), evidence=group.evidence + why)


def _mixed(group: Group) -> Group:
    """Cases called by a few different words may be several datasets in one folder."""
    stems = {parse(p.image.path).stem for p in group.pairs}
    heads = {h[0].lower() for s in stems if (h := re.match(r"[A-Za-z]+", s))}
    if not 2 <= len(heads) <= _MAX_HEADS or any(split_word(h) for h in heads):
        return group
    why = f"; names begin with {', '.join(sorted(heads))}: perhaps several datasets in one"
    return replace(group, doubt=worst(group.doubt, "medium"), evidence=group.evidence + why)


def _signature(joined: Joined, *, mixed: bool) -> tuple[object, ...]:
    image, label, at = joined.pair.image, joined.pair.labels[0], joined.at
    a, b = parse(image.path), parse(label.path)
    entities: tuple[str, ...] = ()
    if is_bids(a.stem) and is_bids(b.stem):
        entities = (_entity_keys(a.stem), _entity_keys(b.stem))
    middle = [f for f in at.image_folders if f in at.label_folders]
    folders = tuple(_plain(f, at, middle) for f in at.image_folders)
    if label.kind == "runs":  # a table speaks of all folders that differ by their numbers
        folders = tuple(re.sub(r"[\d.]+", "0", f) for f in folders)
    return (
        image.kind, _ending(image, mixed=mixed and label.kind != "runs"),
        label.kind, _ending(label, mixed=mixed), len(at.shared),
        image.modality, sequence_of(image.path).lower(), channel_of(image.path, label.path),
        folders,
        tuple(_plain(f, at, middle) for f in at.label_folders),
        bool(at.case), at.image_affix if at.case else "", at.label_affix[0], entities,
        _array(joined.pair.image), _array(joined.pair.labels[0]),
    )  # fmt: skip


def _array(item: Item) -> tuple[str | None, str] | None:
    return None if item.array is None else (item.array.variable, item.array.axes)


def _entity_keys(stem: str) -> str:
    """Names of the entities of a BIDS stem, with the values of those that tell files apart."""
    parts = [p if p.startswith(("seg-", "desc-")) else p.partition("-")[0] for p in stem.split("_")]
    return "_".join(parts)


def _plain(folder: str, at: Aligned, middle: Sequence[str]) -> str:
    if folder in middle:
        return "{both}"
    if split_word(folder):
        return folder.removesuffix(split_word(folder)) + "{split}"
    if at.case and at.case in folder:
        return folder.replace(at.case, "{case}")
    return re.sub(r"\d+", "0", folder) if _RANDOM.fullmatch(folder) else folder


def _of_bucket(
    members: Sequence[Joined], known: Callable[[str], bool], binary: Mapping[str, bool],
    named: frozenset[str],
) -> list[Group]:  # fmt: skip
    ends = Counter(m.end for m in members)
    bids = any(is_bids(parse(m.pair.image.path).stem) for m in members)
    a_image = Counter(m.pair.image.path for m in members)
    if bids or members[0].pair.labels[0].kind in ("seg", "rtstruct"):
        return made(members)
    if max(a_image.values()) == 1 and (len(ends) == 1 or not members[0].at.case):
        return made(members, *(["{case}"] if len(ends) > 1 else []))
    several = [m for m in members if binary.get(m.pair.labels[0].path) is False]
    if several and len(several) < len(members) and len(ends) <= 12:
        rest = [m for m in members if m not in several]
        return [*_of_bucket(rest, known, binary, named), *_alternatives(several)]
    observers = {end: observer(end) for end in ends}
    if all(n is not None for n in observers.values()):
        return _observed(members, observers)
    words = {end: _words(end) for end in ends}
    if all(not w or w.isdigit() for w in words.values()):
        return made(members, *_numbered_ends(words))
    if all(_RANDOM.fullmatch(w) for w in words.values() if w):
        return made(members, "{instance}")
    return _structures(members, words, known, named)


def _numbered_ends(words: Mapping[str, str]) -> list[str]:
    """Patterns of endings that differ by a number, or have none."""
    bare = sorted(end for end, word in words.items() if not word)
    numbered = sorted(end for end, word in words.items() if word)
    out = [escape(end) for end in bare]
    if numbered:
        head = commonprefix(numbered).rstrip("0123456789")
        tail = commonprefix([n[::-1] for n in numbered])[::-1].lstrip("0123456789")
        tail = tail if len(head) + len(tail) < min(map(len, numbered)) else ""
        out.append(escape(head) + "{instance}" + escape(tail))
    return out


def _words(end: str) -> str:
    """An ending without separators at its sides and without words that say mask."""
    inner = end.strip("_- .")
    kept = [t for t in tokens(inner) if t.lower() not in LABEL_WORDS]
    return inner if len(kept) == len(tokens(inner)) else "_".join(kept)


def _structures(
    members: Sequence[Joined], words: Mapping[str, str], known: Callable[[str], bool],
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
        found = made(members, _structure_end(words, bare, numbered=numbered))
        why = f"; {len(good)} of {len(names)} mask names are structures of the ontology"
        return [replace(g, doubt=worst(g.doubt, doubt), evidence=g.evidence + why,
                        structures=tuple(sorted(names))) for g in found]  # fmt: skip
    if len(names) > 6:
        found = made(members, "{instance}")
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


def _alternatives(members: Sequence[Joined]) -> list[Group]:
    """One group an ending: different label maps of the same images."""
    ends = sorted({m.end for m in members})
    return [group for end in ends for group in made([m for m in members if m.end == end])]


def _observed(members: Sequence[Joined], observers: Mapping[str, int | None]) -> list[Group]:
    groups = [
        (number or 1, g)
        for end, number in sorted(observers.items(), key=lambda o: (o[1] or 0, o[0]))
        for g in made([m for m in members if m.end == end])
    ]
    first = groups[0][1]
    images = len({m.pair.image.path for m in members})
    return [
        replace(
            first,
            pairs=tuple(p for _, g in groups for p in g.pairs),
            label_patterns=tuple((p, n) for n, g in groups for p, _ in g.label_patterns),
            evidence=f"{images} images with {len(members)} masks by: {members[0].pair.how}; "
            f"{len(groups)} observers by the endings of the masks",
            doubt=worst(*(g.doubt for _, g in groups)),
        )
    ]
