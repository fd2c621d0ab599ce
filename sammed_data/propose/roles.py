"""Which items are images and which hold labels: by DICOM header, by name, by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sammed_data.propose.carriers import Item, Role
from sammed_data.propose.formats import Look, look
from sammed_data.propose.names import parse, skeleton
from sammed_data.types import SammedError

T = TypeVar("T")
_MAX_POOLS, _LOOKS_A_POOL = 60, 3


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What was found out about each item.

    Attributes:
        role: path -> image or label.
        conflicts: sentences where name and content disagree.
        looks: the files that were read.
        unreadable: (path, why).
    """

    role: Mapping[str, Role]
    conflicts: tuple[str, ...]
    looks: Mapping[str, Look]
    unreadable: tuple[tuple[str, str], ...]


def ranked(things: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """Things by the hash of their names: the same on every call, not all from one end."""
    return sorted(things, key=lambda t: hashlib.sha256(name(t).encode()).digest())


def spread(items: Sequence[Item], n: int) -> list[Item]:
    """Up to n items."""
    return ranked(items, lambda i: i.path)[:n]


def find_roles(root: Path, items: Sequence[Item]) -> Roles:
    """Decide image or label for all items; files are read by sample, a pool of like names at once.

    Content wins over names where it is decisive, since names like ``Image_01L_1stHO`` mislead.
    """
    role: dict[str, Role] = {}
    looks: dict[str, Look] = {}
    conflicts: list[str] = []
    bad: list[tuple[str, str]] = []
    for item in items:
        if item.kind in ("dicom", "seg", "rtstruct"):
            role[item.path] = "image" if item.kind == "dicom" else "label"
    for members in _pools([i for i in items if i.path not in role]):
        sampled = _sample(root, members, looks, bad)
        seen = {r for look_ in sampled if (r := look_.role) is not None}
        named = {s for m in members if (s := parse(m.path).says)}
        first = members[0].path
        if len(seen) == 1:
            decided = seen.pop()
            if named == {"label"} and decided == "image":
                conflicts.append(
                    f"{first} is called a mask ({parse(first).role_word!r}) but holds many values"
                )
        else:
            decided = "label" if named == {"label"} else "image"
            if len(seen) > 1:
                conflicts.append(f"files like {first} look partly like masks, partly like images")
        role.update((m.path, decided) for m in members)
    return Roles(role=role, conflicts=tuple(conflicts), looks=looks, unreadable=tuple(bad))


def _pools(items: Sequence[Item]) -> list[list[Item]]:
    """Items of one skeleton; of one folder skeleton and name role where names follow no rule."""
    fine: dict[str, list[Item]] = {}
    for item in items:
        fine.setdefault(skeleton(item.path), []).append(item)
    if len(fine) <= _MAX_POOLS:
        return list(fine.values())
    coarse: dict[tuple[str, str, str], list[Item]] = {}
    for key, members in fine.items():
        name = parse(members[0].path)
        place = (key.rpartition("/")[0], name.suffix, name.says)
        coarse.setdefault(place, []).extend(members)
    if len(coarse) <= _MAX_POOLS:
        return list(coarse.values())
    coarsest: dict[tuple[str, str], list[Item]] = {}
    for (_, suffix, says), members in coarse.items():
        coarsest.setdefault((suffix, says), []).extend(members)
    return list(coarsest.values())


def _sample(
    root: Path, members: Sequence[Item], looks: dict[str, Look], bad: list[tuple[str, str]]
) -> list[Look]:
    """Looks at a few members; unreadable ones are replaced by others, up to a point."""
    found: list[Look] = []
    for item in spread(members, 4 * _LOOKS_A_POOL):
        if len(found) == _LOOKS_A_POOL:
            break
        try:
            seen = look(root, item)
        except SammedError as err:
            bad.append((item.path, str(err).replace(f"{root}/", "")))
            continue
        if seen is not None:
            looks[item.path] = seen
            found.append(seen)
    return found
