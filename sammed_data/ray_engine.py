"""The same tasks on a Ray cluster: ``--engine ray``. A lost node's shards run again elsewhere."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sammed_data.engine import WORKER_BLOCK_BYTES, one_thread
from sammed_data.pool import Failure, Outcome, attempt
from sammed_data.system import keep_memory
from sammed_data.types import InterruptedRun, SammedError, UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")
_POLL_S = 0.5
# A node that goes takes its running shards along; each is tried on other nodes so many times.
_RETRIES = 3


def run_ray(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    stop: threading.Event,
    gpus: float = 0,
) -> Iterator[tuple[Task, Outcome[Result]]]:
    """Each task with what came of it. The cluster is that of $RAY_ADDRESS, else this machine.

    Raises:
        UsageError: Ray is not installed.
        SammedError: no cluster answers at $RAY_ADDRESS.
        InterruptedRun: ``stop`` was set; running tasks are cancelled.
    """
    try:
        import ray
    except ImportError as err:
        raise UsageError(
            "--engine ray needs Ray, which is not installed: pip install 'sammed[ray]', or use "
            "--part i/N, which needs no cluster software"
        ) from err
    _connect(ray)
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(_attempt_alone)
    waiting = {remote.remote(work, task): task for task in tasks}
    try:
        while waiting:
            if stop.is_set():
                raise InterruptedRun("stopped; finished shards stay")
            ready, _ = ray.wait(list(waiting), timeout=_POLL_S)
            for reference in ready:
                yield waiting.pop(reference), _outcome(ray, reference)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


def _attempt_alone(work: Callable[[Task], Result], task: Task) -> Outcome[Result]:
    keep_memory(WORKER_BLOCK_BYTES)
    one_thread()
    return attempt(work, task)


def _connect(ray: Any) -> None:
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as err:
        raise SammedError(
            f"expected a Ray cluster at {address or 'this machine'}, but {err}: start one with "
            f"`ray start --head`, or set $RAY_ADDRESS"
        ) from err


def _outcome(ray: Any, reference: Any) -> Outcome[Any]:
    try:
        found: Outcome[Any] = ray.get(reference)
    except ray.exceptions.RayError as err:
        said = str(err).strip().splitlines()[0]
        return Outcome(failure=Failure(reason=f"Ray lost it: {type(err).__name__}: {said}"))
    return found
