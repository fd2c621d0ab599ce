"""Build on a real local Ray cluster of two nodes, kill one in the middle, compare every byte.

    python benchmarks/ray_kill.py ROOT [--source CATALOGS] [--only a,b] [--kills 3] [--shard-mb 4]

ROOT holds datasets that the catalogue knows. Needs `pip install 'sammed[ray]'`. The node that is
killed (SIGKILL of its raylet, with all its workers) is not the one the driver sits on. Exit code 1
if a build failed, any file differs, or no kill hit a build at work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]


def command(arguments: argparse.Namespace, out: Path, *more: str) -> list[str]:
    """The build as a user would call it."""
    line = [sys.executable, "-m", "sammed", "data", "build", "--root", str(arguments.root)]
    line += ["--out", str(out), "--shard-mb", str(arguments.shard_mb), *more]
    line += ["--source", str(arguments.source)] if arguments.source else []
    return line + (["--only", arguments.only] if arguments.only else [])


def two_nodes() -> tuple[Any, Any]:
    """A cluster on this machine: a head and the node that will be killed, one CPU each."""
    from ray.cluster_utils import Cluster

    # Workers import sammed from here, wherever they are started.
    os.environ["PYTHONPATH"] = f"{REPO}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    store = 100 << 20
    head = {"num_cpus": 1, "object_store_memory": store, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    return cluster, cluster.add_node(num_cpus=1, object_store_memory=store)


def finished(out: Path) -> int:
    """Shards recorded so far."""
    return len(list((out / ".partial").glob("*--*.json")))


def build_and_kill(arguments: argparse.Namespace, out: Path, after: int) -> tuple[int, bool, str]:
    """Kill a node once ``after`` shards are there: exit code, whether it was at work, what it said.

    The node's workers die with their raylet; Ray runs the shard they held on the other node.
    """
    cluster, victim = two_nodes()
    try:
        process = subprocess.Popen(
            command(arguments, out, "--engine", "ray"),
            cwd=REPO,
            env=os.environ | {"RAY_ADDRESS": cluster.address},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and finished(out) < after:
            time.sleep(0.02)
        at_work = process.poll() is None
        cluster.remove_node(victim, allow_graceful=False)
        said = process.communicate(timeout=1800)[1]
        return process.returncode, at_work, said
    finally:
        cluster.shutdown()


def main() -> int:
    """Run the trials and print one line each."""
    from kills import files

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--shard-mb", type=int, default=4)
    arguments = parser.parse_args()
    arguments.root = arguments.root.absolute()
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference"
        done = subprocess.run(command(arguments, reference), cwd=REPO, stdout=subprocess.DEVNULL,
                              check=False)  # fmt: skip
        if done.returncode not in (0, 3):
            return done.returncode
        wanted, shards = files(reference), finished(reference)
        bad = killed = 0
        for trial in range(arguments.kills):
            out = Path(folder) / f"trial{trial}"
            after = 1 + trial * (shards - 2) // max(1, arguments.kills)
            code, at_work, said = build_and_kill(arguments, out, after)
            same = code == done.returncode and files(out) == wanted
            killed += at_work
            bad += not same
            print(
                f"node killed after {after} of {shards} shards"
                f"{'' if at_work else ' (too late)'}: {'same bytes' if same else 'DIFFERENT'}",
                flush=True,
            )
            if code != done.returncode:
                print(said, flush=True)
    print(f"{killed} of {arguments.kills} nodes killed at work, {bad} builds differ")
    return 1 if bad or not killed else 0


if __name__ == "__main__":
    sys.exit(main())
