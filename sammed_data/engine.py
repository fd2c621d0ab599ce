"""Run tasks in this process or in a pool of spawned ones; stop between cases when asked."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from multiprocessing.synchronize import Event
from typing import TypeVar

from sammed_data.types import InterruptedRun, SammedError

Task = TypeVar("Task")
Result = TypeVar("Result")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                     "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")  # fmt: skip
_stop: Event | threading.Event = threading.Event()
_fail_counts: dict[str, int] = {}


def stop_if_asked() -> None:
    """Called between cases: leaves the current shard unfinished when a stop was asked for.

    Raises:
        InterruptedRun: SIGINT or SIGTERM came.
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
        os.kill(os.getpid(), signal.SIGKILL)


def one_thread() -> None:
    """Workers share the machine: no library may start threads of its own."""
    import cv2

    cv2.setNumThreads(1)


def _start_worker(stop: Event) -> None:
    global _stop  # noqa: PLW0603 - a spawned worker gets its stop flag once, here
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    one_thread()
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _signals(stop: Event | threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set the stop flag; the old handlers come back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, lambda *_: stop.set()) for s in wanted]
    try:
        yield
    finally:
        for number, handler in zip(wanted, before, strict=True):
            signal.signal(number, handler)


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
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Results in the order they finish.

    Args:
        work: a module-level function; it may call :func:`stop_if_asked`.
        tasks: picklable, independent.
        workers: 1 = in this process.

    Raises:
        InterruptedRun: SIGINT or SIGTERM; running tasks end at their next case.
        SammedError: a worker died (out of memory, or killed).
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from _here(work, tasks)
    else:
        yield from _pool(work, tasks, workers)


def _here(work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
    global _stop  # noqa: PLW0603 - a fresh flag for this run
    _stop = threading.Event()
    one_thread()
    with _signals(_stop):
        for task in tasks:
            stop_if_asked()
            yield work(task)


def _pool(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    context = get_context("spawn")
    stop = context.Event()
    with _signals(stop), _single_threaded_children():
        pool = ProcessPoolExecutor(
            min(workers, len(tasks)), context, initializer=_start_worker, initargs=(stop,)
        )
        try:
            futures: list[Future[Result]] = [pool.submit(work, task) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as err:
            if stop.is_set():  # Ctrl-C also reached a worker that was still starting
                raise InterruptedRun("stopped while workers started") from err
            raise SammedError(
                "a worker process died (killed, or out of memory): run again to continue, with "
                "fewer --workers if memory is short"
            ) from err
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
