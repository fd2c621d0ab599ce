"""Path patterns of the catalogue: ``{field}``, ``*``, ``**``, ``?``, ``[a-z]``, trailing ``/``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(r"\{(\w+)\}|(\*\*/)|(\*\*)|(\*)|(\?)|(\[[^\]/]+\])")


@dataclass(frozen=True, kw_only=True)
class PathPattern:
    """A compiled pattern.

    Attributes:
        text: as written in the entry.
        fields: names in braces, in order of first use.
        is_folder: the pattern names a folder (a DICOM series), not a file.
        regex: matches a whole relative POSIX path; one named group a field.
        steps: one regex a path part, None = any number of parts.
    """

    text: str
    fields: tuple[str, ...]
    is_folder: bool
    regex: re.Pattern[str]
    steps: tuple[re.Pattern[str] | None, ...]

    def fields_of(self, relative: str) -> dict[str, str] | None:
        """Values of the fields in a path, or None if the path does not match."""
        found = self.regex.fullmatch(relative)
        return None if found is None else found.groupdict()


def compile_pattern(text: str, known: Sequence[str] = ()) -> PathPattern:
    """Compile a pattern.

    Args:
        text: the pattern.
        known: values that ``{structure}`` may take; they settle where it ends when other fields
            stand beside it in one file name. Empty = one path part of any text.
    """
    is_folder = text.endswith("/")
    body = text.rstrip("/")
    names = [m[1] for m in _TOKEN.finditer(body) if m[1]]
    structure = "|".join(re.escape(k) for k in sorted(known, key=len, reverse=True)) or "[^/]+"
    seen: set[str] = set()
    parts = body.split("/")
    others = [_other_fields(part, known) for part in parts]
    steps = tuple(
        None if part == "**" else re.compile(_translate(part, {}, structure, other))
        for part, other in zip(parts, others, strict=True)
    )
    # "**/" spans parts, so a part takes its slash along.
    ended = [part + "/" for part in parts[:-1]] + parts[-1:]
    regex = re.compile(
        "".join(_translate(t, seen, structure, o) for t, o in zip(ended, others, strict=True))
    )
    fields = tuple(dict.fromkeys(names))
    return PathPattern(text=text, fields=fields, is_folder=is_folder, regex=regex, steps=steps)


def _other_fields(part: str, known: Sequence[str]) -> str:
    """Regex of the fields of a path part that are not the structure.

    Beside a known structure they are short, so that 'lung_left' is never split at 'lung'.
    """
    return "[^/]+?" if known and "{structure}" in part else "[^/]+"


def glob_regex(globs: Iterable[str]) -> re.Pattern[str] | None:
    """One regex for a list of globs on whole relative paths, or None for an empty list."""
    parts = [f"(?:{_translate(g.rstrip('/'), {}, '[^/]+', '[^/]+')})" for g in globs]
    return re.compile("|".join(parts)) if parts else None


def _translate(text: str, seen: set[str] | dict[str, str], structure: str, other: str) -> str:
    """Regex of a pattern; ``seen`` as a set makes groups with back-references, a dict none."""
    out, end = [], 0
    for token in _TOKEN.finditer(text):
        out.append(re.escape(text[end : token.start()]))
        end = token.end()
        name, any_folders, any_tail, star, one, chars = token.groups()
        if name:
            value = f"(?:{structure})" if name == "structure" else other
            if isinstance(seen, dict):
                out.append(value)
            elif name in seen:
                out.append(f"(?P={name})")
            else:
                seen.add(name)
                out.append(f"(?P<{name}>{value})")
        elif chars:
            out.append(chars.replace("[!", "[^"))
        else:
            out.append(
                "(?:[^/]+/)*" if any_folders else ".*" if any_tail else "[^/]*" if star else "[^/]"
            )
    out.append(re.escape(text[end:]))
    return "".join(out)


def walk_matching(root: Path, patterns: Sequence[PathPattern]) -> Iterator[tuple[str, bool]]:
    """Walk a tree once, only into folders that some pattern can still match.

    Hidden names (a leading dot, also ``._*`` of macOS) are skipped. Yields (relative POSIX path,
    is folder) in sorted order, for files and folders that a pattern of that kind may match; the
    caller applies the whole regex.
    """
    start = frozenset((i, 0) for i in range(len(patterns)))
    yield from _walk(root, "", patterns, start, frozenset())


_States = frozenset[tuple[int, int]]


def _walk(
    folder: Path,
    prefix: str,
    patterns: Sequence[PathPattern],
    states: _States,
    above: frozenset[str],
) -> Iterator[tuple[str, bool]]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda e: e.name)
    except NotADirectoryError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        after, ends = _advance(entry.name, patterns, states)
        relative = prefix + entry.name
        if not after and not ends:
            continue
        is_folder = entry.is_dir()
        if any(patterns[i].is_folder == is_folder for i in ends):
            yield relative, is_folder
        if is_folder and after:
            seen = behind(entry, folder, above)
            if seen is not None:
                yield from _walk(Path(entry.path), relative + "/", patterns, after, seen)


def behind(
    entry: os.DirEntry[str], folder: Path | str, above: frozenset[str]
) -> frozenset[str] | None:
    """``above`` and where an entry of ``folder`` leads if it is a link.

    None for a link to a folder that holds it, or to one passed already: it would never end.
    """
    if not entry.is_symlink():
        return above
    real = os.path.realpath(entry.path)
    return None if real in above or is_above(real, folder) else above | {real}


def is_above(real: str, folder: Path | str) -> bool:
    """Whether a resolved path is a folder or one that holds it."""
    return Path(os.path.realpath(folder)).is_relative_to(real)


def _advance(
    name: str, patterns: Sequence[PathPattern], states: _States
) -> tuple[_States, set[int]]:
    """States after one path part, and the patterns that may end with it."""
    after: set[tuple[int, int]] = set()
    ends: set[int] = set()
    todo = list(states)
    while todo:
        i, k = todo.pop()
        steps = patterns[i].steps
        if k >= len(steps):
            continue
        step = steps[k]
        if step is None:
            after.add((i, k))
            if k + 1 == len(steps):
                ends.add(i)
            todo.append((i, k + 1))
        elif step.fullmatch(name):
            if k + 1 == len(steps):
                ends.add(i)
            else:
                after.add((i, k + 1))
    return frozenset(after), ends
