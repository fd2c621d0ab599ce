"""What the demo's score rows show: trained models against their start and their controls.

Over the masks of the test set alone, as the report's tables of that set: held-out datasets are
another question and have tables of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sammed_bench.scores import read_scores
from sammed_bench.statistics import PairedResult, compare_models
from sammed_bench.tables import CONTROL_SUFFIX
from sammed_model.config import Method

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = "held_out"
TRAINED: tuple[Method, ...] = ("ft-sam", "sam-med2d")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one trained model shows in one prompt mode, against start and control.

    Means are over masks, intervals clustered on the patient, as in the report.

    Attributes:
        over_start: trained minus the weights it started from.
        over_control: trained minus the control (same masks and prompts, permuted images).
        prompt_only: the control minus the start.
    """

    method: str
    mode: str
    over_start: PairedResult
    over_control: PairedResult
    prompt_only: PairedResult

    @property
    def holds(self) -> bool:
        """Better than start and control, by intervals that exclude 0."""
        return all(
            result.low is not None and result.low > 0
            for result in (self.over_start, self.over_control)
        )


def findings(results: Path, modes: tuple[str, ...]) -> Iterator[Finding]:
    """Paired comparisons of each trained model in each mode, from the rows of the test set."""
    rows = _test_set(read_scores(results))
    for method in TRAINED:
        control = method + CONTROL_SUFFIX
        for mode in modes:
            yield Finding(
                method=method,
                mode=mode,
                over_start=compare_models(rows, method, "sam", mode),
                over_control=compare_models(rows, method, control, mode),
                prompt_only=compare_models(rows, control, "sam", mode),
            )


def _test_set(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the sets that models were trained for; held-out ones where there are no others."""
    own = rows[rows["split"] != HELD_OUT]
    return own if len(own) else rows
