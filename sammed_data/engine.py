"""Run tasks in this process, a pool of spawned ones or on Ray; stop between cases when asked."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from sammed_data.pool import Failure, Outcome, Pool, StopFlag, attempt
from sammed_data.system import LEAVE_SIGNALS, STOP_SIGNALS, die, keep_memory
from sammed_data.types import InterruptedRun, SammedError, UsageError, nearest

Task = TypeVar("Task")
Result = TypeVar("Result")

ENGINES = ("local", "ray")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                     "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")  # fmt: skip
#: Kept for the next row group and plane; whole volumes are above it.
WORKER_BLOCK_BYTES = 32 << 20
_stop: StopFlag | threading.Event = threading.Event()
_fail_counts: dict[str, int] = {}


def stop_if_asked() -> None:
    """Called between cases: leaves the current shard unfinished when a stop was asked for.

    Raises:
        InterruptedRun: SIGINT, SIGTERM or SIGUSR1 came.
    """
    if _stop.is_set():
        raise InterruptedRun("stopped between two cases; finished shards stay")


def fail_point(name: str) -> None:
    """Die by SIGKILL the n-th time this point is passed, if SAMMED_FAILPOINT is ``name:n``."""
    wanted = os.environ.get("SAMMED_FAILPOINT", "")
    if not wanted.startswith(name + ":"):
        return
    _fail_counts[name] = _fail_counts.get(name, 0) + 1
    if _fail_counts[name] == int(wanted.split(":")[1]):
        die()


def one_thread() -> None:
    """Workers share the machine: no library may start threads of its own or hoard memory."""
    import cv2
    import pyarrow as pa

    cv2.setNumThreads(1)
    pa.set_memory_pool(pa.system_memory_pool())  # the default one keeps 40 MB for itself


def _start_worker(stop: StopFlag) -> None:
    global _stop  # noqa: PLW0603 - a spawned worker gets its stop flag once, here
    _stop = stop
    keep_memory(WORKER_BLOCK_BYTES)
    one_thread()


@contextmanager
def _handlers(numbers: Sequence[signal.Signals], act: Callable[[], object]) -> Iterator[None]:
    """``act`` on these signals; the old handlers come back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, lambda *_: act()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """A scheduler's warning before and after the shards (planning, publishing) is no crash either.

    Raises:
        InterruptedRun: SIGTERM or SIGUSR1 came; the state on disk is one that a kill may leave.
    """

    def leave() -> NoReturn:
        raise InterruptedRun("stopped by the scheduler or the user; finished shards stay")

    with _handlers(LEAVE_SIGNALS, leave):
        yield


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Spawned workers inherit one-thread settings; this process keeps its own."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run_tasks(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    *,
    on_failure: Callable[[Task, Failure], object] | None = None,
    timeout_s: float | None = None,
    engine: str = "local",
    gpus: float = 0,
) -> Iterator[Result]:
    """Results in the order they finish.

    Args:
        work: a module-level function; it may call :func:`stop_if_asked`.
        tasks: picklable, independent.
        workers: 1 = in this process, unless there is a time limit.
        on_failure: told of a task whose worker died, was too slow or met an unexpected error; the
            other tasks go on. None = such a failure ends the run.
        timeout_s: the longest a task may take.
        engine: 'local', or 'ray' for the cluster that Ray finds.
        gpus: that Ray reserves for each task.

    Raises:
        InterruptedRun: SIGINT, SIGTERM or SIGUSR1; running tasks end at their next case.
        SammedError: from a task; or a failure that ``on_failure`` does not take.
    """
    if engine not in ENGINES:
        raise UsageError(f"unknown --engine {engine!r}; {nearest(engine, ENGINES)}")
    if engine == "ray" and timeout_s is not None:
        raise UsageError("--shard-timeout and --retry-failed are for --engine local")
    if engine == "ray":
        outcomes = _ray(work, tasks, gpus)
    elif timeout_s is None and (workers <= 1 or len(tasks) <= 1):
        outcomes = _here(work, tasks)
    else:
        outcomes = _pool(work, tasks, workers, timeout_s)
    for task, found in outcomes:
        if found.error is not None:
            raise found.error
        if found.failure is None:
            yield from found.results
        elif on_failure is not None:
            on_failure(task, found.failure)
        else:
            raise SammedError(
                f"a shard failed, {found.failure.reason}: run again to continue, with fewer "
                f"--workers if memory is short\n{found.failure.detail}".rstrip()
            )


def _here(
    work: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[tuple[Task, Outcome[Result]]]:
    global _stop  # noqa: PLW0603 - a fresh flag for this run
    _stop = threading.Event()
    one_thread()
    with _handlers(STOP_SIGNALS, _stop.set):
        for task in tasks:
            stop_if_asked()
            yield task, attempt(work, task)


def _ray(
    work: Callable[[Task], Result], tasks: Sequence[Task], gpus: float
) -> Iterator[tuple[Task, Outcome[Result]]]:
    from sammed_data.ray_engine import run_ray

    stop = threading.Event()
    with _handlers(STOP_SIGNALS, stop.set):
        yield from run_ray(work, tasks, stop, gpus)


def _pool(
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: int, timeout_s: float | None
) -> Iterator[tuple[Task, Outcome[Result]]]:
    stop = StopFlag()
    pool: Pool[Task, Result] = Pool(
        work,
        start=_start_worker,
        stop=stop,
        workers=min(workers, len(tasks)),
        timeout_s=timeout_s,
    )
    with _handlers(STOP_SIGNALS, stop.set), _single_threaded_children():
        yield from pool.run(tasks)
