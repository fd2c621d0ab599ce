"""The group that a model answers worst, beside its mean: a mean hides who is served badly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sammed_bench.tables import TRIVIAL, Table

NAME = "worst-groups"
MIN_PATIENTS = 5
_KINDS = ("modality", "organ", "dataset", "size")
_NOTE = (
    "The group of each kind in which a model's mean Dice is lowest, and how far that is from its "
    f"mean over all masks, in points of per cent. Groups of fewer than {MIN_PATIENTS} patients are "
    "left out, and kinds with one such group. The lowest of many groups is low by chance "
    "too: intervals say how sure each mean is, not how sure the choice of the group."
)


def worst_table(long: Sequence[Table]) -> Table:
    """A line for each set, mode, model and kind of group that can be compared, view ``all``.

    Args:
        long: tables of ``tables.all_tables``; Dice in shares of 1.
    """
    by_name = {table.name: table for table in long}
    lines = []
    for mean in by_name["overall"].rows:
        if mean["view"] == "all" and mean["dice"] is not None and mean["recipe"] != TRIVIAL:
            lines += [line for kind in _KINDS for line in _lowest(by_name[kind], kind, mean)]
    lines.sort(key=lambda line: line["set"] == "held_out")
    columns = ("set", "mode", "model", "by", "worst", "dice", "low", "high", "difference")
    return Table(
        name=NAME,
        title="Worst groups",
        columns=(*columns, "masks", "patients"),
        rows=lines,
        note=_NOTE,
    )


def _lowest(table: Table, kind: str, mean: dict[str, Any]) -> Iterator[dict[str, Any]]:
    where = ("set", "view", "mode", "model")
    groups = [
        row
        for row in table.rows
        if all(row[name] == mean[name] for name in where)
        and row["dice"] is not None
        and row["patients"] >= MIN_PATIENTS
    ]
    if len(groups) < 2:
        return
    low = min(groups, key=lambda row: row["dice"])
    kept = {name: low[name] for name in ("dice", "low", "high", "masks", "patients")}
    head = {name: mean[name] for name in ("set", "mode", "model")}
    yield head | {"by": kind, "worst": low[kind], "difference": low["dice"] - mean["dice"]} | kept
