"""A score row click by click: the benchmark's own prompts and what the model answered to each.

What was kept is shown as it was scored. What was not kept is computed again from the weights by
the benchmark's own code, and said to be so; without weights the clicks and scores remain.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sammed_app.page.asked_models import AskedModels
from sammed_app.page.library import Library
from sammed_app.page.scores_table import ScoresTable
from sammed_bench import openings, predictions, run
from sammed_bench.ask import Answer, Asked, answer_batch, pass_numbers
from sammed_bench.metrics import dice, iou, overlap
from sammed_bench.modes import BOX, POINTS, rounds_of, thread_of
from sammed_bench.record import RECORD
from sammed_bench.rescore import conditions_of
from sammed_bench.types import ImagePrompts
from sammed_data.corpus import VIEWS, Row
from sammed_data.types import CorpusError, ModelError, UsageError
from sammed_model.dataset import Samples

_KEPT = 64
# Scores are compared after a way through other batches, which may flip a pixel.
_SAME_DICE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Step:
    """What was asked and answered at one point of a dialogue.

    Attributes:
        number: clicks so far; 0 = box, mask or scribble alone.
        points: [x, y, label] so far; label -1 = nothing was left to click on.
        hint: run lengths of the mask prompt.
        runs: of the answer; None = not kept.
    """

    number: int
    points: list[list[float]]
    box: list[float] | None = None
    hint: list[int] | None = None
    runs: list[int] | None = None
    dice: float | None = None
    iou: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(self.__dict__)


class Replayer:
    """Replays of the rows of one results folder; the last few are kept.

    Args:
        results: folder of ``sammed bench``.
        scores: its rows.
        library: the corpus that was scored.
        models: who can be asked again.

    Raises:
        CorpusError: the record is damaged or of another version.
    """

    def __init__(
        self, results: Path, scores: ScoresTable, library: Library, models: AskedModels
    ) -> None:
        self._results, self._scores = results, scores
        self._library, self._models = library, models
        self._conditions = conditions_of(read_record(results))
        self._lock = threading.Lock()
        self._done: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._store: tuple[Path, openings.Store] | None = None

    def replay(self, number: int) -> dict[str, Any]:
        """The steps of a score row, and how they were come by.

        Raises:
            UsageError: no such row, or its image is not in the corpus that is open.
        """
        with self._lock:  # one model works at a time
            found = self._done.get(number)
            if found is None:
                found = self._made(number)
                self._done[number] = found
                if len(self._done) > _KEPT:
                    self._done.popitem(last=False)
            return found

    def _made(self, number: int) -> dict[str, Any]:
        score = self._scores.row(number)
        place = self._library.number(score["sample_id"])
        if place is None:
            raise UsageError(
                f"the image {score['sample_id']!r} is not in {self._library.corpus.root}: open the "
                "corpus that was scored with --corpus"
            )
        if score["status"] == "unsupported":
            return _told([], "none", "This model does not take such a prompt.", score)
        part = self._scores.part_path(number)
        kept = list(self._kept(part, score))
        if kept and all(step.runs is not None for step in kept):
            return _told(kept, "kept", "Kept predictions, as they were scored.", score)
        try:
            steps = self._again(score, self._library.row(place), part)
        except (ModelError, CorpusError) as err:
            return _told(kept, "clicks", f"Not every answer was kept, and {err}", score)
        return _told(steps, "model", "Computed again from the weights.", score)

    def _kept(self, part: Path, score: Mapping[str, Any]) -> Iterator[Step]:
        """What lies on disk: prompts, click rounds, predictions of the modes that were scored."""
        thread = thread_of(score["mode"])
        opening = self._opening(part, score, thread)
        masks = {
            row["mode"]: row
            for row in _rows_of(self._results / predictions.FOLDER / part.name, score)
        }
        if thread not in (POINTS, BOX):
            points = _points(opening)
            yield Step(
                number=0,
                points=points,
                hint=opening.get("mask_runs"),
                runs=masks.get(score["mode"], {}).get("runs"),
                dice=score["dice"],
                iou=score["iou"],
            )
            return
        rounds = {
            row["round"]: row
            for row in _rows_of(self._results / "clicks" / part.name, score)
            if row["dialogue"] == thread
        }
        by_number = {
            rounds_of(mode): row for mode, row in masks.items() if thread_of(mode) == thread
        }
        points = []
        for number in self._numbers(score["mode"]):
            said = rounds.get(number, {})
            if self._conditions.protocol.clicks == "at-once":
                points = _points(self._opening(part, score, POINTS))[:number] if number else []
            elif said.get("x") is not None:
                points = [*points, [said["x"], said["y"], said["label"]]]
            yield Step(
                number=number,
                points=points,
                box=opening.get("box") if thread == BOX else None,
                runs=by_number.get(number, {}).get("runs"),
                dice=said.get("dice", score["dice"]),
                iou=said.get("iou", score["iou"]),
            )

    def _numbers(self, mode: str) -> list[int]:
        """After how many clicks there is an answer on the way to a mode."""
        only = replace(self._conditions, modes=(mode,))
        return pass_numbers(only, thread_of(mode))

    def _opening(self, part: Path, score: Mapping[str, Any], thread: str) -> Mapping[str, Any]:
        store = self._stored(part)
        by_mode = store.found.get(score["sample_id"], {})
        found: Mapping[str, Any] = by_mode.get(thread, {}).get(score["mask_index"], {})
        return found

    def _stored(self, part: Path) -> openings.Store:
        number = int(part.stem.rpartition("-")[2])
        path = run.prompts_path(self._results, self._conditions, number)
        if self._store is None or self._store[0] != path:
            self._store = (path, openings.Store.open(path))
        return self._store[1]

    def _again(self, score: Mapping[str, Any], row: Row, part: Path) -> list[Step]:
        """Ask the model anew, about all masks of the image as the benchmark did.

        Raises:
            ModelError: it is not there, is another one, or fails.
        """
        model = self._models.load(score, self._conditions.edition)
        masks = Samples(self._library.corpus, [row], view=VIEWS["all"]).masks[row.sample_id]
        place = [mask.index for mask in masks].index(score["mask_index"])
        device = self._models.device
        asked = Asked.of(row, masks, self._conditions, device, self._stored(part))
        thread = thread_of(score["mode"])
        modes = {score["mode"]: 0}
        if thread in (POINTS, BOX):
            modes = {_mode(thread, n): n for n in self._numbers(score["mode"])}
        only = replace(self._conditions, modes=tuple(modes))
        answers = answer_batch(model, [asked], only)
        return [_step(asked, answers[mode][0], place, n) for mode, n in modes.items()]


def read_record(results: Path) -> dict[str, Any]:
    """``bench.json``.

    Raises:
        CorpusError: not there, or damaged.
    """
    path = results / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise CorpusError(
            f"expected the record of a benchmark at {path}, found {err}: run `sammed bench "
            f"--out {results}`, or name another folder with --results"
        ) from err
    if not isinstance(record, dict) or "conditions" not in record:
        raise CorpusError(f"expected the record of a benchmark at {path}, found other JSON")
    return record


def _mode(thread: str, number: int) -> str:
    if thread == BOX:
        return f"bbox+{number}pt" if number else "bbox"
    return f"{number}pt"


def _rows_of(path: Path, score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table about one mask; none where there is no table."""
    if not path.is_file():
        return []
    wanted = [("sample_id", "=", score["sample_id"]), ("mask_index", "=", score["mask_index"])]
    found: list[dict[str, Any]] = pq.read_table(path, filters=wanted, partitioning=None).to_pylist()
    return found


