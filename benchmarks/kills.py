"""Kill builds by SIGKILL at random moments, finish them, compare every byte with undisturbed ones.

    python benchmarks/kills.py ROOT [--only a,b] [--kills 30] [--workers 2] [--parts 2] [--seed 0]

ROOT holds datasets that the catalogue knows. Trials take turns: a build on one machine; a part of
a build shared by --parts machines; its merge. The clock of a trial starts when its shards are
planned, and moments come from a hash of the seed, spread over the span that the undisturbed run
measured; a trial that ended before its moment is repeated with a shorter one. At the end the fast
codecs are set against the plain ones: other bytes, same content hash. Exit code 1 if any file or
count differs, or a trial could not be killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

_PATIENCE = 6
_SHORTER = 0.7


class Span(NamedTuple):
    """How long a step took, and when in it its shards were planned, in seconds."""

    planned: float
    total: float


def files(corpus: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every published file (bookkeeping in .partial apart)."""
    return {
        path.relative_to(corpus).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(corpus.rglob("*"))
        if path.is_file() and ".partial" not in path.parts
    }


def adds_up(corpus: Path) -> bool:
    """Whether candidates are kept or rejected, over all and as the sum of the datasets."""
    manifest = json.loads((corpus / "manifest.json").read_text())
    every = [manifest["counts"], *(d["counts"] for d in manifest["datasets"])]
    whole = all(
        c["masks"]["candidates"] == c["masks"]["kept"] + sum(c["masks"]["rejected"].values())
        for c in every
    )
    parts = sum(c["masks"]["candidates"] for c in every[1:])
    return whole and parts == every[0]["masks"]["candidates"]


def steps(arguments: argparse.Namespace, out: Path, kind: str) -> list[list[str]]:
    """The commands of a whole build, as a user would give them."""
    data = [sys.executable, "-m", "sammed", "data"]
    build = [*data, "build", "--root", str(arguments.root), "--out", str(out)]
    build += ["--workers", str(arguments.workers), "--shard-mb", str(arguments.shard_mb)]
    build += ["--source", str(arguments.source)] if arguments.source else []
    build += ["--only", arguments.only] if arguments.only else []
    if kind == "local":
        return [build]
    shared = [[*build, "--part", f"{i}/{arguments.parts}"] for i in range(arguments.parts)]
    return [*shared, [*data, "merge", str(out)]]


def started(line: list[str]) -> subprocess.Popen[bytes]:
    """A step in a session of its own, so that its workers can be killed with it."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(line, start_new_session=True, stdout=quiet, stderr=quiet)


def planned(line: list[str], out: Path, since_ns: int) -> bool:
    """Whether the step has got as far as its shards; a merge works from its first moment."""
    note = out / ".partial/plan.json"
    return "merge" in line or (note.is_file() and note.stat().st_mtime_ns >= since_ns)


def timed(line: list[str], out: Path) -> Span:
    """Run a step undisturbed and measure it."""
    since, began = time.time_ns(), time.monotonic()
    process, seen = started(line), 0.0
    while process.poll() is None:
        if not seen and planned(line, out, since):
            seen = time.monotonic() - began
        time.sleep(0.005)
    if process.returncode not in (0, 3):
        raise SystemExit(f"the undisturbed run failed ({process.returncode}): {' '.join(line)}")
    return Span(seen, time.monotonic() - began)


def killed(line: list[str], out: Path, after: float) -> bool:
    """Start a step and kill it ``after`` seconds past its plan; False if it had ended by then."""
    since = time.time_ns()
    process = started(line)
    while process.poll() is None and not planned(line, out, since):
        time.sleep(0.005)
    try:
        process.wait(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def share(seed: int, trial: int) -> float:
    """Where in its span a trial is killed, 0 to 1."""
    digest = hashlib.sha256(f"{seed}/{trial}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def run(line: list[str], **environment: str) -> None:
    """A step to its end."""
    subprocess.run(line, stdout=subprocess.DEVNULL, check=False, env=os.environ | environment)


class Trial(NamedTuple):
    """What became of one."""

    killed: bool
    same: bool
    said: str


def one(arguments: argparse.Namespace, folder: Path, number: int,
        spans: dict[str, list[Span]], wanted: dict[str, str]) -> Trial:  # fmt: skip
    """Kill one step of one build, run all of it again, compare."""
    turn = ("local", "part", "merge")[number % 3]
    kind = "local" if turn == "local" else "parts"
    victim = {"local": 0, "part": number // 3 % arguments.parts, "merge": -1}[turn]
    span = spans[kind][victim]
    after = share(arguments.seed, number) * (span.total - span.planned)
    hit = False
    for attempt in range(_PATIENCE):
        out = folder / f"trial{number}-{attempt}"
        lines = steps(arguments, out, kind)
        for line in lines[: victim % len(lines)]:
            run(line)
        hit = killed(lines[victim], out, after)
        if hit:
            break
        after *= _SHORTER
    for line in lines:
        run(line)
    same = files(out) == wanted and adds_up(out)
    what = {"local": "build", "part": f"part {victim}/{arguments.parts}", "merge": "merge"}[turn]
    return Trial(hit, same, f"{what} killed {after:.2f} s after its plan")


def plain_codecs_agree(arguments: argparse.Namespace, folder: Path, reference: Path) -> bool:
    """Whether the plain codecs give the same content hash."""
    out = folder / "plain"
    for line in steps(arguments, out, "local"):
        run(line, SAMMED_CODECS="plain")
    near, far = (json.loads((c / "manifest.json").read_text()) for c in (reference, out))
    same = near["content_sha256"] == far["content_sha256"]
    bytes_too = files(reference) == files(out)
    print(f"plain codecs: {'same' if same else 'OTHER'} content hash, "
          f"{'same' if bytes_too else 'other'} bytes")  # fmt: skip
    return same


def main() -> int:
    """Run the trials and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--shard-mb", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spans = {
            kind: [timed(line, folder / kind) for line in steps(arguments, folder / kind, kind)]
            for kind in ("local", "parts")
        }
        wanted = files(folder / "local")
        different = int(files(folder / "parts") != wanted)
        print(f"undisturbed: {'DIFFERENT' if different else 'same bytes'} whole and in parts")
        hits = 0
        for number in range(arguments.kills):
            trial = one(arguments, folder, number, spans, wanted)
            hits += trial.killed
            different += not trial.same
            verdict = "same bytes, counts add up" if trial.same else "DIFFERENT"
            print(f"{trial.said}{'' if trial.killed else ' (IN VAIN)'}: {verdict}", flush=True)
        agree = plain_codecs_agree(arguments, folder, folder / "local")
    print(f"{hits} of {arguments.kills} killed, {different} differ, {len(wanted)} files each")
    return 1 if different or hits < arguments.kills or not agree else 0


if __name__ == "__main__":
    sys.exit(main())
