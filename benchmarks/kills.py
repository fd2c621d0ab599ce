"""Kill a build by SIGKILL at random moments, finish it, compare every byte with an undisturbed one.

    python benchmarks/kills.py ROOT [--only a,b] [--kills 30] [--workers 2] [--seed 0]

ROOT holds datasets that the bundled catalogues know. Moments come from a hash of the seed, spread
over the time the undisturbed build took. Exit code 1 if any file differs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def files(corpus: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every published file (bookkeeping in .partial apart)."""
    return {
        path.relative_to(corpus).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(corpus.rglob("*"))
        if path.is_file() and ".partial" not in path.parts
    }


def command(arguments: argparse.Namespace, out: Path) -> list[str]:
    """The build as a user would call it."""
    line = [sys.executable, "-m", "sammed", "data", "build", "--root", str(arguments.root)]
    line += ["--out", str(out), "--workers", str(arguments.workers)]
    return line + (["--only", arguments.only] if arguments.only else [])


def moment(seed: int, trial: int, duration: float) -> float:
    """Seconds after the start at which a trial is killed."""
    digest = hashlib.sha256(f"{seed}/{trial}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * duration


def killed_build(arguments: argparse.Namespace, out: Path, after: float) -> bool:
    """Start a build and kill it with all its workers; True if it was still running."""
    process = subprocess.Popen(
        command(arguments, out),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def main() -> int:
    """Run the trials and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference"
        began = time.monotonic()
        done = subprocess.run(command(arguments, reference), stdout=subprocess.DEVNULL, check=False)
        duration = time.monotonic() - began
        if done.returncode not in (0, 3):
            return done.returncode
        wanted = files(reference)
        different = killed = 0
        for trial in range(arguments.kills):
            out = Path(folder) / f"trial{trial}"
            after = moment(arguments.seed, trial, duration)
            killed += killed_build(arguments, out, after)
            subprocess.run(command(arguments, out), stdout=subprocess.DEVNULL, check=False)
            same = files(out) == wanted
            different += not same
            print(
                f"killed after {after:.2f} s: {'same bytes' if same else 'DIFFERENT'}", flush=True
            )
    print(
        f"{killed} of {arguments.kills} builds killed, {different} differ, {len(wanted)} files each"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
