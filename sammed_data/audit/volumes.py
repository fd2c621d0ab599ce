"""Cases by the fingerprints that the build made of their raw voxels, before any slice is looked at.

Equal voxels are certain. Near signatures are only proposals: pictures of the two cases must agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit import planted
from sammed_data.audit.confirm import compare
from sammed_data.audit.duplicates import how
from sammed_data.audit.findings import Pair
from sammed_data.audit.fingerprints import (
    CROP,
    CaseMark,
    flip_masks,
    grey,
    volume_signature,
)
from sammed_data.audit.gathered import Gathered
from sammed_data.audit.near import VOLUME_BITS, distances, search
from sammed_data.shards import case_marks

VOLUME_LIMIT = 44
_SLICES = 6
_STACKS, _MIN_STACK = 12, 8
# Proposals are confirmed by pictures whose signatures may differ a little more than in the search.
_LOOSE = 80


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Fingerprints of the cases that have rows; ``without`` counts shards that hold none."""

    by_case: dict[int, CaseMark]
    without: int


def read_marks(found: Gathered) -> Marks:
    """The fingerprints in the footers of the shards."""
    numbers = {(c.dataset, c.split, c.case_id): n for n, c in enumerate(found.cases)}
    by_case: dict[int, CaseMark] = {}
    without = 0
    for shard in found.corpus.shards:
        marks = case_marks(shard)
        without += marks is None
        dataset, split = shard.name.rsplit("-", 1)[0], shard.parent.name
        for mark in marks or ():
            number = numbers.get((dataset, split, mark.case_id))
            if number is not None:
                by_case[number] = mark
    return Marks(by_case=by_case, without=without)


def same_voxels(found: Gathered, marks: Marks) -> dict[tuple[int, int], Pair]:
    """Cases of different patients whose raw voxels are equal; chains, not all pairs."""
    groups: dict[str, list[int]] = {}
    for number, mark in sorted(marks.by_case.items()):
        groups.setdefault(mark.voxels_blake3, []).append(number)
    pairs = {}
    for members in groups.values():
        for a, b in zip(members, members[1:], strict=False):
            if found.group_C[a] != found.group_C[b]:
                pairs[a, b] = Pair(
                    kind="same voxels", a=found.cases[a], b=found.cases[b],
                    slices=min(len(found.rows_of(a)), len(found.rows_of(b))),
                    places=(_middle(found, a), _middle(found, b)),
                )  # fmt: skip
    return pairs


