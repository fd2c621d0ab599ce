"""One thread that encodes slices for all tabs, so that the page answers meanwhile.

A tab waits for one slice at a time: what it asked for before is dropped, even half done, unless
another tab waits for it too. Long work (following through a volume) gives way to slices.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sammed_data.types import SammedError
from sammed_model.attention import BlockForward, block_fast
from sammed_model.predictor import SammedPredictor
from sammed_model.sam import SamModel

_FAILED_KEPT = 64
State = Literal["none", "waiting", "loading", "encoding", "ready", "failed"]
Maker = Callable[[Callable[[State], None]], SammedPredictor]
log = logging.getLogger("sammed.page")


class CancelledWork(Exception):  # noqa: N818 - no error: nobody waits any more
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingKey:
    """What an embedding is of.

    Attributes:
        model: label.
        image: content of the image, see ``Opened.key``.
        window: policy and bounds in grey values.
    """

    model: str
    image: str
    axis: str
    index: int
    window: str


class Embeddings:
    """Predictors with their slice set, the least used dropped above a size.

    Args:
        most_bytes: of all embeddings together; the last one is kept whatever its size.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: OrderedDict[EmbeddingKey, tuple[SammedPredictor, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: EmbeddingKey) -> SammedPredictor | None:
        """The predictor of a slice, or None."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: EmbeddingKey, predictor: SammedPredictor) -> None:
        """Keep a predictor."""
        tensor = predictor.get_image_embedding()
        size = tensor.numel() * tensor.element_size()
        with self._lock:
            self.bytes += size - self._held.pop(key, (None, 0))[1]
            self._held[key] = (predictor, size)
            while self.bytes > self._most and len(self._held) > 1:
                self.bytes -= self._held.popitem(last=False)[1][1]


@dataclass(kw_only=True)
class Job:
    """Work that runs at the side of a session.

    Attributes:
        done, total: how far it is; total 0 = not known.
        error: sentence where it failed.
    """

    run: Callable[[Job], None]
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = "waiting"
    cancelled: bool = False
    done: int = 0
    total: int = 0
    said: str = ""
    error: str = ""
    result: Any = None

    def about(self) -> dict[str, Any]:
        """For the page."""
        return {
            "state": self.state, "done": self.done, "total": self.total, "said": self.said,
            "error": self.error,
        }  # fmt: skip


class Worker:
    """The thread, its queue and its store.

    Args:
        most_bytes: of the embeddings.
    """

    def __init__(self, most_bytes: int = 512 << 20) -> None:
        self.embeddings = Embeddings(most_bytes)
        self._changed = threading.Condition()
        self._slices: OrderedDict[EmbeddingKey, tuple[Maker, set[str]]] = OrderedDict()
        self._jobs: list[Job] = []
        self._failed: OrderedDict[EmbeddingKey, str] = OrderedDict()
        self._now: EmbeddingKey | None = None
        self._state: State = "none"
        self._share = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="sammed-encoder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the block that is computed."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.cancelled = True
            self._slices.clear()
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def want(self, session: str, key: EmbeddingKey, make: Maker) -> None:
        """A session waits for a slice, and no more for the one before."""
        with self._changed:
            self._drop(session, besides=key)
            self._failed.pop(key, None)
            if self.embeddings.get(key) is None:
                _, waiting = self._slices.setdefault(key, (make, set()))
                waiting.add(session)
            self._changed.notify_all()

    def leave(self, session: str) -> None:
        """A session waits for nothing more."""
        with self._changed:
            self._drop(session)

    def _drop(self, session: str, besides: EmbeddingKey | None = None) -> None:
        for key, (_, waiting) in list(self._slices.items()):
            if key != besides:
                waiting.discard(session)
                if not waiting:
                    del self._slices[key]

    def state(self, key: EmbeddingKey) -> tuple[State, float, str]:
        """Of a slice: state, share that is done, and why it failed."""
        with self._changed:
            if self.embeddings.get(key) is not None:
                return "ready", 1.0, ""
            if key in self._failed:
                return "failed", 0.0, self._failed[key]
            if key == self._now and key in self._slices:
                return self._state, self._share, ""
            return ("waiting" if key in self._slices else "none"), 0.0, ""

    def start(self, job: Job) -> Job:
        """Queue long work."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    def give_way(self, job: Job) -> None:
        """Called by long work between its steps: slices that tabs wait for come first.

        Raises:
            CancelledWork: nobody waits for the job.
        """
        while not job.cancelled and self._one_slice():
            pass
        if job.cancelled:
            raise CancelledWork

    def _loop(self) -> None:
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
            self._now, self._state, self._share = key, "waiting", 0.0
        try:
            predictor = make(self._set_state)
            with self._watched(predictor, key):
                self.embeddings.put(key, predictor)
        except CancelledWork:
            pass
        except SammedError as err:
            self._fail(key, str(err))
        except (RuntimeError, MemoryError) as err:  # out of memory must not end the thread
            log.exception("encoding failed")
            self._fail(key, f"the encoder failed: {err}")
        finally:
            with self._changed:
                self._now = None
                self._slices.pop(key, None)
        return True

    def _fail(self, key: EmbeddingKey, said: str) -> None:
        with self._changed:
            self._failed[key] = said
            while len(self._failed) > _FAILED_KEPT:
                self._failed.popitem(last=False)
