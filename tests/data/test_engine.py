from __future__ import annotations

import operator
import os
import signal

import pytest

from sammed_data.engine import run_tasks
from sammed_data.types import InterruptedRun, SammedError


@pytest.mark.parametrize("workers", [1, 2])
def test_all_results_come_back(workers):
    assert sorted(run_tasks(operator.neg, [3, 1, 2], workers)) == [-3, -2, -1]


def test_a_worker_that_dies_is_a_sentence():
    with pytest.raises(SammedError, match="a worker process died.*run again"):
        list(run_tasks(os._exit, [3, 3], 2))


def test_an_error_in_a_task_reaches_the_caller():
    with pytest.raises(TypeError):
        list(run_tasks(operator.neg, [1, "x", 2], 1))


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