def _points(opening: Mapping[str, Any]) -> list[list[float]]:
    flat, labels = opening.get("points") or [], opening.get("labels") or []
    return [[flat[2 * i], flat[2 * i + 1], label] for i, label in enumerate(labels)]


def _step(asked: Asked, answer: Answer, place: int, number: int) -> Step:
    """One answer about one mask.

    Raises:
        ModelError: the model failed.
    """
    if answer.masks_MHW is None:
        raise ModelError(f"the model failed: {answer.error}")
    counts = overlap(answer.masks_MHW, asked.target.truth_MHW, asked.target.valid_HW)
    prompts = answer.prompts or ImagePrompts()
    points: Sequence[list[float]] = []
    if prompts.points_MN2 is not None and prompts.point_labels_MN is not None:
        labels = prompts.point_labels_MN[place].tolist()
        spots = prompts.points_MN2[place].tolist()
        points = [[*xy, label] for xy, label in zip(spots, labels, strict=True)]
    boxes, hints = prompts.boxes_M4, prompts.masks_MHW
    return Step(
        number=number,
        points=list(points),
        box=None if boxes is None else boxes[place].tolist(),
        hint=None if hints is None else openings.runs(hints[place].cpu().numpy()),
        runs=openings.runs(answer.masks_MHW[place].cpu().numpy()),
        dice=float(dice(counts)[place]),
        iou=float(iou(counts)[place]),
    )


def _told(steps: list[Step], how: str, note: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the route; says where the last step does not give the score of the row."""
    last = steps[-1].dice if steps else None
    same = last is None or score["dice"] is None or abs(last - score["dice"]) <= _SAME_DICE
    if how == "model" and not same:
        note += f" The last answer scores {100 * float(last or 0):.2f}, not what the row says."
    return {"how": how, "note": note, "same": same, "steps": [step.as_dict() for step in steps]}
