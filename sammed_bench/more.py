"""What a report says beside the scores: ranks, seeds, contamination, images, volumes, speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sammed_bench import contamination, level_tables, ranks, seeds, seen_tables, speed, speed_table
from sammed_bench.reading import Section, cuts
from sammed_bench.tables import Table, prepare

if TYPE_CHECKING:
    import pandas as pd

_NAMES = (ranks.NAME, *level_tables.NAMES.values(), seeds.NAME, seen_tables.NAME, speed_table.NAME)
# Sections whose numbers depend on what a model has seen.
_STAMPED = ("overall", "comparisons", "modality", "group", "organ", "dataset", "size", "structure")


def more_tables(
    results: Path, rows: pd.DataFrame, overall: Table, models: Sequence[str] = ()
) -> list[Table]:
    """Those that have a line.

    Args:
        results: folder.
        rows: its score rows as read.
        overall: the long table of that name.
        models: order of the labels.
    """
    made = prepare(rows)
    records = contamination.read(results)
    order = list(dict.fromkeys([*models, *rows["model"]]))
    found = [
        ranks.rank_table(made, models),
        *level_tables.level_tables(results, models),
        seeds.seed_table(made, records),
        seen_tables.seen_table(records, seen_tables.judged(rows, order)),
        speed_table.speed_table(speed.read(results), overall),
    ]
    return [table for table in found if table.rows]


def more_sections(long: Sequence[Table]) -> list[Section]:
    """A section for each of them that is there; those by structure stand folded."""
    by_name = {table.name: table for table in long}
    found = []
    for name in _NAMES:
        if name in by_name:
            table = by_name[name]
            full = by_name.get(f"{name}-and-structure")
            found.append(
                Section(
                    name=name,
                    title=table.title,
                    tables=tuple(cuts(replace(table, note=""))),
                    full=None if full is None else replace(full, title="", note=""),
                    note=table.note,
                )
            )
    return found


def stamped(sections: Sequence[Section], stamp: str) -> list[Section]:
    """The same sections; captions of scores say who is in-sample, overlapping or unknown."""
    return [
        replace(section, note=f"{section.note} {stamp}".strip())
        if section.name in _STAMPED
        else section
        for section in sections
    ]


def stamp_of(results: Path, rows: pd.DataFrame, models: Sequence[str]) -> str:
    """The sentence for captions."""
    return seen_tables.stamps(contamination.read(results), seen_tables.judged(rows, models))
