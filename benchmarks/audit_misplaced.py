"""How many misplaced masks the audit finds: every case of a corpus, misplaced in every way.

    python benchmarks/audit_misplaced.py corpus

`sammed data audit` tries 30 cases; this tries all. Prints found / planted by dataset.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from sammed_data.audit.gathered import gather
from sammed_data.audit.misplaced import WAYS, Misplaced, Tried
from sammed_data.corpus import Corpus


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    root = parser.parse_args().corpus
    tried: dict[str, list[Tried]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        found = gather(Corpus(root), Path(folder), 1, lambda *_: None)
        scanned = time.process_time() - started
        for one in Misplaced(found).tried(set(range(len(found.fits_C)))):
            tried[one.dataset].append(one)
        cpu = time.process_time() - started - scanned
    held = f"{len(found.rows_N)} images, {len(found.masks_M)} masks, {len(found.cases)} cases"
    each = 1000 * scanned / max(len(found.rows_N), 1)
    print(f"{held}; CPU: scan {each:.2f} ms an image, planting {cpu:.0f} s")
    for dataset, own in sorted(tried.items()):
        print_line(dataset, own)
    groups = {
        "in datasets of 8 cases or more": [t for own in tried.values() for t in own if t.beside],
        "in smaller datasets": [t for own in tried.values() for t in own if not t.beside],
        "all": [t for own in tried.values() for t in own],
    }
    for name, own in groups.items():
        print_line(name, own)


def print_line(name: str, tried: list[Tried]) -> None:
    """Cases, false alarms, and found / planted in each way."""
    parts = [f"{name}: {len(tried)} cases, untouched {sum(bool(t.as_it_is) for t in tried)}"]
    for how in WAYS:
        planted = [t.ways[how] for t in tried if t.ways.get(how) is not None]
        if planted:
            parts.append(f"{how.removeprefix('masks ')} {sum(map(bool, planted))}/{len(planted)}")
    print(", ".join(parts))


if __name__ == "__main__":
    main()
