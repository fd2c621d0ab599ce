"""``--timeout``: how long a model may take for one image, all prompts together.

Only the time inside the model counts. What runs in Python, waits or sleeps is stopped when the time
is up; a call into compiled code that never comes back can only be judged once it does.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sammed_bench.types import ImagePrompts, Model, ModelFacts, Prediction

# What a model may have beside its two methods; see ``types``.
_MORE = ("reveal", "introduce", "covers")


def limited(model: Model, seconds: float | None) -> Model:
    """The model itself, or one that fails where it takes longer than this for an image."""
    return model if seconds is None else _Limited(model, seconds)


class _Limited:
    """A model on the clock; a batch has as much time as its images together."""

    def __init__(self, model: Model, seconds: float) -> None:
        self._model, self._seconds, self._left = model, seconds, 0.0
        for name in _MORE:
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    @property
    def facts(self) -> ModelFacts:
        """Who it is."""
        return self._model.facts

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """See a batch of images; the clock starts."""
        self._left = self._seconds * len(images)
        with self._clock():
            return self._model.encode(images)

    def predict(self, state: Any, prompts: Sequence[ImagePrompts]) -> Sequence[Prediction]:
        """Answer within what is left."""
        with self._clock():
            return self._model.predict(state, prompts)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        if self._left <= 0:
            self._late()
        began = time.monotonic()
        try:
            with _alarm(self._left, self._late):
                yield
        finally:
            self._left -= time.monotonic() - began
        if self._left <= 0:
            self._late()

    def _late(self, *_: Any) -> NoReturn:
        raise TimeoutError(
            f"time-out, the model took longer than {self._seconds:g} s for an image (--timeout)"
        )


@contextmanager
def _alarm(seconds: float, ring: Any) -> Iterator[None]:
    """``ring`` is called inside the block when its time is up, where the system can do that."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
