"""Who is first, and how sure that is: ranks by mean Dice, bootstrapped over patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sammed_bench.statistics import DRAWS, LEVEL, MIN_CLUSTERS, local_generator
from sammed_bench.tables import TRIVIAL, Table, mode_order, model_order

if TYPE_CHECKING:
    import pandas as pd

NAME = "ranks"
_NOTE = (
    "Rank by mean Dice over the masks that all models of a line's set and prompt were scored on; "
    "1 is best, equal means share their mean rank. Interval and the chance of being first: "
    f"patients drawn {DRAWS} times; none under {MIN_CLUSTERS} patients. Trivial baselines and the "
    "oracle are not ranked."
)


def rank_table(rows: pd.DataFrame, models: Sequence[str] = ()) -> Table:
    """Ranks per set and mode; sets with one model are left out.

    Args:
        rows: of ``tables.prepare``.
        models: order of the labels.
    """
    lines: list[dict[str, Any]] = []
    kept = rows[rows["scored"] & ~rows["kind"].isin([TRIVIAL, "oracle"])]
    for set_name, part in kept.groupby("set", sort=False):
        for mode in mode_order(part):
            own = part[part["mode"] == mode]
            labels = model_order(own, models)
            if len(labels) > 1:
                head = {"set": set_name, "mode": mode}
                lines += [head | line for line in _lines(own, labels, f"{set_name} {mode}")]
    lines.sort(key=lambda line: line["set"] == "held_out")
    columns = ("set", "mode", "model", "rank", "rank_low", "rank_high", "first", "dice")
    return Table(
        name=NAME, title="Ranks", columns=(*columns, "masks", "patients"), rows=lines, note=_NOTE
    )


def _lines(rows: pd.DataFrame, labels: Sequence[str], key: str) -> list[dict[str, Any]]:
    wide = rows.pivot_table(
        index=["patient", "sample_id", "mask_index"], columns="model", values="dice"
    )
    wide = wide[list(labels)].dropna()
    if wide.empty:
        return []
    scores_NM = wide.to_numpy(float)
    inverse = np.unique(wide.index.get_level_values("patient"), return_inverse=True)[1]
    means_M = scores_NM.mean(axis=0)
    ranks_M = ranks(means_M[None])[0]
    drawn_DM = drawn_ranks(scores_NM, inverse, key)
    lines = []
    for i, label in enumerate(labels):
        line = {"model": label, "rank": float(ranks_M[i]), "dice": float(means_M[i])}
        line |= {"rank_low": None, "rank_high": None, "first": None}
        if drawn_DM is not None:
            tail = 50 * (1 - LEVEL)
            low, high = np.percentile(drawn_DM[:, i], [tail, 100 - tail])
            line |= {"rank_low": float(low), "rank_high": float(high)}
            line |= {"first": float((drawn_DM[:, i] == drawn_DM.min(axis=1)).mean())}
        lines.append(line | {"masks": len(wide), "patients": int(inverse.max()) + 1})
    return sorted(lines, key=lambda line: float(line["rank"]))


def drawn_ranks(
    scores_NM: NDArray[np.float64], patient_N: NDArray[np.intp], key: str
) -> NDArray[np.float64] | None:
    """(draws, models) ranks of redrawn patients; None below MIN_CLUSTERS patients."""
    n = int(patient_N.max()) + 1
    if n < MIN_CLUSTERS:
        return None
    sums = np.stack([np.bincount(patient_N, weights=column) for column in scores_NM.T], axis=1)
    sizes = np.bincount(patient_N).astype(float)
    generator = local_generator("ranks", key)
    counts = generator.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    return ranks((counts @ sums) / (counts @ sizes)[:, None])


def ranks(means_DM: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks along the last axis, 1 for the largest; equal ones share their mean rank."""
    from scipy.stats import rankdata

    found: NDArray[np.float64] = rankdata(-means_DM, axis=-1)
    return found