def _middle(found: Gathered, case: int) -> tuple[int, int]:
    rows = found.rows_of(case)
    return found.place(int(rows[len(rows) // 2]))


def near_volumes(
    found: Gathered, marks: Marks, known: Callable[[tuple[int, int]], bool]
) -> tuple[dict[tuple[int, int], Pair], int]:
    """Pairs of volumes with near signatures that their pictures confirm; and how many were tried.

    ``known`` pairs are not looked at again.
    """
    numbers = [n for n, m in sorted(marks.by_case.items()) if m.signature]
    if len(numbers) < 2:
        return {}, 0
    words = np.stack([marks.by_case[n].words() for n in numbers])
    groups = found.group_C[numbers]
    near = search(
        words, words[:, None], flip_masks(3), groups, robust=VOLUME_BITS, limit=VOLUME_LIMIT
    )
    views = found.views(len(found.rows_N))
    pairs: dict[tuple[int, int], Pair] = {}
    tried = 0
    for probe, hit in zip(near.probe.tolist(), near.hit.tolist(), strict=True):
        a, b = sorted((numbers[probe], numbers[hit]))
        if known((a, b)):
            continue
        tried += 1
        pair = _by_pictures(found, views, a, b)
        if pair is not None:
            pairs[a, b] = pair
    return pairs, tried


def _by_pictures(found: Gathered, views: NDArray[np.uint64], a: int, b: int) -> Pair | None:
    """Half of some evenly spread pictures of the one must be found in the other."""
    rows_a, rows_b = found.rows_of(a), found.rows_of(b)
    chosen = rows_a[np.unique(np.linspace(0, len(rows_a) - 1, _SLICES).round().astype(int))]
    alike, best = 0, None
    for row in chosen.tolist():
        seen = views[row][:, None] ^ flip_masks(2)[None]
        bits = distances(seen[None], views[rows_b, 0][:, None, None])
        at, view, flip = np.unravel_index(int(bits.argmin()), bits.shape)
        if bits.min() > _LOOSE:
            continue
        other = int(rows_b[at])
        found_alike = compare(found.image(row), found.image(other), view=int(view), flip=int(flip))
        if found_alike.same:
            alike += 1
            if best is None or found_alike.detail > best[0].detail:
                best = (found_alike, row, other, int(view), int(flip))
    if best is None or 2 * alike < len(chosen):
        return None
    likeness, row, other, view_, flip_ = best
    return Pair(
        kind="same volume", a=found.cases[a], b=found.cases[b], how=how(view_, flip_),
        slices=alike, whole=likeness.whole, detail=likeness.detail,
        places=(found.place(row), found.place(other)),
    )  # fmt: skip


def volume_recalls(found: Gathered) -> tuple[planted.Recall, ...]:
    """How many volumes, restacked from stored slices and altered, keep a near signature."""
    stacks = _stacks(found)
    recalls = []
    for kind, alter in _VOLUME_ALTERATIONS.items():
        hits = 0
        for number, stack in enumerate(stacks):
            rng = np.random.default_rng([number, len(kind)])
            changed = volume_signature(alter(stack, rng)) ^ flip_masks(3)
            hits += int(distances(volume_signature(stack), changed).min()) <= VOLUME_LIMIT
        recalls.append(planted.Recall(kind=kind, planted=len(stacks), found=hits))
    return tuple(recalls)


def _stacks(found: Gathered) -> list[NDArray[np.uint8]]:
    sizes = np.bincount(found.rows_N["case"], minlength=len(found.cases))
    large = np.flatnonzero(sizes >= _MIN_STACK)
    first = found.rows_N["sample"][[found.rows_of(int(c))[0] for c in large]]
    stacks: list[NDArray[np.uint8]] = []
    for case in large[np.argsort(first)].tolist():
        rows = found.rows_of(case)
        rows = rows[np.argsort(found.rows_N["slice"][rows], kind="stable")]
        shape = found.image(int(rows[0])).shape
        planes = [p for r in rows.tolist() if (p := found.image(r)).shape == shape]
        if len(planes) >= _MIN_STACK:
            stacks.append(np.stack([grey(p) for p in planes]))
        if len(stacks) == _STACKS:
            break
    return stacks


Stack = NDArray[np.uint8]


def _each(alter: planted.Alteration) -> Callable[[Stack, np.random.Generator], Stack]:
    """The same alteration of every slice."""

    def run(stack: Stack, rng: np.random.Generator) -> Stack:
        seed = int(rng.integers(1 << 31))
        return np.stack([alter(plane, np.random.default_rng(seed)) for plane in stack])

    return run


def _cropped(stack: Stack, rng: np.random.Generator) -> Stack:
    places = []
    for side in stack.shape:
        start = round(rng.uniform(0, CROP) * side)
        places.append(slice(start, start + max(1, round(side * (1 - CROP)))))
    return stack[tuple(places)]


def _flipped(stack: Stack, rng: np.random.Generator) -> Stack:
    turned = [bool(n) for n in rng.integers(0, 2, 3)]
    return stack[tuple(slice(None, None, -1 if t else 1) for t in (True, *turned[1:]))]


_VOLUME_ALTERATIONS: dict[str, Callable[[Stack, np.random.Generator], Stack]] = {
    "re-encoded": _each(planted.reencoded),
    "resized": _each(planted.resized),
    "windowed": _each(planted.windowed),
    "cropped by 6 %": _cropped,
    "flipped": _flipped,
}
