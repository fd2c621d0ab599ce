"""Tables of every metric that the rows hold, where more than Dice and IoU were asked for.

Lengths in mm and in px are never averaged together: the unit is a column that groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sammed_bench.metric_cards import ALWAYS, METRICS
from sammed_bench.statistics import cluster_interval
from sammed_bench.tables import VIEW_NAMES, Table, in_view, mode_order, model_order, prepare

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("metrics", "metrics-by-modality")
_PARTS = ("mean", "low", "high")
_NOTE = (
    "Arrows: what is better. Unit: of HD95 and of the tolerance of NSD; pixels where the spacing "
    "is unknown. An empty answer has NSD 0 and HD95 the diagonal of the image."
)


def metric_tables(rows: pd.DataFrame, models: Sequence[str] = ()) -> list[Table]:
    """Every metric, overall and by modality; none where only Dice and IoU were measured.

    Args:
        rows: score rows as read.
        models: order of the labels.
    """
    names = [m for m in METRICS if m in rows and rows[m].notna().any()]
    if set(names) <= set(ALWAYS):
        return []
    scored = prepare(rows[(rows["status"] != "unsupported") & rows["surface_unit"].notna()])
    labels, modes = model_order(rows, models), mode_order(rows)
    heads = ((), ("modality",))
    titles = ("All metrics", "All metrics, by modality")
    return [
        _table(scored, name, title, head, names, (modes, labels))
        for name, title, head in zip(NAMES, titles, heads, strict=True)
    ]


def _table(
    rows: pd.DataFrame,
    name: str,
    title: str,
    strata: tuple[str, ...],
    names: Sequence[str],
    order: tuple[list[str], list[str]],
) -> Table:
    head = ("set", "view", *strata, "surface_unit", "mode", "model")
    lines: list[dict[str, Any]] = []
    sizes: dict[tuple[Any, ...], int] = {}
    for view in VIEW_NAMES:
        kept = in_view(rows, view).assign(view=view)
        for key, part in kept.groupby(list(head), sort=True):
            line = dict(zip(head, key, strict=True))
            where = " ".join(str(line[column]) for column in head if column != "model")
            # View all comes first: what the others leave out is a share of that.
            whole = sizes.setdefault((key[0], *key[2:]), len(part))
            line |= {"masks": len(part), "left_out": 1 - len(part) / whole}
            line |= {"patients": int(part["patient"].nunique())}
            patients = part["patient"].to_numpy()
            for metric in names:
                found = cluster_interval(part[metric].to_numpy(float), patients, key=where)
                line |= {f"{metric}_mean": found.mean}
                line |= {f"{metric}_low": found.low, f"{metric}_high": found.high}
            lines.append(line)
    modes, labels = order
    lines.sort(
        key=lambda line: (
            *(str(line[column]) for column in head[:-2]),
            modes.index(line["mode"]),
            labels.index(line["model"]),
        )
    )
    columns = (*head, "masks", "left_out", "patients", *(f"{m}_{v}" for m in names for v in _PARTS))
    return Table(name=name, title=title, columns=columns, rows=lines, note=_NOTE)
