"""The official split of one's own data: a table, globs, a pattern, or folders of these names."""

from __future__ import annotations

import csv
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sammed_data.patterns import compile_pattern, glob_regex
from sammed_data.propose.align import escape
from sammed_data.propose.carriers import Doubt, Inference, worst
from sammed_data.propose.names import parse, split_word, without_channel, word_set
from sammed_data.types import CatalogError, UsageError, nearest

SPLIT_WORDS = {
    "tr": "train", "va": "validation", "ts": "test", "te": "test",
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_ORDER = ("train", "validation", "test")
_KEYS = word_set(
    "patient patient_id patientid subject subject_id case case_id caseid id image image_id imageid "
    "file filename file_name path name scan study"
)
_SPLIT_KEYS = word_set("split set subset partition fold phase")
_MAX_TABLE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A split of images: name -> globs of an entry; with what it was inferred from."""

    globs: Mapping[str, Sequence[str]]
    evidence: str
    doubt: Doubt


def find_splits(told: str | None, paths: Sequence[str], patient: str, root: Path) -> Splits | None:
    """The official split of images, None where there is none.

    Args:
        told: ``none``, a CSV file, ``test=GLOB,GLOB;train=GLOB``, or a pattern with ``{split}``.
        paths: of the images, below the root.
        patient: regular expression of the patient key.
        root: where a table may lie too.

    Raises:
        UsageError: ``told`` cannot be used, or names none of these images.
    """
    paths = sorted({p.rstrip("/") for p in paths})
    if told is None:
        found = _of_folders(paths)
    elif told.strip().lower() == "none":
        return None
    elif (table := next((p for p in (Path(told), root / told) if p.is_file()), None)) is not None:
        found = _of_table(table, told, paths, patient)
    elif "{split}" in told:
        found = _of_pattern(told, paths)
    elif "=" in told:
        found = _of_globs(told)
    else:
        raise UsageError(
            f"--splits {told!r}: expected a CSV file with a column of cases or patients and one "
            "called split, or 'test=GLOB,GLOB;train=GLOB', or a path pattern with {split} such as "
            "'{split}/**', or none; found no such file"
        )
    return None if found is None else _counted(found, told, paths, patient)


def splits_inference(found: Splits | None, told: str | None) -> Inference | None:
    """What is said of a split; None where there is none and nothing was said."""
    if found is None:
        return None
    value = ", ".join(found.globs)
    return Inference(key="splits", value=value, evidence=found.evidence, doubt=found.doubt,
                     flag="" if told is not None else "--splits")  # fmt: skip


def _counted(found: Splits, told: str | None, paths: Sequence[str], patient: str) -> Splits:
    """Say how many images each split has, which have none, and which patients lie in two."""
    rules = {s: glob_regex(g) for s, g in found.globs.items()}
    split_of: dict[str, str] = {}
    for path in paths:
        named = [s for s, rule in rules.items() if rule is not None and rule.fullmatch(path)]
        if len(named) > 1:
            raise UsageError(f"--splits {told!r}: {path} is in {' and '.join(named)}; name it once")
        split_of |= dict.fromkeys([path] if named else [], named[0] if named else "")
    if not split_of:
        raise UsageError(
            f"--splits {told!r}: it names none of the {len(paths)} images, such as {paths[0]}"
        )
    counts = Counter(split_of.values())
    said = [found.evidence, ", ".join(f"{counts[s]} {s}" for s in _ORDER if s in found.globs)]
    doubt = found.doubt
    if len(split_of) < len(paths):
        said.append(f"{len(paths) - len(split_of)} images in none: their patients' hash decides")
        doubt = worst(doubt, "medium")
    torn = _torn(split_of, patient)
    if torn:
        said.append(
            f"{len(torn)} patients lie in two splits, such as {torn[0]}: a build puts all of a "
            "patient in test, else validation"
        )
        doubt = worst(doubt, "medium" if told is not None else "high")
    return replace(found, evidence="; ".join(said), doubt=doubt)


def _torn(split_of: Mapping[str, str], patient: str) -> list[str]:
    splits: dict[str, set[str]] = {}
    for path, split in split_of.items():
        match = re.search(patient, path)
        if match is not None:
            splits.setdefault("_".join(g or "" for g in match.groups()), set()).add(split)
    return sorted(key for key, found in splits.items() if len(found) > 1)


def _of_folders(paths: Sequence[str]) -> Splits | None:
    """Folders called train, val or test: two of them at one depth."""
    parts = [p.split("/") for p in paths]
    for k in range(min(len(p) for p in parts) - 1 if parts else 0):
        names = sorted({p[k] for p in parts})
        words = {n: SPLIT_WORDS[w.lower()] for n in names if (w := split_word(n))}
        if len(set(words.values())) < 2:
            continue
        globs: dict[str, list[str]] = {}
        for name, split in words.items():
            globs.setdefault(split, []).append("*/" * k + f"{escape(name)}/**")
        others = [n for n in names if n not in words]
        if others:
            said = f"; {', '.join(others[:3])} {'are' if len(others) > 1 else 'is'} no split"
            return Splits(globs=_in_order(globs), doubt="high",
                          evidence=f"folders {', '.join(words)}{said}")  # fmt: skip
        said = f"folders {', '.join(words)}, taken as the official split"
        return Splits(globs=_in_order(globs), doubt="medium", evidence=said)
    return None


def _of_pattern(told: str, paths: Sequence[str]) -> Splits:
    try:
        pattern = compile_pattern(told)
    except CatalogError as err:
        raise UsageError(f"--splits {told!r}: {err}") from err
    words = {f["split"] for p in paths if (f := pattern.fields_of(p)) is not None}
    if not words:
        raise UsageError(f"--splits {told!r}: it matches no image path, such as {paths[0]}")
    globs: dict[str, list[str]] = {}
    for word in sorted(words):
        text = re.sub(r"\{\w+\}", "*", told.replace("{split}", escape(word)))
        globs.setdefault(_split_named(word, told), []).append(text)
    return Splits(globs=_in_order(globs), evidence=f"told: {told}", doubt="low")


def _of_globs(told: str) -> Splits:
    globs: dict[str, list[str]] = {}
    for part in filter(None, (p.strip() for p in told.split(";"))):
        name, _, text = part.partition("=")
        found = [g.strip() for g in text.split(",") if g.strip()]
        globs.setdefault(_split_named(name, told), []).extend(found)
    return Splits(globs=_in_order(globs), evidence="told", doubt="low")


def _of_table(path: Path, told: str, paths: Sequence[str], patient: str) -> Splits:
    column, rows = _rows(path, told)
    wanted: dict[str, str] = {}
    for key, word in rows:
        split = _split_named(word, told)
        if wanted.setdefault(key, split) != split:
            raise UsageError(f"--splits {told!r}: {key} is in {wanted[key]} and in {split}")
    split_of, used = {}, set()
    for image in paths:
        found = [n for n in _names_of(image, patient) if n in wanted]
        splits = {wanted[n] for n in found}
        if len(splits) > 1:
            raise UsageError(f"--splits {told!r}: {', '.join(found)} are the image {image}, and "
                             f"in {' and '.join(sorted(splits))}")  # fmt: skip
        if splits:
            split_of[image] = splits.pop()
            used.update(found)
    if not split_of:
        raise UsageError(
            f"--splits {told!r}: no image has a name in the column {column!r} (such as "
            f"{next(iter(wanted))!r}); the image {paths[0]} is called "
            f"{' or '.join(_names_of(paths[0], patient))}"
        )
    strange = sorted(set(wanted) - used)
    said = f"the column {column!r} of {path.name}"
    if strange:
        said += f"; {len(strange)} of its {len(wanted)} names are no image, such as {strange[0]}"
    doubt: Doubt = "medium" if strange else "low"
    return Splits(globs=_in_order(_globs_of(split_of, patient, paths)), evidence=said, doubt=doubt)


def _names_of(image: str, patient: str) -> list[str]:
    """What a table may call an image: path, file name, stem, patient key."""
    name = parse(image)
    found = re.search(patient, image)
    key = "_".join(g or "" for g in found.groups()) if found else ""
    case = parse(without_channel(image)).stem
    names = (image, PurePosixPath(image).name, name.stem, case, key)
    return list(dict.fromkeys(n for n in names if n))


def _rows(path: Path, told: str) -> tuple[str, list[tuple[str, str]]]:
    """(column of names, (name, word) of each line)."""
    try:
        if path.stat().st_size > _MAX_TABLE_BYTES:
            raise UsageError(f"--splits {told!r}: expected a table of at most 64 MB")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"--splits {told!r}: expected a CSV file, but {err}") from err
    separator = max(",;\t", key=lines[0].count) if lines else ","
    rows = [[c.strip() for c in row] for row in csv.reader(lines, delimiter=separator) if any(row)]
    header = [c.lower() for c in rows[0]] if rows else []
    key = next((k for k, c in enumerate(header) if c in _KEYS), None)
    split = next((k for k, c in enumerate(header) if c in _SPLIT_KEYS), None)
    if key is None or split is None:
        raise UsageError(
            f"--splits {told!r}: expected a first line with a column of cases or patients (case, "
            f"patient, image, file, ...) and one called split, found {', '.join(header) or 'none'}"
        )
    return rows[0][key], [(r[key], r[split]) for r in rows[1:] if len(r) > max(key, split)]


def _split_named(word: str, told: str) -> str:
    found = SPLIT_WORDS.get(word.strip().lower())
    if found is None:
        raise UsageError(
            f"--splits {told!r}: expected train, validation or test, found {word.strip()!r}; "
            f"{nearest(word.strip(), SPLIT_WORDS)}"
        )
    return found


def _globs_of(
    split_of: Mapping[str, str], patient: str, paths: Sequence[str]
) -> dict[str, list[str]]:
    """Globs of images: of a patient's paths at once, where no other split shares them."""
    ranked = sorted(paths)
    globs: dict[str, list[str]] = {}
    for path, split in split_of.items():
        found = re.search(patient, path)
        end = found.end(found.lastindex or 0) if found else len(path)
        begin = path[:end]
        first, last = bisect_left(ranked, begin), bisect_left(ranked, begin + chr(0x10FFFF))
        alone = {split_of.get(p, "") for p in ranked[first:last]} == {split}
        globs.setdefault(split, []).append(_glob(path, end) if alone else escape(path))
    return {s: list(dict.fromkeys(g)) for s, g in globs.items()}


def _glob(path: str, end: int) -> str:
    """All paths that begin like this one up to ``end``."""
    begin, rest = escape(path[:end]), path[end:]
    if not rest:
        return begin
    if rest.startswith("/"):
        return begin + "/**"
    return begin + ("*/**" if "/" in rest else "*")


def _in_order(globs: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    return {s: list(globs[s]) for s in _ORDER if s in globs}
