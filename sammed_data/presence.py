"""Which entries may lie under a data root: one look at all names in place of one walk an entry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sammed_data import archives
from sammed_data.catalog import CatalogEntry
from sammed_data.patterns import PathPattern, compile_pattern, is_above

_AFTER_TOKENS = re.compile(r"[^{}*?\[\]/]*\Z")


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """The last part of an image pattern: a name must end with ``tail`` and match ``regex``."""

    entry: str
    is_folder: bool
    tail: str
    regex: re.Pattern[str]


def possible(entries: Mapping[str, CatalogEntry], data_root: Path) -> frozenset[str]:
    """Ids that the names under ``data_root`` do not exclude; `find_root` decides for these.

    Patterns that start with ``**/`` make `find_root` walk the whole data root, once an entry; here
    all entries share one walk, which only asks whether any name could be one of their images.
    """
    found: set[str] = set()
    pending: list[_Wanted] = []
    for entry in entries.values():
        for rule in entry.layout.images:
            wanted = _wanted(entry.id, compile_pattern(rule.pattern))
            if wanted is None:
                found.add(entry.id)
            else:
                pending.append(wanted)
    packed: set[str] = set()
    tails = _tails(pending, found)
    for prefix, name, is_folder in _names(data_root):
        if not is_folder and name.lower().endswith(archives.SUFFIXES):
            packed.update((prefix.rstrip("/"), prefix + _without_suffix(name)))
        if tails[is_folder] and name.endswith(tails[is_folder]):
            new = {w.entry for w in pending if w.is_folder == is_folder and w.regex.fullmatch(name)}
            if new - found:
                found |= new
                pending = [w for w in pending if w.entry not in found]
                tails = _tails(pending, found)
    for entry in entries.values():
        if packed & {entry.id, *entry.root}:
            found.add(entry.id)
    return frozenset(found)


def _wanted(entry: str, pattern: PathPattern) -> _Wanted | None:
    last = pattern.steps[-1]
    if last is None:
        return None
    tail = _AFTER_TOKENS.search(pattern.text.rstrip("/"))
    return _Wanted(
        entry=entry, is_folder=pattern.is_folder, tail=tail[0] if tail else "", regex=last
    )


def _tails(pending: list[_Wanted], found: set[str]) -> dict[bool, tuple[str, ...]]:
    """What a name of interest ends with: `str.endswith` settles most names at once."""
    return {
        kind: tuple({w.tail for w in pending if w.is_folder == kind and w.entry not in found})
        for kind in (True, False)
    }


def _names(root: Path) -> Iterator[tuple[str, str, bool]]:
    """(folder relative to the root with a slash, name, is folder); hidden names are left out."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in list(folders):
            path = str(Path(folder) / name)
            if Path(path).is_symlink():  # a link to a folder above would never end
                real = os.path.realpath(path)
                if real in seen or is_above(real, folder):
                    folders.remove(name)
                seen.add(real)
        relative = Path(folder).relative_to(root).as_posix()
        prefix = "" if relative == "." else relative + "/"
        yield from ((prefix, name, True) for name in folders)
        yield from ((prefix, name, False) for name in files if not name.startswith("."))


def _without_suffix(name: str) -> str:
    suffix = next(s for s in sorted(archives.SUFFIXES, key=len, reverse=True)
                  if name.lower().endswith(s))  # fmt: skip
    return name[: -len(suffix)]
