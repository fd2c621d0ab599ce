"""Locks and marks; and the whole way where a system lacks what POSIX has, as Windows does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sammed_data import system

ROOT = Path(__file__).resolve().parents[2]

# As Windows has it: neither these modules nor these names.
WITHOUT = """
import builtins, os, signal, sys
absent = {"fcntl", "resource", "pwd", "termios", "grp"}
for name in absent:
    sys.modules.pop(name, None)
found = builtins.__import__
def only(name, globals=None, *rest, **more):
    ours = globals and globals.get("__name__", "").startswith("sammed")
    if ours and name in absent:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return found(name, globals, *rest, **more)
builtins.__import__ = only
for owner, names in ((signal, ("SIGUSR1", "SIGKILL", "SIGALRM", "setitimer")),
                     (os, ("getuid", "sched_getaffinity"))):
    for name in names:
        delattr(owner, name)
import sammed_data.system
sammed_data.system.lock_file = lambda stream, shared=False: None  # msvcrt is not here either
sammed_data.system.peak_bytes = lambda: 0
"""
WALK = """
import sammed
from typer.testing import CliRunner
for words in (["doctor"], ["data", "phantom", "ph", "--patients", "4", "--only", "phantom_us"],
              ["data", "build", "--source", "ph/catalogs", "--root", "ph/data", "--workers", "1"],
              ["train", "--steps", "2", "--passes", "2", "--validation-images", "2"],
              ["bench", "--limit", "2", "--speed"]):
    result = CliRunner().invoke(sammed.app, words)
    assert result.exit_code == 0, (words, result.output, result.exception)
"""


def test_one_holder_at_a_time_but_shared_ones(tmp_path):
    with (tmp_path / "lock").open("w") as one, (tmp_path / "lock").open("w") as other:
        system.lock_file(one, shared=True)
        system.lock_file(other, shared=True)
        with pytest.raises(BlockingIOError):
            system.lock_file(other)


def test_marks_and_memory_of_this_process():
    assert system.user_mark() == system.user_mark() != ""
    assert system.peak_bytes() > 1e6


def test_the_whole_way_without_what_posix_has(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + WALK],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1",
             "HOME": str(tmp_path), "USERNAME": "somebody"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
