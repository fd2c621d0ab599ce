"""2,000 damaged files through all readers: read, refused with a sentence, or a failure of ours.

    python benchmarks/fuzz.py                    # all of it
    python benchmarks/fuzz.py --replay 1234      # one input again, with its traceback

A worker process reads them under a memory limit; the parent stops it when a file takes too long.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LIMIT_S = 10.0
LIMIT_BYTES = 6_000_000_000  # address space: 4 GB of decoded pixels, and libraries
FIRST_SEED = 20_000


def read_one(seed: int, files: list, folder: Path) -> str:
    """Damage one file and read it: 'read', 'refused', or the failure with its traceback."""
    import numpy as np

    from sammed_data.types import SammedError
    from tests.data.fuzz_files import KINDS, damaged

    rng = np.random.default_rng(seed)
    _, path, read = files[seed % len(files)]
    target = folder / f"x_{path.name}"
    target.write_bytes(damaged(path.read_bytes(), seed // len(files) % KINDS, rng))
    try:
        read(target)
    except SammedError as err:
        sentence = str(err)
        said = ": expected" in sentence and "; " in sentence
        return "refused" if said else f"no sentence: {sentence}"
    except BaseException:  # noqa: BLE001 - what the search is for; told in full
        return traceback.format_exc()
    return "read"


def worker(pipe: Connection, folder: Path) -> None:
    """Answer seeds until the parent hangs up."""
    import resource

    from tests.data.fuzz_files import whole_files

    warnings.simplefilter("ignore")
    files = list(whole_files(folder))
    for _, path, read in files:  # imports and caches are no part of the limits
        read(path)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    pipe.send([name for name, _, _ in files])
    while True:
        pipe.send(read_one(pipe.recv(), files, folder))


class Reader:
    """A worker, started anew after it died or was stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=worker, args=(other, self._folder), daemon=True)
        self._process.start()
        other.close()
        self.names: list[str] = self._pipe.recv()

    def ask(self, seed: int) -> str:
        self._pipe.send(seed)
        try:
            if self._pipe.poll(LIMIT_S):
                return str(self._pipe.recv())
            found = f"took longer than {LIMIT_S:g} s"
        except EOFError:
            self._process.join()
            found = f"the process died, exit code {self._process.exitcode}"
        self._process.kill()
        self._process.join()
        self._start()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    parser.add_argument("--replay", type=int, help="seed of one input")
    asked = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    slowest, started = (0.0, 0), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sammed-fuzz-") as folder:
        reader = Reader(Path(folder))
        first = asked.seed if asked.replay is None else asked.replay
        for seed in range(first, first + (asked.count if asked.replay is None else 1)):
            name, before = reader.names[seed % len(reader.names)], time.perf_counter()
            found = reader.ask(seed)
            slowest = max(slowest, (time.perf_counter() - before, seed))
            kind = found if found in ("read", "refused") else "failed"
            counts[name, kind] += 1
            if kind == "failed":
                said = found if asked.replay is not None else found.strip().splitlines()[-1]
                sys.stdout.write(f"{name}, --replay {seed}: {said[:4000]}\n")
            elif asked.replay is not None:
                sys.stdout.write(f"{name}: {found}\n")
    sys.stdout.write(f"{'reader':16} read refused failed\n")
    for name in dict.fromkeys(reader.names):
        row = [counts[name, k] for k in ("read", "refused", "failed")]
        sys.stdout.write(f"{name:16} {row[0]:4} {row[1]:7} {row[2]:6}\n")
    totals = Counter(k for (_, k), n in counts.items() for _ in range(n))
    sys.stdout.write(
        f"{sum(totals.values())} inputs: {totals['read']} read, {totals['refused']} refused, "
        f"{totals['failed']} failed; slowest {slowest[0]:.2f} s (seed {slowest[1]}), all "
        f"{time.perf_counter() - started:.0f} s\n"
    )
    sys.exit(1 if totals["failed"] else 0)


if __name__ == "__main__":
    main()
