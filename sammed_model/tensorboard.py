"""TensorBoard beside the JSON log; its package is an extra and is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sammed_data.types import UsageError
from sammed_model.runs import Progress
from sammed_model.setup import Reporter
from sammed_model.step import StepResult
from sammed_model.validate import Validation


def require_tensorboard() -> Any:
    """Torch's writer.

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as err:
        raise UsageError(
            "--tensorboard needs the package tensorboard, found none: "
            "run `pip install 'sammed[tensorboard]'`"
        ) from err
    return SummaryWriter


class TensorBoard:
    """Scalars of a run under ``<run>/tensorboard``; what another reporter is told goes on to it.

    Args:
        folder: of the run.
        step: that the run stands at; later scalars of an interrupted run are dropped.
        then: reporter to pass everything on to.
    """

    def __init__(self, folder: Path, step: int, then: Reporter) -> None:
        writer = require_tensorboard()
        self._writer = writer(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._then = then

    def note(self, text: str) -> None:
        """Passed on."""
        self._then.note(text)

    def step(self, result: StepResult, progress: Progress, done: float) -> None:
        """Losses, rate and speed."""
        values = {
            "loss/mean": result.loss,
            "loss/first": result.first,
            "loss/last": result.last,
            "rate": result.rate,
            "gradient": result.gradient,
            "images_per_s": result.images / max(result.seconds, 1e-9),
        }
        for name, value in values.items():
            self._writer.add_scalar(name, value, progress.step)
        self._then.step(result, progress, done)

    def validated(self, validation: Validation, progress: Progress) -> None:
        """Dice by mode."""
        for mode, dice in validation.dice.items():
            self._writer.add_scalar(f"dice/{mode}", dice, progress.step)
        self._writer.flush()
        self._then.validated(validation, progress)
