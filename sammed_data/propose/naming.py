"""Raw labels -> structures of the ontology, with the doubt of each guess."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sammed_data.ontology import Ontology
from sammed_data.propose.carriers import Doubt, worst
from sammed_data.propose.coding import Coding
from sammed_data.propose.documents import Statement
from sammed_data.propose.names import IMAGE_WORDS, LABEL_WORDS, SEQUENCE_WORDS, tokens, word_set
from sammed_data.types import CatalogError, UsageError, nearest

#: Stands where no name is known, so that the entry builds; it is never proposed without doubt.
UNNAMED = "unnamed_object"
_BACKGROUND = ("background", "bg", "clear label", "void", "none", "0")
_PLACES = word_set("left right gtv ctv ptv mass upper lower anterior posterior")
_UNSEEN = "told by --labels, but no label file that was looked at has it"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The ``labels`` of an entry, a comment for each doubtful one, and where names came from."""

    labels: Mapping[str, str]
    comments: Mapping[str, str]
    background: tuple[str, ...]
    evidence: str
    doubt: Doubt


def parse_labels(text: str, ontology: Ontology) -> dict[str, str]:
    """Read ``--labels "1=liver,2=tumor"``; a colour is written ``255-0-0=polyp``.

    Raises:
        UsageError: not of this form, or a name that the ontology does not know.
    """
    out: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        raw, equals, name = (p.strip() for p in part.partition("="))
        if not equals or not raw or not name:
            raise UsageError(
                f'expected --labels like "1=liver,2=liver_tumor", found {part!r}; write VALUE=NAME'
            )
        try:
            ontology.resolve(name)
        except CatalogError as err:
            raise UsageError(f"--labels {part}: {err}") from err
        colour = re.fullmatch(r"(\d+)-(\d+)-(\d+)", raw)
        out[",".join(colour.groups()) if colour else raw] = name
    if not out:
        raise UsageError('expected --labels like "1=liver,2=liver_tumor", found nothing')
    return out


def find_labels(
    coding: Coding,
    said: Sequence[Statement],
    places: Sequence[str],
    ontology: Ontology,
    told: Mapping[str, str] | None,
) -> Labels:
    """Name every raw label.

    Args:
        coding: with the raw labels found.
        said: documents beside the data.
        places: names of folders and files that may speak of what is drawn, nearest first.
        ontology: knows the structures.
        told: by the user; wins.
    """
    stated = next((s for s in said if _fits(s, coding)), None)
    given = dict(told or {})
    names: dict[str, tuple[str, str]] = {}  # raw -> (name, where it came from)
    for raw in _raw_labels(coding, stated, given):
        if raw in given:
            names[raw] = (given[raw], "told")
        elif raw in coding.names:
            names[raw] = (coding.names[raw], "the label files")
        elif stated is not None and raw in stated.labels:
            names[raw] = (stated.labels[raw], stated.path)
        elif coding.type == "file_per_class":
            names[raw] = (raw, "file names")
        else:
            names[raw] = ("", "")
    background = tuple(
        raw for raw, (name, how) in names.items()
        if how != "told" and name.strip().lower() in _BACKGROUND and raw not in ("1", "*")
    )  # fmt: skip
    context = [*(s.name for s in said if s.name), *places]
    labels: dict[str, str] = {}
    comments: dict[str, str] = {}
    doubts: list[Doubt] = ["low"]
    for raw, (name, how) in names.items():
        if raw in background:
            continue
        found, comment, doubt = resolve(name, context, ontology, alone=len(names) == 1)
        labels[raw] = found
        if how == "told":
            seen = coding.type not in ("index", "values") or raw in coding.values
            comment, doubt = ("", "low") if seen else (_UNSEEN, "medium")
        if comment:
            comments[raw] = comment
        doubts.append(doubt)
    sources = sorted({how for _, how in names.values() if how}) or ["nothing in the data"]
    sources = ["--labels" if how == "told" else how for how in sources]
    unsure = f"; {len(comments)} of {len(labels)} in doubt" if comments else ""
    unused = [raw for raw in given if raw not in names]
    comments |= dict.fromkeys(unused, _UNSEEN)
    doubts += ["medium"] * bool(unused)
    return Labels(
        labels=labels,
        comments=comments,
        background=background,
        evidence=f"names from {', '.join(sources)}{unsure}",
        doubt=worst(*doubts),
    )


