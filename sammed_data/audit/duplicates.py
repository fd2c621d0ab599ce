"""Pairs of cases that are the same: by voxels, by pixels, and near, with planted copies beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit import planted
from sammed_data.audit.confirm import Likeness, compare
from sammed_data.audit.findings import Pair
from sammed_data.audit.fingerprints import FLIPS, flip_masks, signatures, thumbnail
from sammed_data.audit.gathered import Gathered
from sammed_data.audit.near import TABLES, Near, search

_TRIES = 3  # pictures of a pair of cases that are looked at
Progress = Callable[[str, int, int], object]


@dataclass
class Found:
    """What the search of pictures gives.

    Attributes:
        pairs: (case, case) -> the pair.
        hits: planted copies found, by kind.
        right, wrong: confirmed pairs of planted copies.
    """

    pairs: dict[tuple[int, int], Pair] = field(default_factory=dict)
    copies: tuple[planted.Planted, ...] = ()
    hits: set[int] = field(default_factory=set)
    right: int = 0
    wrong: int = 0
    crowded: int = 0
    candidates: int = 0
    confirmed: int = 0

    def recalls(self) -> tuple[planted.Recall, ...]:
        """Recall by kind of alteration."""
        return tuple(
            planted.Recall(
                kind=kind,
                planted=sum(c.kind == kind for c in self.copies),
                found=sum(self.copies[n].kind == kind for n in self.hits),
            )
            for kind in planted.ALTERATIONS
        )


def how(view: int, flip: int) -> str:
    """What was done to one picture to see the other, in words."""
    rows, columns = FLIPS[flip]
    words = ["cropped"] if view else []
    words += ["flipped up-down"] if rows else []
    words += ["flipped left-right"] if columns else []
    return ", ".join(words)


def exact_pairs(found: Gathered) -> dict[tuple[int, int], Pair]:
    """Cases of different patients with a picture of equal pixels; chains, not all pairs."""
    alive = np.flatnonzero(found.group_N >= 0)
    digests = found.rows_N["pixels"][alive]
    order = np.argsort(digests, kind="stable")
    rows, digests = alive[order], digests[order]
    same = np.flatnonzero(digests[1:] == digests[:-1])
    pairs: dict[tuple[int, int], Pair] = {}
    for at in same:
        a, b = sorted((int(rows[at]), int(rows[at + 1])))
        if found.group_N[a] == found.group_N[b]:
            continue
        key = _case_pair(found.rows_N["case"], a, b)
        old = pairs.get(key)
        pairs[key] = (
            replace(old, slices=old.slices + 1)
            if old
            else Pair(
                kind="same pixels", a=found.cases[key[0]], b=found.cases[key[1]], slices=1,
                places=(found.place(a), found.place(b)),
            )
        )  # fmt: skip
    return pairs


def _case_pair(case_N: NDArray[Any], a: int, b: int) -> tuple[int, int]:
    first, second = sorted((int(case_N[a]), int(case_N[b])))
    return first, second


def find_pairs(found: Gathered, *, plant: int, progress: Progress, tables: int = TABLES) -> Found:
    """Search all pictures, and planted copies of some, for near ones; confirm on pixels."""
    result = Found(pairs=exact_pairs(found))
    total = len(found.rows_N)
    chosen = planted.choose(
        found.rows_N["sample"], found.dataset_C[found.rows_N["case"]], found.rows_N["flat"], plant
    )
    result.copies = tuple(
        planted.Planted(row=int(r), kind=kind, sample=int(found.rows_N["sample"][r]))
        for r in chosen
        for kind in planted.ALTERATIONS
    )
    views = found.views(total + len(result.copies))
    if result.copies:
        thumbs = [thumbnail(c.make(found.image(c.row))) for c in result.copies]
        views[total:] = signatures(np.stack(thumbs))
    case_A = np.r_[found.rows_N["case"], len(found.cases) + np.arange(len(result.copies))]
    own = found.group_C.max(initial=-1) + 1 + np.arange(len(result.copies))
    near = search(
        np.ascontiguousarray(views[:, 0]), views, flip_masks(2), np.r_[found.group_N, own],
        tables=tables, progress=lambda done, of: progress("searching pictures", done, of),
    )  # fmt: skip
    result.crowded = near.crowded
    _confirm(found, near, case_A, result, progress)
    return result


def _confirm(
    found: Gathered, near: Near, case_A: NDArray[Any], result: Found, progress: Progress
) -> None:
    """Look at the pixels of the nearest pictures of every proposed pair of cases."""
    total, n_cases = len(found.rows_N), len(found.cases)
    proposed = _by_case_pair(near, case_A, n_cases)
    result.candidates = len(proposed)
    of_copies: list[tuple[int, int]] = []
    for number, (key, members) in enumerate(proposed.items(), start=1):
        if number % 256 == 0 or number == len(proposed):
            progress("looking at pixels", number, len(proposed))
        best = _first_alike(members, near, lambda row: _picture(found, result, row, total))
        if best is None:
            continue
        result.confirmed += 1
        at, likeness = best
        if key[1] >= n_cases:
            of_copies.append(key)
            continue
        old = result.pairs.get(key)
        if old is None:
            a, b = int(near.probe[at]), int(near.hit[at])
            ordered = (a, b) if case_A[a] == key[0] else (b, a)
            result.pairs[key] = Pair(
                kind="near", a=found.cases[key[0]], b=found.cases[key[1]],
                how=how(int(near.view[at]), int(near.flip[at])), slices=len(members),
                whole=likeness.whole, detail=likeness.detail,
                places=(found.place(ordered[0]), found.place(ordered[1])),
            )  # fmt: skip
        else:
            result.pairs[key] = replace(old, slices=max(old.slices, len(members)))
    for case, copy in of_copies:
        number = copy - n_cases
        origin = int(case_A[result.copies[number].row])
        ordered_pair = (min(case, origin), max(case, origin))
        if found.group_C[case] == found.group_C[origin]:
            result.hits.add(number)
            result.right += 1
        elif ordered_pair in result.pairs:  # a copy of a copy that is there by itself
            result.right += 1
        else:
            result.wrong += 1


def _picture(found: Gathered, result: Found, row: int, total: int) -> NDArray[Any]:
    if row < total:
        return found.image(row)
    copy = result.copies[row - total]
    return copy.make(found.image(copy.row))


def _by_case_pair(
    near: Near, case_A: NDArray[Any], n_cases: int
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """(case, case) -> its pairs of pictures, nearest first; copies are not paired together."""
    a, b = case_A[near.probe], case_A[near.hit]
    low, high = np.minimum(a, b), np.maximum(a, b)
    useful = np.flatnonzero(low < n_cases)
    order = useful[np.lexsort((near.distance[useful], high[useful], low[useful]))]
    if not len(order):
        return {}
    change = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    parts = np.split(order, np.flatnonzero(change) + 1)
    return {(int(low[p[0]]), int(high[p[0]])): p for p in parts}


def _first_alike(
    members: NDArray[np.int64], near: Near, picture: Callable[[int], NDArray[Any]]
) -> tuple[int, Likeness] | None:
    for at in members[:_TRIES].tolist():
        likeness = compare(
            picture(int(near.probe[at])), picture(int(near.hit[at])),
            view=int(near.view[at]), flip=int(near.flip[at]),
        )  # fmt: skip
        if likeness.same:
            return at, likeness
    return None


def worst_first(pairs: Mapping[tuple[int, int], Pair] | Iterable[Pair]) -> Sequence[Pair]:
    """Leaks first, then across datasets, then by how many pictures are shared."""
    listed = pairs.values() if isinstance(pairs, Mapping) else pairs
    return sorted(
        listed,
        key=lambda p: (not p.leaks, p.a.dataset == p.b.dataset, -p.slices, -p.detail,
                       p.a.dataset, p.a.case_id, p.b.case_id),
    )  # fmt: skip
