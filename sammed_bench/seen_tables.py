"""Contamination in a report: a table of dataset and model, and a stamp for captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sammed_bench.contamination import IN_SAMPLE, NOT_SEEN, OVERLAPPING, SEEN, UNKNOWN
from sammed_bench.tables import TRIVIAL, Table
from sammed_bench.types import OBSERVER

if TYPE_CHECKING:
    import pandas as pd

NAME = "contamination"
_NOTE = (
    "Whether a model has seen the patients it is scored on. seen (in-sample): trained on, or "
    "chosen by, this dataset; seen (overlapping): trained on a dataset that may hold the same "
    "patients; not seen: other patients of a dataset whose patients are known, or a dataset that "
    "is not among the declared ones; unknown: not declared, which is not clean."
)
_STAMPS = (IN_SAMPLE, OVERLAPPING, UNKNOWN)


def seen_table(records: Sequence[Mapping[str, Any]], models: Sequence[str]) -> Table:
    """A line per set and dataset, a column per trained model; the reasons in the last column.

    Args:
        records: of ``contamination.read``; what they do not name is unknown.
        models: labels in order, trivial baselines left out.
    """
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        if record["model"] not in models:
            continue
        where = record["set"], record["dataset"]
        line = lines.setdefault(where, {"set": where[0], "dataset": where[1]})
        stamp = record["stamp"]
        shown = record["state"] if stamp in ("", UNKNOWN) else f"{record['state']} ({stamp})"
        line[record["model"]] = shown
        if record["state"] != NOT_SEEN:
            line.setdefault("because", []).append(f"{record['model']}: {record['why']}")
    rows = [
        dict.fromkeys(models, UNKNOWN) | line | {"because": "; ".join(line.get("because", ()))}
        for line in lines.values()
    ]
    return Table(
        name=NAME,
        title="Seen in training",
        columns=("set", "dataset", *models, "because"),
        rows=rows,
        note=_NOTE,
    )


def stamps(records: Sequence[Mapping[str, Any]], models: Sequence[str]) -> str:
    """One sentence for captions: which models are in-sample, overlapping or unknown, and where."""
    parts = []
    for stamp in _STAMPS:
        found = []
        for model in models:
            own = [r for r in records if r["model"] == model]
            hit = sorted({r["dataset"] for r in own if r["stamp"] == stamp})
            if not own and stamp == UNKNOWN:
                found.append(f"{model} (nothing recorded)")
            elif hit:
                everywhere = len(hit) == len({r["dataset"] for r in own})
                found.append(f"{model} ({'every dataset' if everywhere else ', '.join(hit)})")
        if found:
            parts.append(f"{stamp}: {', '.join(found)}")
    return f"Training data: {'; '.join(parts)}." if parts else ""


def judged(rows: pd.DataFrame, models: Sequence[str]) -> list[str]:
    """Labels of models that could have seen something: no rule, no oracle, no person."""
    could = set(rows.loc[~rows["kind"].isin([TRIVIAL, "oracle", OBSERVER]), "model"])
    return [model for model in models if model in could]


def seen_by(
    records: Sequence[Mapping[str, Any]], set_name: str, dataset: str, models: Sequence[str]
) -> str:
    """One state where all models share it, else the models of each; no record is unknown."""
    states = dict.fromkeys(models, UNKNOWN)
    for record in records:
        if (record["set"], record["dataset"]) == (set_name, dataset) and record["model"] in states:
            states[record["model"]] = record["state"]
    return grouped(states)


def grouped(states: Mapping[str, str]) -> str:
    """The state that all share, else the names of each state."""
    found: dict[str, list[str]] = {}
    for name, state in states.items():
        found.setdefault(state, []).append(name)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{state}: {', '.join(names)}" for state, names in found.items())


def _counted(states: Iterable[str]) -> str:
    """The state that all share, else how many datasets have which."""
    found = Counter(states)
    if len(found) == 1:
        return next(iter(found))
    said = ", ".join(f"{found[s]} {s}" for s in (SEEN, NOT_SEEN, UNKNOWN) if found[s])
    return f"{said} (datasets)"


def with_seen(table: Table, records: Sequence[Mapping[str, Any]], models: Sequence[str]) -> Table:
    """A long table with a column ``seen`` behind ``model``: seen, not seen or unknown.

    A line over several datasets says how many have which state, if they differ.

    Args:
        table: ``overall`` or ``dataset``.
        records: of ``contamination.read``.
        models: labels that could have seen something; others get none.
    """
    within: dict[tuple[str, str], dict[str, str]] = {}
    for record in records:
        states = within.setdefault((record["model"], record["set"]), {})
        states[record["dataset"]] = str(record["state"])

    def state(row: Mapping[str, Any]) -> str | None:
        if row["model"] not in models:
            return None
        states = within.get((row["model"], row["set"]), {})
        if "dataset" in row:
            return states.get(row["dataset"], UNKNOWN)
        return _counted(states.values()) if states else UNKNOWN

    place = table.columns.index("model") + 1
    columns = (*table.columns[:place], "seen", *table.columns[place:])
    return replace(table, columns=columns, rows=[r | {"seen": state(r)} for r in table.rows])
