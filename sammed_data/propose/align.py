"""What a pair's two paths share, where they differ, and the path patterns of many such pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sammed_data.propose.carriers import Pair
from sammed_data.propose.names import IMAGE_WORDS, LABEL_WORDS, is_bids, parse

_SPLIT = re.compile(r"([_\-\s.+()\[\]]+)")
_GLUED = re.compile(
    rf"({'|'.join(sorted(LABEL_WORDS | IMAGE_WORDS, key=len, reverse=True))})(\d.*)", re.IGNORECASE
)
_NUMBERED = re.compile(r"([A-Za-z]+)(\d+)")
_SPECIAL = re.compile(r"[*?\[{}\]]")


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """A pair's paths: what is shared is cut out.

    Attributes:
        shared: folders both paths begin with.
        image_folders: folders of the image after these.
        label_folders: folders of the label after these.
        case: the run of tokens both stems hold, '' if they hold none.
        image_affix: (before, after) the case in the image's stem.
        label_affix: (before, after) the case in the label's stem; without a case: ('', stem).
    """

    shared: tuple[str, ...]
    image_folders: tuple[str, ...]
    label_folders: tuple[str, ...]
    case: str
    image_affix: tuple[str, str]
    label_affix: tuple[str, str]


def align(pair: Pair) -> Aligned:
    """Compare the paths of a pair."""
    image, label = parse(pair.image.path), parse(pair.labels[0].path)
    n = 0
    while n < min(len(image.folders), len(label.folders)):
        if image.folders[n] != label.folders[n]:
            break
        n += 1
    case = _common_run(image.stem, label.stem)
    if not case:
        return Aligned(
            shared=image.folders[:n],
            image_folders=image.folders[n:],
            label_folders=label.folders[n:],
            case="",
            image_affix=("", image.stem),
            label_affix=("", label.stem),
        )
    return Aligned(
        shared=image.folders[:n],
        image_folders=image.folders[n:],
        label_folders=label.folders[n:],
        case=case,
        image_affix=_affix(image.stem, case),
        label_affix=_affix(label.stem, case),
    )


def _affix(stem: str, case: str) -> tuple[str, str]:
    before, _, after = stem.partition(case)
    return before, after


def pieces(stem: str) -> list[str]:
    """Tokens and separators of a stem, in order; 'img0001' and 'Case1' are two tokens."""
    out: list[str] = []
    for part in _SPLIT.split(stem):
        glued = _GLUED.fullmatch(part) or _NUMBERED.fullmatch(part)
        out += [glued[1], glued[2]] if glued else [part] if part else []
    return out


def _common_run(a: str, b: str) -> str:
    """The longest run of whole tokens in both stems; role words do not count."""
    if is_bids(a) and is_bids(b):
        return ""
    left, right = pieces(a), pieces(b)
    best: tuple[int, str] = (0, "")
    for i in range(len(left)):
        for j in range(len(right)):
            k = 0
            while i + k < len(left) and j + k < len(right) and left[i + k] == right[j + k]:
                k += 1
            run = _trimmed(left[i : i + k])
            best = max(best, (_weight(run), "".join(run)), key=lambda r: r[0])
    return best[1]


def _trimmed(run: list[str]) -> list[str]:
    while run and _SPLIT.fullmatch(run[0]):
        run = run[1:]
    while run and _SPLIT.fullmatch(run[-1]):
        run = run[:-1]
    return run


def _weight(run: Sequence[str]) -> int:
    if all(t.lower() in LABEL_WORDS | IMAGE_WORDS or _SPLIT.fullmatch(t) for t in run):
        return 0
    return len("".join(run))


def escape(text: str) -> str:
    """Literal text inside a pattern; the pattern language has no escape, so '?' stands in."""
    return _SPECIAL.sub("?", text)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Values of the fields of a group of pairs: name -> one value a pair."""

    values: dict[str, list[str]]

    def name_of(self, column: Sequence[str], wish: str) -> str:
        """Pattern text of a column of values: a literal, a known field, or a new field."""
        if len(set(column)) == 1:
            return escape(column[0])
        known = self.find(column)
        if known is not None:
            return known
        name = wish
        number = 2
        while name in self.values:
            name, number = f"{wish}{number}", number + 1
        self.values[name] = list(column)
        return "{" + name + "}"

    def find(self, column: Sequence[str]) -> str | None:
        """The field that has exactly these values."""
        for name, values in self.values.items():
            if values == list(column):
                return "{" + name + "}"
        return None


def bids_pattern(stems: Sequence[str], fields: Fields) -> str | None:
    """Pattern of stems made of entities, one field an entity that varies; None if they differ."""
    split = [s.split("_") for s in stems]
    if len({len(s) for s in split}) != 1:
        return None
    out = []
    for column in zip(*split, strict=True):
        key, dash, _ = column[0].partition("-")
        if dash and all(c.startswith(f"{key}-") for c in column):
            values = [c[len(key) + 1 :] for c in column]
            wish = {"sub": "subject", "ses": "session"}.get(key, key)
            out.append(f"{key}-{fields.name_of(values, wish)}")
        elif len(set(column)) == 1:
            out.append(escape(column[0]))
        else:
            return None
    return "_".join(out)
