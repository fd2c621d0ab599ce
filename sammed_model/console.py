"""What `sammed train` shows, and how it takes signals and memory; used by the command line only."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from sammed_data.types import counted
from sammed_model.runs import Progress
from sammed_model.step import StepResult
from sammed_model.validate import Validation

_SMOOTHING = 0.05


class Console:
    """A bar with losses and images/s on a terminal; notes and validations as lines above it."""

    def __init__(self, *, quiet: bool = False) -> None:
        screen = RichConsole(soft_wrap=not sys.stdout.isatty())
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[losses]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=screen,
            disable=quiet or not screen.is_terminal,
        )
        self._quiet = quiet
        self._task = self._bar.add_task("training", total=1.0, losses="")
        self._loss: float | None = None
        self._speed: float | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """A line."""
        if not self._quiet:
            self._bar.console.print(text, highlight=False)

    def step(self, result: StepResult, progress: Progress, done: float) -> None:
        """Move the bar; loss and speed are running means."""
        self._loss = _smooth(self._loss, result.loss)
        self._speed = _smooth(self._speed, result.images / max(result.seconds, 1e-9))
        shown = f"step {progress.step}  loss {self._loss:.3f}  {self._speed:.1f} images/s"
        self._bar.update(self._task, completed=min(done, 1.0), losses=shown)

    def validated(self, validation: Validation, progress: Progress) -> None:
        """A line of Dice by mode."""
        dice = "  ".join(f"{mode} {100 * value:5.1f}" for mode, value in validation.dice.items())
        best = "  (best so far)" if progress.best_step == progress.step else ""
        masks = counted(validation.n_masks, "mask")
        self.note(
            f"step {progress.step:5d}  validation Dice %  {dice}  on {masks} "
            f"of {counted(validation.n_patients, 'patient')}{best}"
        )


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTHING * (new - old)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGINT or SIGTERM came; a second one ends at once.

    Not so under ``torchrun``: one Ctrl-C reaches a process from the terminal and from torchrun.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if came and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt
        came.append(number)

    before = {n: signal.signal(n, remember) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
