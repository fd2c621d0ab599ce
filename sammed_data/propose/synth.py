"""Pairs of one kind -> a group with the path patterns that find them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sammed_data.propose.align import Aligned, Fields, bids_pattern, escape
from sammed_data.propose.carriers import Doubt, Group, Pair, worst
from sammed_data.propose.names import channel_of, is_bids, parse, sequence_of, split_word
from sammed_data.propose.pairing import SURE
from sammed_data.types import counted


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A pair with what its paths share."""

    pair: Pair
    at: Aligned

    @property
    def end(self) -> str:
        """What of the label's stem tells it from other labels of its image."""
        return self.at.label_affix[1]


def made(members: Sequence[Joined], *ends: str) -> list[Group]:
    """A group with its patterns.

    Args:
        members: pairs of one signature.
        ends: patterns of the label's ending; none = the ending itself, the same for all.
    """
    fields = Fields(values={})
    images = _with_endings(_image_pattern(members, fields), [m.pair.image.path for m in members])
    labels = [
        pattern
        for end in ends or (None,)
        for pattern in _with_endings(
            _label_pattern(members, fields, end), [m.pair.labels[0].path for m in members]
        )
    ]
    hows = Counter(m.pair.how for m in members)
    n_images = len({m.pair.image.path for m in members})
    masks = counted(len(members), "mask")
    said = f"{counted(n_images, 'image')} with {masks} by: {', '.join(sorted(hows))}"
    first = members[0].pair
    sequence = channel_of(first.image.path, first.labels[0].path) or sequence_of(first.image.path)
    return [
        Group(
            name="",
            pairs=tuple(m.pair for m in members),
            image_patterns=tuple((image, sequence) for image in images),
            label_patterns=tuple((label, 1) for label in labels),
            doubt=worst(*(_sure(h) for h in hows)),
            evidence=said,
        )
    ]


def _sure(how: str) -> Doubt:
    found = SURE[how]
    return "low" if found == "low" else "medium"


def _image_pattern(members: Sequence[Joined], fields: Fields) -> str:
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
    return "/".join([*folders, stem])


def _with_endings(pattern: str, paths: Sequence[str]) -> list[str]:
    """A pattern for each ending that the files have; of a folder the pattern itself."""
    if pattern.endswith("/"):
        return [pattern]
    return [pattern + suffix for suffix in sorted({parse(p).suffix for p in paths})]


def _folder(at: Sequence[Aligned], column: Sequence[str], fields: Fields) -> str:
    """A folder's text, which may hold the case name."""
    if len(set(column)) == 1 or fields.find(column) is not None:
        return fields.name_of(column, "folder")
    words = [split_word(c) for c in column]
    heads = {c.removesuffix(w) for c, w in zip(column, words, strict=True)}
    if all(words) and len(heads) == 1:
        return escape(heads.pop()) + fields.name_of(words, "split")
    cases = [a.case for a in at]
    affixes = {tuple(c.split(a, 1)) for c, a in zip(column, cases, strict=True) if a and a in c}
    if "case" in fields.values and len(affixes) == 1 and all(a and a in c for c, a in zip(
        column, cases, strict=True
    )):  # fmt: skip
        before, after = affixes.pop()
        return escape(before) + "{case}" + escape(after)
    return fields.name_of(column, "folder")


def _label_pattern(members: Sequence[Joined], fields: Fields, end: str | None) -> str:
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
    if names[0].suffix == "/":
        return "/".join(folders) + "/"
    return "/".join([*folders, stem])


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
