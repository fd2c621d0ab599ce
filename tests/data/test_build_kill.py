"""A build that was killed and run again has the bytes of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sammed_data.corpus import Corpus
from tests.data import build_fakes as fakes


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    base = tmp_path_factory.mktemp("source")
    fakes.write_source(base / "data", n=24)
    fakes.write_source(base / "data", n=3, name="other_mr")
    catalogs = fakes.write_catalog(
        base / "cat", fakes.entry_dict(), fakes.entry_dict("other_mr", role="held_out")
    )
    return catalogs, base / "data"


def _arguments(source, out, *more):
    return ["data", "build", "--source", source[0], "--root", source[1], "--out", out, *more]


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "corpus"
    run = fakes.run_cli(*_arguments(source, out, "--workers", 1))
    assert run.returncode == 0, run.stderr
    return out


POINTS = ["after_case:3", "before_record:2", "during_publish:2"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point_and_run_again(source, whole, tmp_path, point):
    out = tmp_path / "corpus"
    killed = fakes.run_cli(*_arguments(source, out, "--workers", 1), SAMMED_FAILPOINT=point)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    again = fakes.run_cli(*_arguments(source, out, "--workers", 1))
    assert again.returncode == 0, again.stderr
    assert fakes.tree(out) == fakes.tree(whole)


def test_killed_while_replacing_an_older_corpus(source, whole, tmp_path):
    out = tmp_path / "corpus"
    older = fakes.run_cli(*_arguments(source, out, "--workers", 1, "--min-part-px", 1))
    assert older.returncode == 0, older.stderr
    before = fakes.tree(out / "data")
    for point in ("after_shard:2", "after_manifest:1"):
        killed = fakes.run_cli(*_arguments(source, out, "--workers", 1), SAMMED_FAILPOINT=point)
        assert killed.returncode == -signal.SIGKILL
        if point.startswith("after_shard"):
            assert fakes.tree(out / "data") == before
            corpus = Corpus(out)
            corpus.read(corpus.index()[0])
    again = fakes.run_cli(*_arguments(source, out, "--workers", 1))
    assert again.returncode == 0, again.stderr
    assert fakes.tree(out) == fakes.tree(whole)


def _start(source, out, workers=2):
    command = [sys.executable, "-m", "sammed", *_arguments(source, out, "--workers", workers)]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=fakes.REPO,
        env=os.environ | {"PYTHONPATH": str(fakes.REPO)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def _children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(p) for p in listed.read_text().split()] if listed.exists() else []


def test_a_real_kill_with_two_workers_leaves_no_process_and_resumes(source, whole, tmp_path):
    out = tmp_path / "corpus"
    process = _start(source, out)
    _wait_for(lambda: list((out / ".partial").glob("*.tmp")))
    children = _children(process.pid)
    process.kill()
    process.communicate()
    _wait_for(lambda: not any(_alive(pid) for pid in children), 20)
    again = fakes.run_cli(*_arguments(source, out, "--workers", 2))
    assert again.returncode == 0, again.stderr
    assert fakes.tree(out) == fakes.tree(whole)


def _alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_an_interrupt_exits_130_and_can_go_on(source, whole, tmp_path, number, workers):
    out = tmp_path / "corpus"
    process = _start(source, out, workers)
    _wait_for(lambda: list((out / ".partial").glob("*.tmp")))
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert b"run again" in said
    assert b"Traceback" not in said
    assert not list((out / ".partial").glob("*.tmp"))
    again = fakes.run_cli(*_arguments(source, out))
    assert again.returncode == 0, again.stderr
    assert fakes.tree(out) == fakes.tree(whole)


def test_two_builds_at_once_are_refused(source, tmp_path):
    import fcntl

    out = tmp_path / "corpus"
    (out / ".partial").mkdir(parents=True)
    with (out / ".partial/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = fakes.run_cli(*_arguments(source, out))
    assert run.returncode == 1
    assert "another build is writing" in run.stderr
