"""One thread that encodes slices for all tabs, so that the page answers meanwhile.

A tab waits for one slice at a time: what it asked for before is dropped, even half done, unless
another tab waits for it too. Long work (following through a volume) gives way to slices.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sammed_app.page.embeddings import EmbeddingKey, Embeddings
from sammed_data.types import SammedError
from sammed_model.attention import block_fast
from sammed_model.predictor import SammedPredictor
from sammed_model.sam import SamModel

_FAILED_KEPT = 64
_NICE = 5
STORE_BYTES = 512 << 20
State = Literal["none", "waiting", "loading", "encoding", "ready", "failed"]
#: Gives the model and the picture to encode; runs on the thread.
Maker = Callable[[], tuple[SamModel, NDArray[np.uint8]]]
log = logging.getLogger("sammed.page")


class CancelledWork(Exception):  # noqa: N818 - no error: nobody waits any more
    """Nobody waits for the answer any more."""


@dataclass(kw_only=True)
class Job:
    """Long work of a session.

    Attributes:
        run: what is done; it calls ``Worker.give_way`` between its steps.
        said: what it does now.
        error: sentence where it failed.
    """

    run: Callable[[Job], None]
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = "waiting"
    cancelled: bool = False
    said: str = ""
    error: str = ""

    def about(self) -> dict[str, Any]:
        """For the page."""
        return {"state": self.state, "said": self.said, "error": self.error}


class Worker:
    """The thread, its queue and its store.

    Args:
        most_bytes: of the embeddings.
    """

    def __init__(self, most_bytes: int = STORE_BYTES) -> None:
        self.embeddings = Embeddings(most_bytes)
        self._changed = threading.Condition()
        self._slices: OrderedDict[EmbeddingKey, tuple[Maker, set[str]]] = OrderedDict()
        self._jobs: list[Job] = []
        self._failed: OrderedDict[EmbeddingKey, str] = OrderedDict()
        self._now: EmbeddingKey | None = None
        self._doing: State = "none"
        self._share = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """Stop after the block that is computed."""
        with self._changed:
            self._closed = True
            self._slices.clear()
            for job in self._jobs:
                job.cancelled = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def want(self, session: str, key: EmbeddingKey, make: Maker) -> None:
        """A session waits for a slice, and no more for the one before."""
        with self._changed:
            self._drop(session, besides=key)
            self._failed.pop(key, None)
            if self.embeddings.get(key) is None:
                self._slices.setdefault(key, (make, set()))[1].add(session)
                self._wake()

    def leave(self, session: str) -> None:
        """A session waits for nothing more."""
        with self._changed:
            self._drop(session)

    def state(self, key: EmbeddingKey) -> tuple[State, float, str]:
        """Of a slice: state, share that is done, and why it failed."""
        with self._changed:
            if self.embeddings.get(key) is not None:
                return "ready", 1.0, ""
            if key in self._failed:
                return "failed", 0.0, self._failed[key]
            if key == self._now and key in self._slices:
                return self._doing, self._share, ""
            return ("waiting" if key in self._slices else "none"), 0.0, ""

    def start(self, job: Job) -> None:
        """Queue long work."""
        with self._changed:
            self._jobs.append(job)
            self._wake()

    def give_way(self, job: Job) -> None:
        """Called by long work between its steps: slices that tabs wait for come first.

        Raises:
            CancelledWork: the job is no longer wanted.
        """
        while not job.cancelled and self._one_slice():
            pass
        if job.cancelled or self._closed:
            raise CancelledWork

    @contextmanager
    def stoppable(
        self, model: SamModel, wanted: Callable[[], bool], tell: Callable[[float], None]
    ) -> Iterator[None]:
        """Inside, the encoder asks before each of its blocks whether it is still wanted.

        Args:
            model: whose encoder runs on this thread.
            wanted: False raises ``CancelledWork`` from the encoder.
            tell: told the share of the blocks that is done.
        """
        if not isinstance(model, SamModel):  # ONNX runs in one piece
            yield
            return
        before = model.block_forward
        plain, done = before or block_fast, 0

        def block(module: Any, x_BHWC: Tensor) -> Tensor:
            nonlocal done
            if not wanted():
                raise CancelledWork
            out = plain(module, x_BHWC)
            done += 1
            tell(done / model.spec.depth)
            return out

        model.block_forward = block
        try:
            yield
        finally:
            model.block_forward = before

    def _drop(self, session: str, besides: EmbeddingKey | None = None) -> None:
        for key, (_, waiting) in list(self._slices.items()):
            if key != besides:
                waiting.discard(session)
                if not waiting:
                    del self._slices[key]

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._loop, name="sammed-encoder", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _loop(self) -> None:
        _behind_the_page()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._slices or self._jobs)
                if self._closed:
                    return
            if self._one_slice():
                continue
            with self._changed:
                job = self._jobs.pop(0) if self._jobs else None
            if job is not None:
                _run(job)

    def _one_slice(self) -> bool:
        """Encode the slice that was asked for first; False where none is."""
        with self._changed:
            if not self._slices:
                return False
            key, (make, _) = next(iter(self._slices.items()))
            self._now, self._doing, self._share = key, "loading", 0.0
        try:
            model, picture = make()
            predictor = SammedPredictor(model)
            self._doing = "encoding"
            with self.stoppable(model, lambda: key in self._slices, self._tell):
                predictor.set_image(picture)
            self.embeddings.put(key, predictor)
        except CancelledWork:
            return True  # not removed: it may be wanted again by now
        except SammedError as err:
            self._fail(key, str(err))
        except (RuntimeError, MemoryError) as err:  # out of memory must not end the thread
            log.exception("a slice could not be encoded")
            self._fail(key, f"the encoder failed: {err}")
        with self._changed:
            self._now = None
            self._slices.pop(key, None)
        return True

    def _tell(self, share: float) -> None:
        self._share = share

    def _fail(self, key: EmbeddingKey, said: str) -> None:
        with self._changed:
            self._failed[key] = said
            while len(self._failed) > _FAILED_KEPT:
                self._failed.popitem(last=False)


def _behind_the_page() -> None:
    """This thread, and those that torch starts from it, wait for whoever answers a click."""
    if sys.platform == "linux":  # elsewhere a priority is that of the whole process
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _run(job: Job) -> None:
    job.state = "running"
    try:
        job.run(job)
        job.state = "done"
    except CancelledWork:
        job.state = "cancelled"
    except SammedError as err:
        job.error, job.state = str(err), "failed"
    except (RuntimeError, MemoryError) as err:
        log.exception("long work failed")
        job.error, job.state = f"the model failed: {err}", "failed"
