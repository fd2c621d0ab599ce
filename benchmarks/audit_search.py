"""How fast an audit hashes pictures and searches a million signatures.

    python benchmarks/audit_search.py [--n 1000000]

Hashing is measured on noise with structure at 256 x 256; the search on random signatures of which
one in a thousand has a copy with 8 % of its bits flipped, seen through a crop and a flip.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from sammed_data.audit.fingerprints import VIEWS, WORDS, flip_masks, signatures, thumbnail
from sammed_data.audit.near import search
from sammed_data.codecs import decode_image, encode_image

_CHUNK = 100_000


def hashing(n: int = 1000) -> None:
    """Print pictures per second: decode, thumbnail, all signatures."""
    rng = np.random.default_rng(0)
    plane = cv2.GaussianBlur(rng.normal(128, 60, (256, 256)).astype(np.float32), (0, 0), 2)
    data = encode_image(np.clip(plane * 4 - 384, 0, 255).astype(np.uint8))
    started = time.process_time()
    thumbs = np.stack([thumbnail(decode_image(data)) for _ in range(n)])
    read = time.process_time() - started
    signatures(thumbs)
    total = time.process_time() - started
    print(f"decode + thumbnail {n / read:,.0f} /s; signatures {n / (total - read):,.0f} "
          f"/s; together {n / total:,.0f} pictures/s")  # fmt: skip


def searching(n: int, folder: Path) -> None:
    """Print how long a search of n signatures takes, and how many planted pairs it finds."""
    rng = np.random.default_rng(1)
    views = np.memmap(folder / "views", np.uint64, "w+", shape=(n, len(VIEWS), WORDS))
    for start in range(0, n, _CHUNK):
        part = views[start : start + _CHUNK]
        part[:] = rng.integers(0, 1 << 64, part.shape, dtype=np.uint64)
    copies = np.arange(0, n // 2, 1000)
    wrong = np.packbits(rng.random((len(copies), 256)) < 0.08, axis=1).view(np.uint64)
    views[copies + n // 2, 0] = views[copies, 5] ^ flip_masks(2)[1] ^ wrong
    group = np.arange(n, dtype=np.int64)
    started, cpu = time.perf_counter(), time.process_time()
    index = np.ascontiguousarray(views[:, 0])
    found = search(index, views, flip_masks(2), group)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    pairs = set(zip(found.probe.tolist(), found.hit.tolist(), strict=True))
    hits = sum((int(c), int(c) + n // 2) in pairs for c in copies)
    probes = n * len(VIEWS) * len(flip_masks(2))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{n:,} signatures, {probes:,} probes: {wall:.0f} s wall, {cpu:.0f} s CPU "
          f"({n / cpu:,.0f} rows/s, {probes / cpu:,.0f} probes/s); stands for "
          f"{probes * (n - 1) / cpu:.2g} pairs/s of plain comparison; peak {peak:.1f} GiB; "
          f"planted pairs found {hits} of {len(copies)}, others {len(pairs) - hits}")  # fmt: skip


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    hashing()
    with tempfile.TemporaryDirectory() as folder:
        searching(parser.parse_args().n, Path(folder))


if __name__ == "__main__":
    main()
