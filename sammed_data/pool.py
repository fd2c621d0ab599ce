"""A pool of spawned workers that outlives the death of one: its task failed, the others go on."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Generic, TypeVar

from sammed_data.system import STOP_SIGNALS
from sammed_data.types import InterruptedRun, SammedError

Task = TypeVar("Task")
Result = TypeVar("Result")
# How long the parent may be deaf to its own signals.
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a task has no result: a sentence, and the traceback where there is one."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Result]):
    """What came of a task: a result, a failure of this task, or an error that ends the run."""

    results: tuple[Result, ...] = ()
    failure: Failure | None = None
    error: SammedError | OSError | None = None


def attempt(work: Callable[[Task], Result], task: Task) -> Outcome[Result]:
    """Run one task; what nobody foresaw is told with its traceback and ends only this task."""
    try:
        return Outcome(results=(work(task),))
    except (SammedError, OSError) as err:  # a sentence for the user, or a full disk: for all
        return Outcome(error=err)
    except Exception as err:  # noqa: BLE001 - the border of a task: told in full, never swallowed
        text = f"unexpected {type(err).__name__}: {err}"
        return Outcome(failure=Failure(reason=text, detail=traceback.format_exc()))


def death(code: int | None) -> str:
    """In words, how a worker ended."""
    if code is not None and code == -getattr(signal, "SIGKILL", 0) < 0:
        return "its worker process died by SIGKILL (mostly: out of memory)"
    if code is not None and code < 0:
        return f"its worker process died by {signal.Signals(-code).name}"
    return f"its worker process died with exit code {code}"


def _serve(
    pipe: Connection,
    work: Callable[[Task], Result],
    start: Callable[[StopFlag], None],
    stop: StopFlag,
) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the parent decides; see `stop`
    threading.Thread(target=_die_with_parent, daemon=True).start()
    start(stop)
    pipe.send(None)  # ready: the time limit of a task does not count what a start takes
    while (held := pipe.recv()) is not None:
        pipe.send(attempt(work, held[0]))


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


class StopFlag:
    """One shared byte: set once, read without a lock that a killed worker might still hold."""

    def __init__(self) -> None:
        self._value = get_context("spawn").RawValue("b", 0)

    def set(self) -> None:
        """Ask all workers to stop at their next case."""
        self._value.value = 1

    def is_set(self) -> bool:
        """Whether anyone asked."""
        return bool(self._value.value)


class _Worker(Generic[Task, Result]):
    """One process, its pipe, and the task it holds."""

    def __init__(
        self,
        work: Callable[[Task], Result],
        start: Callable[[StopFlag], None],
        stop: StopFlag,
    ) -> None:
        context = get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(far, work, start, stop))
        self.process.start()
        far.close()
        self.held: tuple[Task, ...] = ()
        self._since, self._ready = 0.0, False

    def give(self, task: Task) -> None:
        self.held, self._since = (task,), time.monotonic()
        try:
            self.pipe.send((task,))
        except OSError:  # it died before it could listen; `outcome` says so
            self.process.join()

    def outcome(self) -> Outcome[Result] | None:
        """What came of the task it held, once its pipe has news; None: it has only just started."""
        try:
            found: Outcome[Result] | None = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Outcome(failure=Failure(reason=death(self.process.exitcode)))
        self._ready = True
        self._since = time.monotonic()
        return found

    def late(self, timeout_s: float | None) -> bool:
        if timeout_s is None or not (self.held and self._ready):
            return False
        return time.monotonic() - self._since > timeout_s

    def end(self) -> None:
        with suppress(OSError):  # already dead
            self.pipe.send(None)
        self.process.join()
        self.pipe.close()


class Pool(Generic[Task, Result]):
    """Runs tasks in ``workers`` processes.

    Args:
        work: a module-level function.
        start: called in each new worker with the stop flag.
        stop: set by whoever wants the run to end; ``work`` looks at it.
        workers: processes.
        timeout_s: a task that takes longer is killed with its worker and counts as failed.
    """

    def __init__(
        self,
        work: Callable[[Task], Result],
        *,
        start: Callable[[StopFlag], None],
        stop: StopFlag,
        workers: int,
        timeout_s: float | None = None,
    ) -> None:
        self._work, self._start, self._stop = work, start, stop
        self._wanted, self._timeout_s = workers, timeout_s
        self._workers: list[_Worker[Task, Result]] = []

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome[Result]]]:
        """Each task with what came of it, in the order they end.

        Raises:
            InterruptedRun: the stop flag was set; running tasks were let out at their next case.
        """
        waiting = deque(tasks)
        try:
            while True:
                self._hand_out(waiting)
                busy = [w for w in self._workers if w.held]
                if not busy:
                    break
                for worker, found in self._ended(busy):
                    task = worker.held[0]
                    worker.held = ()
                    if not (self._stop.is_set() and (found.error or found.failure)):
                        yield task, found
            if self._stop.is_set():
                raise InterruptedRun("stopped between two cases; finished shards stay")
        finally:
            self._stop.set()
            for worker in self._workers:
                worker.end()

    def _hand_out(self, waiting: deque[Task]) -> None:
        while waiting and not self._stop.is_set():
            idle = [w for w in self._workers if not w.held]
            if not idle and len(self._workers) >= self._wanted:
                return
            if not idle:
                idle = [_Worker(self._work, self._start, self._stop)]
                self._workers += idle
            idle[0].give(waiting.popleft())

    def _ended(
        self, busy: Sequence[_Worker[Task, Result]]
    ) -> list[tuple[_Worker[Task, Result], Outcome[Result]]]:
        ready = connection.wait([w.pipe for w in busy], _POLL_S)
        said = [(w, w.outcome()) for w in busy if w.pipe in ready]
        ended = [(w, found) for w, found in said if found is not None]
        for worker in busy:
            if worker.pipe not in ready and worker.late(self._timeout_s):
                worker.process.kill()
                reason = f"it took longer than {self._timeout_s:g} s and was stopped"
                ended.append((worker, Outcome(failure=Failure(reason=reason))))
                worker.process.join()
        for worker in [w for w in self._workers if not w.process.is_alive()]:
            self._workers.remove(worker)
            worker.end()
        return ended
