"""Where the time of training goes, by stage; costs nothing unless it is asked to measure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Stage = Literal["load", "augment", "encode", "decode", "loss", "backward", "optimiser"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class Meter:
    """Seconds by stage.

    Args:
        device: a GPU is waited for at the borders of stages, which slows training a little.
        on: False measures nothing.
    """

    def __init__(self, device: torch.device | None = None, *, on: bool = False) -> None:
        self._gpu = device is not None and device.type == "cuda"
        self._on = on
        self.seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Count what happens within as ``name``."""
        if not self._on:
            yield
            return
        self._wait()
        began = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.seconds[name] += time.perf_counter() - began

    def _wait(self) -> None:
        if self._gpu:
            torch.cuda.synchronize()
