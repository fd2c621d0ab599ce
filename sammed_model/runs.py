"""A run's folder: its number, its log, and the state that lets it continue.

Weights and moments are safetensors, the rest is JSON, nothing is pickled. A state is two files of
which the JSON is renamed into place last and names the other, so a killed run resumes from the
last complete one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sammed_data.types import ModelError, UsageError
from sammed_model.tensorfile import read_tensors, write_tensors

_NUMBERED = re.compile(r"(\d{3,})-")
_STATE_FORMAT = "training-state-1"


def create_run(parent: Path, method: str) -> Path:
    """Make ``NNN-<method>`` with the next free number.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(last_number(parent) + 1, 10**6):
            folder = parent / f"{number:03d}-{method}"
            try:
                folder.mkdir()
            except FileExistsError:  # another run took the number meanwhile
                continue
            return folder
    except OSError as err:
        raise UsageError(
            f"expected to write runs under {parent}, found {err.strerror}: give another --out"
        ) from err
    raise UsageError(f"{parent} has no free run number: give another --out")


def last_number(parent: Path) -> int:
    """Highest run number in a folder, 0 if there is none."""
    names = (_NUMBERED.match(path.name) for path in parent.glob("*-*"))
    return max((int(m.group(1)) for m in names if m), default=0)


def write_json(path: Path, content: Any) -> None:
    """Write by a temporary name, so that a reader never sees half a file."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Likewise, for text."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@dataclass(kw_only=True)
class Progress:
    """Where a run stands after ``step`` steps.

    Attributes:
        step: batches learned from.
        next_position: ``(epoch, batch)`` to read next.
        seconds: of training, over all resumptions.
        best: mean Dice of the best checkpoint, -1 before the first validation.
        best_step: its step.
        best_dice: its Dice by mode.
        start: Dice by mode before training.
        base_sha256: digest of the weights the run started from.
        corpus_sha256: content of the corpus it learns from; empty in states of older runs.
        log_bytes: length of the log that belongs to this state.
        stale: validations since the best one.
        images, masks: seen so far.
        processes: that learn together, each from its own share of the corpus.
    """

    step: int = 0
    next_position: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    best: float = -1.0
    best_step: int = 0
    best_dice: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)
    base_sha256: str = ""
    corpus_sha256: str = ""
    log_bytes: int = 0
    stale: int = 0
    images: int = 0
    masks: int = 0
    processes: int = 1


class RunFolder:
    """Files of one run.

    Args:
        path: of the folder.
        writes: False for all but one of the processes of a run: what they would write is dropped.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.config = path / "config.json"
        self.best = path / "best.safetensors"
        self.trained = path / "trained.safetensors"
        self.model = path / "model.safetensors"
        self.record = path / "run.json"
        self._log = path / "log.jsonl"
        self._state = path / "state.json"

    def log(self, **values: Any) -> None:
        """Append one line."""
        if not self.writes:
            return
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def save_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep the weights of the best checkpoint so far."""
        if self.writes:
            write_tensors(self.best, tensors, {"format": _STATE_FORMAT})

    def load_best(self) -> dict[str, Tensor]:
        """What ``save_best`` kept."""
        return read_tensors(self.best)

    def save_state(self, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
        """Make this the state a resumption starts from."""
        if not self.writes:
            return
        progress.log_bytes = self._log.stat().st_size if self._log.exists() else 0
        name = f"state-{progress.step:07d}.safetensors"
        write_tensors(self.path / name, tensors, {"format": _STATE_FORMAT})
        write_json(self._state, asdict(progress) | {"tensors": name})
        for old in self.path.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink()

    def load_state(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """The last complete state, with the log cut back to it; None if there is none yet.

        Raises:
            ModelError: the state is damaged.
        """
        if self.writes:
            self._drop_halves()
        if not self._state.exists():
            self._cut_log(0)
            return None
        try:
            raw = json.loads(self._state.read_text(encoding="utf-8"))
            tensors = read_tensors(self.path / raw.pop("tensors"))
            progress = Progress(**raw | {"next_position": tuple(raw["next_position"])})
        except (OSError, KeyError, TypeError, ValueError) as err:
            raise ModelError(
                f"expected the state of a training run in {self.path}, found {err}: start again"
            ) from err
        self._cut_log(progress.log_bytes)
        return progress, tensors

    def drop_state(self) -> None:
        """Remove what only a resumption needs."""
        for path in (*self.path.glob("state-*.safetensors"), self._state, self.best):
            path.unlink(missing_ok=True)

    def _drop_halves(self) -> None:
        """Remove what a killed process was writing, by our name or by that of safetensors."""
        for pattern in ("*.partial", ".tmp*"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def _cut_log(self, size: int) -> None:
        if self.writes and self._log.exists():
            os.truncate(self._log, size)
