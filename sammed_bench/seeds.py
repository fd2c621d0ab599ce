"""Training seeds and prompt seeds as parts of the variance of a mean.

Runs that differ in their seed alone are one method. From three training seeds up a result is one of
the *method*; below it is one of these *weights*, and says nothing about training again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sammed_bench.statistics import standard_error
from sammed_bench.tables import Table, mode_order

if TYPE_CHECKING:
    import pandas as pd

NAME = "seeds"
MIN_SEEDS = 3
_NOTE = (
    "Standard deviation of the mean Dice between training seeds and between prompt seeds, and the "
    "standard error over patients, in points of per cent. A result is one of a method from "
    f"{MIN_SEEDS} training seeds up, else of these weights. Intervals elsewhere hold patients "
    "alone."
)


def seed_table(rows: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> Table:
    """A line per set, mode and method.

    Args:
        rows: of ``tables.prepare``, of one or several prompt seeds.
        records: of ``contamination.read``: which model is a run of which method and seed.
    """
    known = {r["model"]: (r.get("method"), r.get("training_seed")) for r in records}
    scored = rows[rows["scored"]]
    found = scored[[known.get(m, (None, None))[0] is not None for m in scored["model"]]]
    lines: list[dict[str, Any]] = []
    methods: dict[str, list[str]] = {}
    for model in dict.fromkeys(found["model"]):
        methods.setdefault(str(known[model][0]), []).append(model)
    for set_name, part in found.groupby("set", sort=False):
        for mode in mode_order(part):
            chosen = part[part["mode"] == mode]
            for labels in methods.values():
                own = chosen[chosen["model"].isin(labels)]
                if len(own):
                    seeds = own["model"].map(lambda m: known[m][1]).to_numpy()
                    line = {"set": set_name, "mode": mode, "model": ", ".join(labels)}
                    lines.append(line | components(own, seeds))
    columns = ("set", "mode", "model", "result_of", "training_seeds", "prompt_seeds", "dice")
    parts = ("sd_training", "sd_prompts", "se_patients")
    return Table(name=NAME, title="Seeds", columns=(*columns, *parts), rows=lines, note=_NOTE)


def components(rows: pd.DataFrame, training_seeds: NDArray[Any]) -> dict[str, Any]:
    """Mean Dice and its parts of variance, of one method in one mode and set.

    Args:
        rows: with ``dice``, ``seed`` (of the prompts), ``patient``.
        training_seeds: one per row.
    """
    keyed = rows.assign(training=training_seeds)
    means = keyed.pivot_table(index="training", columns="seed", values="dice", aggfunc="mean")
    table_TP = means.to_numpy(float)
    runs, prompts = table_TP.shape
    per_patient = keyed.groupby(["sample_id", "mask_index", "patient"])["dice"].mean().reset_index()
    return {
        "result_of": "method" if runs >= MIN_SEEDS else "weights",
        "training_seeds": runs,
        "prompt_seeds": prompts,
        "dice": float(np.nanmean(table_TP)),
        "sd_training": _spread(table_TP),
        "sd_prompts": _spread(table_TP.T),
        "se_patients": standard_error(
            per_patient["dice"].to_numpy(float), per_patient["patient"].to_numpy()
        ),
    }


def _spread(table_AB: NDArray[np.float64]) -> float | None:
    """Standard deviation between rows, without what the columns alone would make; None for one."""
    a, b = table_AB.shape
    if a < 2:
        return None
    between = float(table_AB.mean(axis=1).var(ddof=1))
    if b > 1:
        inner = table_AB - table_AB.mean(axis=1, keepdims=True) - table_AB.mean(axis=0)
        inner += table_AB.mean()
        between -= float((inner**2).sum() / ((a - 1) * (b - 1))) / b
    return math.sqrt(max(between, 0.0))