def _fits(statement: Statement, coding: Coding) -> bool:
    """Whether a document's labels can be those of the files."""
    if not statement.labels or statement.kind not in ("msd", "nnunet"):
        return False
    if coding.type == "binary":
        return "1" in statement.labels
    return bool(set(coding.values) & set(statement.labels))


def _raw_labels(
    coding: Coding, stated: Statement | None, told: Mapping[str, str]
) -> Iterator[str]:  # fmt: skip
    values = list(coding.values)
    if coding.type in ("binary", "instance_ids", "file_per_instance") and len(told) == 1:
        values = list(told)
    elif coding.type in ("index", "values"):
        stated_values = [] if stated is None else [v for v in stated.labels if v != "0"]
        values = sorted({*values, *stated_values, *told}, key=_number)
    yield from dict.fromkeys([*values, *(t for t in told if coding.type == "rgb")])


def _number(raw: str) -> tuple[int, str]:
    return (int(raw), "") if raw.lstrip("-").isdigit() else (1 << 30, raw)


def resolve(
    name: str, context: Sequence[str], ontology: Ontology, *, alone: bool
) -> tuple[str, str, Doubt]:
    """(structure, comment, doubt) for a name; an empty name is guessed from the context."""
    if name:
        for spelling in _spellings(name):
            if knows(ontology, spelling):
                return _same_or_synonym(name, _name(ontology, spelling))
        for place in context:
            for joined in (f"{place}_{name}", f"{name}_{place}", f"{place} {name}"):
                joined = joined.lower()
                if knows(ontology, joined):
                    return _name(ontology, joined), f"{name!r} of {place!r}", "medium"
        part = _part(name, ontology)
        if part:
            return part, f"{name!r} is no structure; guessed from a part of the name", "high"
        near = nearest(name, {*ontology.structures, *ontology.spellings})
        hint = near if near.startswith("did") else "name one with --labels"  # else: any twelve
        return UNNAMED, f"{name!r} is no structure; {hint}", "high"
    if alone:
        for place in context:
            part = _part(place, ontology)
            if part:
                return part, f"guessed from the name {place!r}", "high"
    return UNNAMED, "no name was found", "high"


# ROI names by convention of radiotherapy: Lung_L, R_Kidney
_SIDES = {"l": "left", "lt": "left", "r": "right", "rt": "right"}


def _spellings(name: str) -> list[str]:
    """A name as written, with its words apart, and with its side at the end."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).replace(".", "_")
    words = [w for w in re.split(r"[\s_\-]+", apart.lower()) if w]
    words = [_SIDES.get(w, w) for w in words]
    sides = [w for w in words if w in ("left", "right")]
    moved = "_".join([w for w in words if w not in sides] + sides)
    return [name, apart, moved]


def _same_or_synonym(name: str, structure: str) -> tuple[str, str, Doubt]:
    """A name of the same words is sure; a synonym is said."""
    words = re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    if sorted(words) == sorted(re.findall(r"[a-z]+|\d+", structure.lower())):
        return structure, "", "low"
    return structure, f"{name!r} is read as {structure}", "medium"


def knows(ontology: Ontology, name: str) -> bool:
    """Whether a name stands for one structure that can be drawn."""
    try:
        return ontology.resolve(name).kind != "ignore"
    except CatalogError:
        return False


def _name(ontology: Ontology, name: str) -> str:
    return ontology.resolve(name).name


def _part(name: str, ontology: Ontology) -> str:
    """A structure that a run of words of the name stands for, longest first."""
    silent = LABEL_WORDS | IMAGE_WORDS | SEQUENCE_WORDS
    words = [w for t in tokens(name) for w in re.findall(r"[A-Za-z]{3,}", t)]
    words = [w.lower() for w in words if w.lower() not in silent]
    for n in range(len(words), 0, -1):
        for k in range(len(words) - n + 1):
            run = "_".join(words[k : k + n])
            if run not in _PLACES and knows(ontology, run):
                return _name(ontology, run)
    return ""
