"""Parts of a build on many machines end in the bytes of one build."""

from __future__ import annotations

import fcntl
import json
import signal
import time

import pytest

from sammed_data import run_shards as running
from sammed_data.build import Order, build, build_order
from sammed_data.part import Part, parse_part, shares
from sammed_data.parts import build_part, merge, merge_and_build, status
from sammed_data.plan import ShardPlan
from sammed_data.run_shards import How
from sammed_data.types import CorpusError, UsageError
from tests.data import build_fakes as fakes

NAMES = ("fake_mr", "other_mr", "third_mr")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    base = tmp_path_factory.mktemp("source")
    for name, cases in zip(NAMES, (30, 3, 2), strict=True):
        fakes.write_source(base / "data", n=cases, name=name)
    return fakes.write_catalog(base / "cat", *map(fakes.entry_dict, NAMES)), base / "data"


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "corpus"
    build(*source, out)
    return out


def _order(source, **more):
    return Order(source=source[0], root=source[1], **more)


def _cli(source, out, *more, **env):
    return fakes.run_cli(
        "data", "build", "--source", source[0], "--root", source[1], "--out", out, *more, **env
    )


SLURM = {
    "SLURM_ARRAY_TASK_ID": "13",
    "SLURM_ARRAY_TASK_MIN": "4",
    "SLURM_ARRAY_TASK_STEP": "3",
    "SLURM_ARRAY_TASK_COUNT": "5",
}


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("2/7", SLURM, (2, 7)),
        ("auto", SLURM, (3, 5)),
        ("auto/5", SLURM, (3, 5)),
        ("auto/40", SLURM, (13, 40)),  # one task of 0-39 sent again: its own number counts
        ("auto/6", {"JOB_COMPLETION_INDEX": "5"}, (5, 6)),
        ("auto", {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "9"}, (0, 9)),
    ],
)
def test_the_scheduler_says_which_part(text, environment, expected):
    assert parse_part(text, environment) == Part(index=expected[0], count=expected[1])


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("7/7", {}, "part 7 of 7"),
        ("1/0", {}, "i/N"),
        ("3", {}, "i/N"),
        ("auto", {}, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "auto/N"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}, "part 4 of 4"),
        ("auto", SLURM | {"SLURM_ARRAY_TASK_ID": "x"}, "number"),
    ],
)
def test_a_wrong_part_is_a_sentence(text, environment, words):
    with pytest.raises(UsageError, match=words):
        parse_part(text, environment)


def test_shares_are_disjoint_complete_and_balanced_by_bytes():
    sizes = [(7 * i * i) % 83 + 1 for i in range(60)]
    shards = [
        ShardPlan(dataset="d", split="train", number=i, cases=(), plan_hash="", source_bytes=n)
        for i, n in enumerate(sizes)
    ]
    for count in (1, 4, 7):
        parts = shares(shards, count)
        assert sorted(s.number for p in parts for s in p) == list(range(60))
        loads = [sum(s.source_bytes for s in p) for p in parts]
        assert max(loads) - min(loads) <= max(sizes)
        assert shares(list(reversed(shards)), count) == [p[::-1] for p in parts]
    assert shares(shards[:2], 3)[2] == []


@pytest.mark.parametrize("count", [1, 3, 9])
def test_parts_and_merge_have_the_bytes_of_one_build(source, whole, tmp_path, count):
    out = tmp_path / "corpus"
    done = [
        build_part(_order(source), out, Part(index=i, count=count), How())
        for i in reversed(range(count))
    ]
    assert not (out / "manifest.json").exists()
    total = status(out).total
    assert sum(d.built for d in done) == total.done == 6
    assert (total.remaining, total.failed) == (0, {})
    assert merge(out).manifest["counts"]["cases"]["found"] == 35
    assert fakes.tree(out) == fakes.tree(whole)
    assert status(out).published
    with pytest.raises(CorpusError, match="complete already"):
        merge(out)


def test_merge_says_what_is_missing_and_can_build_it(source, whole, tmp_path):
    out = tmp_path / "corpus"
    with pytest.raises(CorpusError, match="holds no part"):
        merge(out)
    build_part(_order(source), out, Part(index=1, count=4), How())
    with pytest.raises(CorpusError, match=r"5 of 6 shards.*parts 0, 2, 3 of 4.*--build"):
        merge(out)
    assert not (out / "manifest.json").exists()
    said = fakes.call_cli("data", "merge", out, "--build", "--workers", 1)
    assert said.returncode == 0, said.stderr
    assert fakes.tree(out) == fakes.tree(whole)
    assert merge_and_build  # the same, for callers without a command line


def test_a_part_from_other_options_does_not_pass(source, tmp_path):
    from sammed_data.plan import BuildOptions

    out = tmp_path / "corpus"
    build_part(_order(source, options=BuildOptions(depth=16)), out, Part(index=0, count=2), How())
    build_part(_order(source), out, Part(index=1, count=2), How())
    with pytest.raises(CorpusError, match="other options"):
        merge(out)


