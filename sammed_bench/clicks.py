"""Click dialogues on disk (one row per click round) and what they come to (columns of scores).

Clicks to a target: the first round whose IoU is at least 80, 85 or 90 %; where it is never reached
the number of clicks asked for counts, and ``noc_reached`` says up to which target it got (0, 80, 85
or 90). Area under the click curve: IoU over rounds 1 to N by the trapezoid rule, divided by N - 1.
A dialogue that failed reached nothing and has area 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sammed_bench.ask import Answer, Asked, ClickRound, accepts, pass_numbers
from sammed_bench.conditions import Conditions
from sammed_bench.files import whole
from sammed_bench.metric_cards import TARGETS
from sammed_bench.modes import BOX, POINTS, click_target, rounds_of, thread_of
from sammed_bench.types import Model

if TYPE_CHECKING:
    import pandas as pd

# IoU is a quotient of whole numbers: 0.8 itself must count as 80 %.
_ROUNDING = 1e-9
_TEXT = (
    *("model", "weights_sha256", "recipe", "kind", "protocol", "protocol_hash"),
    *("sample_id", "dataset", "split", "modality", "patient_id", "cluster", "case_id"),
)
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXT),
        ("seed", pa.int64()),
        ("mask_index", pa.int32()),
        ("in_view", pa.bool_()),
        # What the dialogue began with: points or bbox. Round 0 is the box alone.
        ("dialogue", pa.string()),
        ("round", pa.int32()),
        # The newest click in pixels of the slice; label 1 object, 0 background, -1 void.
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("label", pa.int8()),
        # Of the answer to it; worst where it failed.
        ("dice", pa.float64()),
        ("iou", pa.float64()),
        ("status", pa.string()),
    ]
)
ORDER = ("sample_id", "mask_index", "dialogue", "round")
COLUMNS = (*(f"noc{t}" for t in TARGETS), "noc_reached", "click_auc")


def click_rows(
    model: Model,
    image: Asked,
    answers: Mapping[str, Answer],
    conditions: Conditions,
    about: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The rounds of the dialogues about one image; those that never came failed.

    Args:
        model: who answered.
        image: asked about.
        answers: by mode.
        conditions: of the run.
        about: columns of each mask that say what it is and who answered.
    """
    for thread in (POINTS, BOX):
        modes = [
            mode for mode in conditions.modes if thread_of(mode) == thread and accepts(model, mode)
        ]
        if not any(rounds_of(mode) for mode in modes):
            continue
        longest = max(modes, key=rounds_of)
        rounds = {r.number: r for r in answers[longest].rounds}
        for number in pass_numbers(conditions, thread):
            found = rounds.get(number)
            for i, known in enumerate(about):
                yield {**known, "dialogue": thread, "round": number} | _values(found, i)


def _values(found: ClickRound | None, i: int) -> dict[str, Any]:
    """Click and scores of one mask in one round."""
    if found is None:
        return {"x": None, "y": None, "label": None, "dice": 0.0, "iou": 0.0, "status": "failed"}
    x = y = label = None
    if found.xy_M2 is not None and found.label_M is not None:
        x, y = found.xy_M2[i].tolist()
        label = int(found.label_M[i])
    good = bool(found.finite_M[i])
    return {
        "x": x,
        "y": y,
        "label": label,
        "dice": float(found.dice_M[i]) if good else 0.0,
        "iou": float(found.iou_M[i]) if good else 0.0,
        "status": "ok" if good else "failed",
    }


def click_columns(answer: Answer, mode: str, n_masks: int) -> list[dict[str, Any]]:
    """The columns of ``clicks:N`` for each mask; empty for other modes."""
    number = click_target(mode)
    if not number:
        return [dict.fromkeys(COLUMNS) for _ in range(n_masks)]
    worst = click_scores(np.zeros(number))
    if answer.masks_MHW is None:
        return [worst] * n_masks
    rounds = [r for r in answer.rounds if r.number]
    iou_NM = np.stack([(r.iou_M * r.finite_M).cpu().numpy() for r in rounds])
    finite = rounds[-1].finite_M.tolist()
    return [click_scores(iou_NM[:, i]) if finite[i] else worst for i in range(n_masks)]


def click_scores(iou_N: NDArray[np.float64]) -> dict[str, Any]:
    """``noc80``, ``noc85``, ``noc90``, ``noc_reached`` and ``click_auc`` of one dialogue.

    Args:
        iou_N: after each of N clicks, in [0, 1]; what failed is 0.
    """
    found: dict[str, Any] = {}
    reached = 0
    for target in TARGETS:
        there = np.flatnonzero(iou_N >= target / 100 - _ROUNDING)
        found[f"noc{target}"] = int(there[0]) + 1 if len(there) else len(iou_N)
        reached = target if len(there) else reached
    area = np.trapezoid(iou_N) / (len(iou_N) - 1) if len(iou_N) > 1 else iou_N[0]
    return found | {"noc_reached": reached, "click_auc": float(area)}


def write_clicks(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the click table of a part, by a temporary name; nothing where there is no dialogue."""
    names = SCHEMA.names
    ordered = sorted(
        ({name: row[name] for name in names} for row in rows),
        key=lambda r: tuple(r[name] for name in ORDER),
    )
    if not ordered:
        return
    with whole(path) as partial:
        pq.write_table(pa.Table.from_pylist(ordered, schema=SCHEMA), partial)


def read_clicks(results: Path) -> pd.DataFrame | None:
    """All click rounds of a results folder, in order; None where there are none."""
    paths = sorted((results / "clicks").glob("part-*.parquet"))
    if not paths:
        return None
    tables = [pq.ParquetFile(path).read() for path in paths]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    ordered: pd.DataFrame = frame.sort_values(["model", *ORDER], kind="stable")
    return ordered.reset_index(drop=True)
