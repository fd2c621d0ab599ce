"""File names as tokens: which words say image, mask, sequence or observer, and what is left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sammed_data.propose.survey import suffix_of


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


LABEL_WORDS = word_set(
    "mask masks msk msks seg segs segm segmentation segmentations label labels lbl lab labelstr "
    "labelsts labelsval labelmap labelmaps gt gts groundtruth groundtruths truth annotation "
    "annotations annot annots anno annos manual target targets contour contours roi rois "
    "delineation delineations binary dseg probseg outline outlines bw"
)
IMAGE_WORDS = word_set(
    "image images img imgs imagestr imagests imagesval input inputs volume volumes vol scan scans "
    "orig original originals raw data picture pictures photo photos source src"
)
SEQUENCE_WORDS = word_set(
    "t1 t2 t1w t2w t1ce t1c t1gd t1n t2f t2s flair pd pdw dwi adc swi bssfp lge ct mr mri pet us "
    "ed es art pv inphase outphase"
)
_GLUED = "|".join(sorted(LABEL_WORDS | IMAGE_WORDS, key=len, reverse=True))
_GLUED_HEAD = re.compile(rf"({_GLUED})(\d.*)", re.IGNORECASE)
_TOKEN = re.compile(r"[^_\-\s.+()\[\]]+")
_PERSON = "ho|manual|observer|rater|reader|expert|annotator|annotation|grader"
_OBSERVER = re.compile(
    rf"(\d)(?:st|nd|rd|th)_?(?:{_PERSON})"
    r"|(?:observer|obs|rater|reader|expert|annotator|manual|radiologist|grader)_?-?(\d)",
    re.IGNORECASE,
)
_BIDS = re.compile(r"(?:^|_)(sub|ses|acq|run|seg|desc|space|label|task|ce|rec|dir)-[^_]+")
_CHANNEL = re.compile(r"_000\d$")


@dataclass(frozen=True, kw_only=True)
class Name:
    """A path taken apart.

    Attributes:
        folders: folder names, outermost first.
        stem: file name without its ending (of a series folder: '').
        suffix: ending with its dot; '/' for a series folder.
        key: what tells cases apart: tokens without role words, '/' between parts.
        loose: the key without sequence words.
        own: the key of the stem alone.
        role_word: the word nearest to the end that says label or image, '' if none.
        says: 'label', 'image' or '' by that word.
    """

    folders: tuple[str, ...]
    stem: str
    suffix: str
    key: tuple[str, ...]
    loose: tuple[str, ...]
    own: tuple[str, ...]
    role_word: str
    says: str


@lru_cache(maxsize=1 << 18)
def parse(path: str) -> Name:
    """Take a relative path apart."""
    if path.endswith("/"):
        folders, stem, suffix = tuple(path.rstrip("/").split("/")), "", "/"
    else:
        *above, name = path.split("/")
        folders, suffix = tuple(above), suffix_of(name)
        stem = name[: len(name) - len(suffix)]
    word, says = _role((*folders, stem))
    return Name(
        folders=folders,
        stem=stem,
        suffix=suffix,
        key=_key((*folders, stem), frozenset()),
        loose=_key((*folders, stem), SEQUENCE_WORDS),
        own=_key((stem or folders[-1],), frozenset()),
        role_word=word,
        says=says,
    )


def tokens(text: str) -> list[str]:
    """Words and numbers of a name; 'img0001' and 'mask2d' give two."""
    out: list[str] = []
    for token in _TOKEN.findall(text):
        glued = _GLUED_HEAD.fullmatch(token)
        out += [glued[1], glued[2]] if glued else [token]
    return out


def is_bids(stem: str) -> bool:
    """Whether a stem is made of BIDS entities (``sub-01_ses-2_T1w``)."""
    return stem.startswith("sub-") and _BIDS.search(stem) is not None


def observer(text: str) -> int | None:
    """Number of the observer that a part of a name speaks of."""
    found = _OBSERVER.search(text)
    return int(found[1] or found[2]) if found else None


def without_channel(path: str) -> str:
    """The path without the ``_0000`` that nnU-Net puts behind a case."""
    name = parse(path)
    if not _CHANNEL.search(name.stem):
        return path
    return "/".join((*name.folders, name.stem[:-5] + name.suffix))


def channel_number(path: str) -> str:
    """The ``_000d`` at the end of a stem, '' if there is none."""
    found = _CHANNEL.search(parse(path).stem)
    return found[0][1:] if found else ""


def channel_of(image: str, label: str) -> str:
    """nnU-Net's channel of an image, '' if its label ends in the same number: that counts cases."""
    number = channel_number(image)
    return "" if number == channel_number(label) else number


def sequence_of(path: str) -> str:
    """The sequence word nearest to the end of a path, as written; '' if there is none."""
    name = parse(path)
    for part in reversed((*name.folders, name.stem)):
        for token in reversed(tokens(part)):
            if token.lower() in SEQUENCE_WORDS:
                return token
    return ""


def skeleton(path: str) -> str:
    """A path with its numbers and random names replaced: what its kind is called."""
    name = parse(path)
    parts = [_plain(p) for p in (*name.folders, name.stem)]
    return "/".join(parts) + name.suffix.lower()


def _plain(part: str) -> str:
    words = []
    for token in tokens(part):
        mixed = any(c.isdigit() for c in token) and any(c.isalpha() for c in token)
        words.append("#" if mixed and len(token) >= 12 else re.sub(r"\d+", "0", token))
    return " ".join(words)


def _role(parts: Sequence[str]) -> tuple[str, str]:
    for part in reversed(parts):
        if is_bids(part):  # only its last word is no entity
            last = part.rpartition("_")[2].lower()
            label = last in LABEL_WORDS
            return last, "label" if label else "image" if "-" not in last else ""
        observed = _OBSERVER.search(part)
        if observed is not None:
            return observed[0], "label"
        for token in reversed(tokens(part)):
            if token.lower() in LABEL_WORDS:
                return token, "label"
            if token.lower() in IMAGE_WORDS:
                return token, "image"
    return "", ""


def _key(all_parts: Sequence[str], dropped: frozenset[str]) -> tuple[str, ...]:
    """Tokens of all parts; a folder whose words the next part repeats is said once."""
    silent = LABEL_WORDS | IMAGE_WORDS | dropped | {"ground"}
    parts: list[list[str]] = []
    for part in all_parts:
        if is_bids(part):
            kept = _entities(part)
        else:
            words = (t.lower() for t in tokens(_OBSERVER.sub("", part)))
            kept = [t for t in words if t not in silent]
        if parts and parts[-1] and kept[: len(parts[-1])] == parts[-1]:
            parts.pop()
        if kept:
            parts.append(kept)
    out: list[str] = []
    for kept in parts:
        out += ["/", *kept] if out else kept
    return tuple(out)


def _entities(part: str) -> list[str]:
    found = [t.lower() for t in part.split("_")]
    return [t for t in found if "-" in t and not t.startswith(("seg-", "desc-"))]


_SPLIT_END = re.compile(
    r"(?:(?<=images)|(?<=labels)|(?<=masks)|(?<=image)|(?<=label))(Tr|Ts|Va|Val|Te)$"
    r"|^(train|training|val|valid|validation|dev|test|testing)$",
    re.IGNORECASE,
)


def split_word(folder: str) -> str:
    """The word of a folder that names an official split ('Tr' of 'imagesTr'), '' if none does."""
    found = _SPLIT_END.search(folder)
    return (found[1] or found[2]) if found else ""
