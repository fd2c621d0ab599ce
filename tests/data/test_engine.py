from __future__ import annotations

import operator
import os
import signal
import time

import pytest

from sammed_data.engine import run_tasks
from sammed_data.types import InterruptedRun, SammedError


@pytest.mark.parametrize("workers", [1, 2])
def test_all_results_come_back(workers):
    assert sorted(run_tasks(operator.neg, [3, 1, 2], workers)) == [-3, -2, -1]


def test_a_worker_that_dies_is_a_sentence():
    with pytest.raises(SammedError, match="a shard failed, its worker process died.*run again"):
        list(run_tasks(os._exit, [3, 3], 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unexpected_error_ends_its_task_only_and_is_told_with_its_traceback(workers):
    failed = []
    found = run_tasks(
        operator.neg, [1, "x", 2], workers, on_failure=lambda *said: failed.append(said)
    )
    assert sorted(found) == [-2, -1]
    ((task, failure),) = failed
    assert task == "x"
    assert "TypeError" in failure.reason
    assert "Traceback" in failure.detail


def test_without_a_taker_an_unexpected_error_ends_the_run():
    with pytest.raises(SammedError, match="TypeError"):
        list(run_tasks(operator.neg, [1, "x", 2], 1))


def _die_at_3(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_dead_worker_fails_its_task_and_the_others_go_on():
    failed = []
    found = run_tasks(_die_at_3, range(7), 2, on_failure=lambda *said: failed.append(said))
    assert sorted(found) == [0, 1, 2, 4, 5, 6]
    assert [(task, "out of memory" in f.reason) for task, f in failed] == [(3, True)]


def _sleep_at_1(number):
    if number == 1:
        time.sleep(120)
    return number


def test_a_task_over_its_time_is_stopped():
    failed = []
    found = run_tasks(
        _sleep_at_1, [0, 1, 2], 1, timeout_s=3, on_failure=lambda *said: failed.append(said)
    )
    assert sorted(found) == [0, 2]
    assert "longer than 3 s" in failed[0][1].reason


def test_a_signal_stops_before_the_next_task_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    done = []

    def work(number):
        done.append(number)
        os.kill(os.getpid(), signal.SIGTERM)
        return number

    with pytest.raises(InterruptedRun):
        list(run_tasks(work, [1, 2, 3], 1))
    assert done == [1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
