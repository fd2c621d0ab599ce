"""All near pairs among millions of signatures: sampled-bit tables, then the whole distance.

One table at a time is in memory (sorted by some 14 to 22 of the 99 most robust bits); probes are
every picture seen through every crop and flip. Pairs of one group (a patient, else a case) are not
looked at: neighbouring slices of a volume are not duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIMIT = 56
TABLES = 16
_CROWD = 256  # entries of one bucket that are looked at
_BLOCK = 1 << 18
_EXPAND = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Near:
    """Pairs within the limit, each once, the nearest way of seeing it.

    Attributes:
        probe: index of the picture that was cropped and flipped.
        hit: index of the picture it was compared with.
        view: which window of the probe.
        flip: which flip of the probe.
        distance: bits that differ.
        crowded: probes whose bucket held more than was looked at.
    """

    probe: NDArray[np.int64]
    hit: NDArray[np.int64]
    view: NDArray[np.int16]
    flip: NDArray[np.int16]
    distance: NDArray[np.int16]
    crowded: int


def key_bits(n: int) -> int:
    """Bits of a table's key: enough that a bucket is short, few enough that near ones meet."""
    return int(np.clip(np.ceil(np.log2(max(n, 2))) + 2, 14, 22))


def robust_bits(shape: tuple[int, ...], below: tuple[int, ...]) -> NDArray[np.int64]:
    """Numbers of the bits whose term is low along every axis, without the constant one."""
    places = np.unravel_index(np.arange(int(np.prod(shape))), shape)
    low = np.all([p < b for p, b in zip(places, below, strict=True)], axis=0)
    return np.asarray(np.flatnonzero(low)[1:])


PICTURE_BITS = robust_bits((16, 16), (10, 10))
VOLUME_BITS = robust_bits((4, 8, 8), (4, 6, 6))


def chosen_bits(table: int, bits: int, robust: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bit numbers of one table: drawn without repeats, the same in every run."""
    order = np.random.default_rng([table, 20231]).permutation(len(robust))
    return np.asarray(robust[order[:bits]])


def _keys(words: NDArray[np.uint64], bits: NDArray[np.int64]) -> NDArray[np.uint32]:
    """(...,) keys from (..., 4) words; bit 0 is the first that `packbits` wrote."""
    found = np.zeros(words.shape[:-1], np.uint32)
    for bit in bits.tolist():
        byte, within = divmod(bit, 8)
        word, place = divmod(byte, 8)
        shift = np.uint64(8 * place + 7 - within)
        found <<= np.uint32(1)
        found |= ((words[..., word] >> shift) & np.uint64(1)).astype(np.uint32)
    return found


def distances(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Bits that differ, over the last axis of words."""
    return np.asarray(np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.int64))


def search(
    index_N4: NDArray[np.uint64],
    probes_NV4: NDArray[np.uint64],
    flips_F4: NDArray[np.uint64],
    group_N: NDArray[np.int64],
    *,
    robust: NDArray[np.int64] = PICTURE_BITS,
    limit: int = LIMIT,
    tables: int = TABLES,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Near:
    """Pairs (probe, hit) of different groups within ``limit`` bits.

    Args:
        index_N4: signatures of whole pictures.
        probes_NV4: signatures of the same pictures through V windows; may be a memory map.
        flips_F4: what to XOR for each flip.
        group_N: pictures of one group are never a pair; -1 is never found.
        robust: numbers of the bits that keys are drawn from.
        limit: largest distance.
        tables: more find more and take longer.
        progress: called with (tables done, all).
    """
    alive = np.flatnonzero(group_N >= 0)
    bits = key_bits(len(alive))
    found: list[NDArray[np.int64]] = []
    crowded = 0
    for table in range(tables):
        chosen = chosen_bits(table, bits, robust)
        keys = _keys(index_N4[alive], chosen)
        order = alive[np.argsort(keys, kind="stable")]
        starts = np.zeros((1 << bits) + 1, np.int32)
        np.cumsum(np.bincount(keys, minlength=1 << bits), out=starts[1:])
        new: list[NDArray[np.int64]] = []
        for low in range(0, len(index_N4), max(1, _BLOCK // probes_NV4.shape[1])):
            block = slice(low, low + max(1, _BLOCK // probes_NV4.shape[1]))
            words = np.ascontiguousarray(probes_NV4[block])
            plain = _keys(words, chosen)
            for flip, mask in enumerate(flips_F4):
                key = plain ^ _keys(mask, chosen)  # a flip turns the same bits of every key
                first = starts[key]
                counts = starts[key + np.uint32(1)] - first
                crowded += int((counts > _CROWD).sum())
                for pairs in _expand(first, np.minimum(counts, _CROWD), order):
                    new += _near_ones(pairs, words ^ mask, low, index_N4, group_N, flip, limit)
        found = [_nearest_ways(np.concatenate([*found, *new], axis=1))] if new or found else []
        progress(table + 1, tables)
    best = found[0] if found else np.zeros((5, 0), np.int64)
    return Near(
        probe=best[0], hit=best[1], view=best[2].astype(np.int16), flip=best[3].astype(np.int16),
        distance=best[4].astype(np.int16), crowded=crowded,
    )  # fmt: skip


def _expand(
    starts: NDArray[np.int32], counts: NDArray[np.int32], order: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(flat probe number, index row) of every member of every bucket met, in bounded pieces."""
    hits = np.flatnonzero(counts.reshape(-1))
    flat_starts, flat_counts = starts.reshape(-1)[hits], counts.reshape(-1)[hits].astype(np.int64)
    ends = np.cumsum(flat_counts)
    low = 0
    while low < len(hits):
        done = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + _EXPAND, side="right")))
        sizes = flat_counts[low:high]
        shift = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield (
            np.repeat(hits[low:high], sizes),
            order[np.repeat(flat_starts[low:high], sizes) + shift],
        )
        low = high


def _near_ones(
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    seen_PV4: NDArray[np.uint64],
    first: int,
    index_N4: NDArray[np.uint64],
    group_N: NDArray[np.int64],
    flip: int,
    limit: int,
) -> list[NDArray[np.int64]]:
    probe, view = np.divmod(pairs[0], seen_PV4.shape[1])
    other = (group_N[first + probe] != group_N[pairs[1]]) & (group_N[first + probe] >= 0)
    probe, view, hit = probe[other], view[other], pairs[1][other]
    distance = distances(seen_PV4[probe, view], index_N4[hit])
    near = distance <= limit
    if not near.any():
        return []
    kept = [first + probe[near], hit[near], view[near], np.full(near.sum(), flip), distance[near]]
    return [np.stack(kept)]


def _nearest_ways(pairs_5M: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each unordered pair once, with its smallest distance."""
    low, high = np.minimum(pairs_5M[0], pairs_5M[1]), np.maximum(pairs_5M[0], pairs_5M[1])
    order = np.lexsort((pairs_5M[3], pairs_5M[2], pairs_5M[0], pairs_5M[4], high, low))
    low, high = low[order], high[order]
    first = np.ones(len(order), bool)
    first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return np.asarray(pairs_5M[:, order[first]])