def test_killed_parts_and_a_killed_merge_go_on(source, whole, tmp_path):
    out = tmp_path / "corpus"
    killed = _cli(source, out, "--part", "0/2", "--workers", 1, SAMMED_FAILPOINT="after_case:5")
    assert killed.returncode == -signal.SIGKILL
    for part in ("0/2", "1/2"):
        done = _cli(source, out, "--part", part, "--workers", 1)
        assert done.returncode == 0, done.stderr
        assert f"part {part}" in done.stdout
    for point in ("before_merge:1", "during_publish:3"):
        killed = fakes.run_cli("data", "merge", out, SAMMED_FAILPOINT=point)
        assert killed.returncode == -signal.SIGKILL
        assert not (out / "manifest.json").exists()
    assert fakes.run_cli("data", "merge", out).returncode == 0
    assert fakes.tree(out) == fakes.tree(whole)


def test_parts_work_beside_each_other_but_not_beside_a_build(source, tmp_path):
    out = tmp_path / "corpus"
    (out / ".partial").mkdir(parents=True)
    with (out / ".partial/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        build_part(_order(source), out, Part(index=0, count=5), How())
        with pytest.raises(CorpusError, match="another build is writing"):
            build(*source, out)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CorpusError, match="another build is writing"):
            build_part(_order(source), out, Part(index=1, count=5), How())


def test_the_warning_of_the_scheduler_ends_a_part_with_130(source, whole, tmp_path):
    from tests.data.test_build_kill import _start, _wait_for

    out = tmp_path / "corpus"
    process = _start(source, out)
    _wait_for(lambda: list((out / ".partial").glob("*.*-*.tmp")))
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert b"run again" in said
    state = status(out)
    assert not state.published
    assert state.total.done + state.total.remaining == 6
    build(*source, out)
    assert fakes.tree(out) == fakes.tree(whole)


def _no_memory_for_two(task):
    if task.shard.stem in ("train--fake_mr-00001", "train--third_mr-00000"):
        raise MemoryError("for this shard")
    return _real(task)


_real = running.build_shard


def test_a_failed_shard_is_told_and_retried_alone(source, whole, tmp_path, monkeypatch):
    out = tmp_path / "corpus"
    with monkeypatch.context() as patch:
        patch.setattr(running, "build_shard", _no_memory_for_two)
        with pytest.raises(CorpusError, match=r"2 of 6 shards failed.*MemoryError.*--retry-failed"):
            build(*source, out)
    said = json.loads(fakes.call_cli("data", "status", out, "--json").stdout)
    assert said["published"] is False
    assert {k: said["total"][k] for k in ("done", "failed", "remaining")} == {
        "done": 4, "failed": 2, "remaining": 0,
    }  # fmt: skip
    assert "MemoryError" in said["datasets"]["third_mr"]["reasons"]["train--third_mr-00000"]
    table = fakes.call_cli("data", "status", out).stdout
    assert "failed: train--fake_mr-00001: unexpected MemoryError" in table
    result = build_order(_order(source), out, How(retry_failed=True))
    assert (result.built, result.reused) == (2, 4)
    assert fakes.tree(out) == fakes.tree(whole)


def test_retry_leaves_what_never_ran(source, tmp_path):
    out = tmp_path / "corpus"
    build_part(_order(source), out, Part(index=0, count=3), How())
    with pytest.raises(CorpusError, match="5 of 6 shards have not been built yet"):
        build_order(_order(source), out, How(retry_failed=True))


def test_dead_workers_fail_their_shards_and_the_build_goes_on(source, whole, tmp_path):
    out = tmp_path / "corpus"
    some = ("--only", "other_mr,third_mr")
    died = _cli(source, out, *some, "--workers", 2, SAMMED_FAILPOINT="before_record:1")
    assert died.returncode == 1
    assert "2 of 2 shards failed" in died.stderr
    assert "SIGKILL" in died.stderr
    again = _cli(source, out, *some, "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert fakes.tree(out / "data").items() <= fakes.tree(whole / "data").items()


def test_an_unforeseen_error_of_restricted_data_quotes_nothing(source, tmp_path, monkeypatch):
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    catalogs = fakes.write_catalog(tmp_path / "cat", fakes.entry_dict(privacy="restricted"))
    monkeypatch.setattr(running, "build_shard", _no_memory_for_two)
    with pytest.raises(CorpusError) as err:
        build(catalogs, source[1], tmp_path / "c", key_file=key)
    assert "for this shard" not in str(err.value)
    notes = list((tmp_path / "c/.partial").glob("*.failed.json"))
    assert notes
    assert all("for this shard" not in p.read_text() for p in notes)


def test_a_plan_with_hundreds_of_thousands_of_shards_is_shared_quickly():
    shards = [
        ShardPlan(dataset="d", split="train", number=i, cases=(), plan_hash="", source_bytes=i % 97)
        for i in range(50_000)
    ]
    began = time.process_time()
    assert len(shares(shards, 1000)) == 1000
    assert time.process_time() - began < 5
