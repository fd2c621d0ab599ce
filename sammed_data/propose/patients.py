"""Candidates for the patient key: regular expressions on the image path, with group counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sammed_data.propose.carriers import Doubt
from sammed_data.propose.names import parse, word_set

_PERSON = re.compile(r"(sub|subj|subject|pat|patient|pt|person|case)[-_ ]?[A-Za-z]*\d+", re.I)
_SPLIT_NAMES = word_set("train training val valid validation dev test testing")
_EYE = r"(?:^|/)([^/]*\d)[_-]?(?:[LR]|OD|OS|left|right)(?=[._-][^/]*$|$)"
# A word ends before the next begins, or a long name without a number would be cut in 2^n ways.
_FIRST_NUMBER = r"(?:^|/)((?:[^\W\d_]+[ _-])*[^\W\d_]*\d+)[ _-][^/]*$"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A rule for the patient key.

    Attributes:
        groups: distinct keys among the images.
        images: how many images there are.
    """

    regex: str
    unit: Literal["patient", "study", "image"]
    groups: int
    images: int
    evidence: str
    doubt: Doubt


def candidates(paths: Sequence[str], *, everywhere: Sequence[str] = ()) -> list[Candidate]:
    """Rules that give every image a key, best first; the last one says no patient is known.

    Args:
        paths: image paths of the group, relative, a series folder without its '/'.
        everywhere: image paths of all groups, whose repeated keys are evidence.
    """
    series = all(p.endswith("/") for p in paths)
    paths = sorted({p.rstrip("/") for p in paths})
    everywhere = sorted({p.rstrip("/") for p in everywhere}) or paths
    found = [
        *_tried(r"(?:^|/|_)(sub-[^_/]+)", paths, everywhere, "BIDS subject in the path", "low"),
        *_folders(paths, everywhere, series=series),
        *_tried(_EYE, paths, everywhere, "names that end in the side of a pair", "medium"),
        *_tried(_FIRST_NUMBER, paths, everywhere, "first number of the file name", "medium"),
    ]
    return [*found, _an_image(paths)]


def told(regex: str, paths: Sequence[str]) -> Candidate | None:
    """The user's rule (``image`` = every image is its own), None if it leaves an image without."""
    if regex == "image":
        own = _an_image(sorted({p.rstrip("/") for p in paths}))
        return replace(own, evidence="told: every image counts as its own", doubt="low")
    keys = _keys(regex, [p.rstrip("/") for p in paths])
    if keys is None:
        return None
    return Candidate(regex=regex, unit="patient", groups=len(set(keys)), images=len(keys),
                     evidence="told", doubt="low")  # fmt: skip


def _keys(regex: str, paths: Sequence[str]) -> list[str] | None:
    pattern = re.compile(regex)
    keys = []
    for path in paths:
        found = pattern.search(path)
        if found is None:
            return None
        keys.append("_".join(g or "" for g in found.groups()))
    return keys


def _tried(
    regex: str, paths: Sequence[str], everywhere: Sequence[str], what: str, doubt: Doubt
) -> list[Candidate]:
    keys = _keys(regex, paths)
    if not keys:
        return []
    groups = len(set(keys))
    pattern = re.compile(regex)
    all_keys = [m[1] for p in everywhere if (m := pattern.search(p))]
    repeated = len(all_keys) > len(set(all_keys))
    if len(paths) == 1 and not repeated and doubt != "low":
        return []
    if doubt != "low" and (not repeated or (groups == 1 and len(paths) > 2)):
        doubt = "high"
    said = f"{what}: {groups} keys for {len(paths)} images"
    said += ", some of several images" if repeated else ", each of one image: no proof of a person"
    return [Candidate(regex=regex, unit="patient", groups=groups, images=len(paths),
                      evidence=said, doubt=doubt)]  # fmt: skip


def _folders(paths: Sequence[str], everywhere: Sequence[str], *, series: bool) -> list[Candidate]:
    """Folders that differ, hold numbers, and are not just the name of the image.

    ``series``: the last part of each path is a folder too.
    """
    parts = [p.split("/") for p in paths]
    out: list[Candidate] = []
    for k in range(min(len(p) for p in parts) - (not series)):
        column = [p[k] for p in parts]
        stems = [parse(p).stem for p in paths]
        if len(set(column)) == 1 and len(paths) > 1:
            continue
        if {c.lower() for c in column} & _SPLIT_NAMES or not all(
            any(ch.isdigit() for ch in c) for c in column
        ):
            continue
        regex = "^" + "".join("[^/]+/" for _ in range(k)) + "([^/]+)(?:/|$)"
        same = not series and all(c == s for c, s in zip(column, stems, strict=True))
        person = all(_PERSON.fullmatch(c) for c in column)
        if same and not person:
            continue
        doubt: Doubt = "medium"
        if person:
            out += _tried(regex, paths, everywhere, "folders named like persons", "low")
        else:
            out += _tried(regex, paths, everywhere, f"folder {k + 1} of the path", doubt)
    return sorted(out, key=lambda c: c.doubt == "high")


def _an_image(paths: Sequence[str]) -> Candidate:
    names = [parse(p) for p in paths]
    stems = {n.stem for n in names}
    regex = (
        r"([^/]+?)(?:\.[A-Za-z.]+)?$" if len(stems) == len(paths) else r"^(.+?)(?:\.[A-Za-z.]+)?$"
    )
    return Candidate(
        regex=regex,
        unit="image",
        groups=len(paths),
        images=len(paths),
        evidence="no patient was recognised in the names: every image counts as its own",
        doubt="high",
    )
