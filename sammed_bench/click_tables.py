"""Tables of the modes ``clicks:N``: clicks to a target, and the curve of the scores over clicks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sammed_bench.metric_cards import TARGETS
from sammed_bench.modes import POINTS, click_target, in_order
from sammed_bench.statistics import cluster_interval
from sammed_bench.tables import TRIVIAL, VIEW_NAMES, Table, in_view, model_order, prepare

if TYPE_CHECKING:
    import pandas as pd

CLICKS, CURVE = "clicks", "click-curve"
NAMES = (CLICKS, CURVE)
_NOTE = (
    "Clicks to a target: the first round whose IoU is at least 80, 85 or 90 %; a mask that never "
    "gets there counts with all N clicks and under 'never'. Area: of mean IoU over the clicks 1 to "
    "N, 100 % if all were right from the first on. A dialogue that failed never gets there and has "
    "area 0."
)


def click_tables(
    rows: pd.DataFrame, clicks: pd.DataFrame | None, models: Sequence[str] = ()
) -> list[Table]:
    """``clicks`` and ``click-curve``; none where no mode ``clicks:N`` was asked.

    Args:
        rows: score rows as read.
        clicks: click rounds as read.
        models: order of the labels.
    """
    modes = [mode for mode in in_order(rows["mode"].unique()) if click_target(mode)]
    if not modes:
        return []
    labels = model_order(rows, models)
    made = prepare(rows[rows["mode"].isin(modes)])
    lines = list(_clicks(made, modes, labels))
    found = [
        Table(
            name=CLICKS,
            title="Clicks to 80, 85 and 90 % IoU",
            columns=(
                "set",
                "view",
                "mode",
                "model",
                *_COUNTS,
                *_VALUES,
                "click_auc",
                "low",
                "high",
            ),
            rows=lines,
            note=_NOTE,
        )
    ]
    if clicks is not None:
        most = max(map(click_target, modes))
        chosen = clicks[(clicks["dialogue"] == POINTS) & clicks["round"].between(1, most)]
        found.append(_curve(chosen, labels))
    return found


_COUNTS = ("masks", "left_out", "patients", "failed")
_AREA = ("click_auc", "low", "high")
_VALUES = tuple(
    name
    for target in TARGETS
    for name in (f"noc{target}", f"never{target}", f"noc{target}_low", f"noc{target}_high")
)


def _clicks(
    rows: pd.DataFrame, modes: Sequence[str], labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    sizes: dict[tuple[Any, str, str], int] = {}
    for view in VIEW_NAMES:
        for set_name, part in in_view(rows, view).groupby("set", sort=True):
            for mode in modes:
                for model in labels:
                    own = part[(part["mode"] == mode) & (part["model"] == model)]
                    if len(own) and (own["scored"].any() or own["kind"].iloc[0] != TRIVIAL):
                        where = {"set": set_name, "view": view, "mode": mode, "model": model}
                        # View all comes first: what the others leave out is a share of that.
                        whole = sizes.setdefault((set_name, mode, model), len(own))
                        line = _line(own, f"{view} {set_name} {mode}")
                        yield where | line | {"left_out": 1 - len(own) / whole}


def _line(own: pd.DataFrame, key: str) -> dict[str, Any]:
    """Counts and means of one model; values are None where it cannot be asked."""
    line: dict[str, Any] = {"masks": len(own), "patients": int(own["patient"].nunique())}
    line |= {"failed": int(own["failed"].sum()), "kind": str(own["kind"].iloc[0])}
    scored = own[own["scored"]]
    if not len(scored):
        return line
    patients = scored["patient"].to_numpy()
    for target in TARGETS:
        name = f"noc{target}"
        found = cluster_interval(scored[name].to_numpy(float), patients, key=key)
        line |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        line[f"never{target}"] = int((scored["noc_reached"] < target).sum())
    area = cluster_interval(scored["click_auc"].to_numpy(float), patients, key=key)
    return line | {"click_auc": area.mean, "low": area.low, "high": area.high}


def _curve(clicks: pd.DataFrame, labels: Sequence[str]) -> Table:
    """Mean Dice and IoU after each click."""
    lines = []
    for view in VIEW_NAMES:
        kept = in_view(clicks, view).rename(columns={"split": "set"})
        for key, own in kept.groupby(["set", "model", "round"], sort=True):
            where: dict[str, Any] = dict(zip(("set", "model", "clicks"), key, strict=True))
            lines.append(
                where
                | {"view": view}
                | {"masks": len(own), "failed": int((own["status"] == "failed").sum())}
                | {"dice": float(own["dice"].mean()), "iou": float(own["iou"].mean())}
                | {"recipe": str(own["recipe"].iloc[0])}
            )
    order = {label: i for i, label in enumerate(labels)}
    views = {view: i for i, view in enumerate(VIEW_NAMES)}
    lines.sort(key=lambda r: (views[r["view"]], r["set"], order[r["model"]], r["clicks"]))
    return Table(
        name=CURVE,
        title="Scores over clicks",
        columns=("set", "view", "model", "clicks", "masks", "failed", "dice", "iou"),
        rows=lines,
        note="Means over masks after each click; a round that failed counts as 0.",
    )


def short(table: Table) -> Table:
    """The table ``clicks`` for reading: intervals of the area alone."""
    columns = tuple(c for c in table.columns if not c.startswith("noc") or c[-1].isdigit())
    return Table(name=table.name, title=table.title, columns=columns, rows=table.rows)
