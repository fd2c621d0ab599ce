"""What a report says beside the scores: the paper's tables, ranks, seeds, contamination, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sammed_bench import (
    contamination,
    level_tables,
    offsets,
    paper_tables,
    ranks,
    report_charts,
    seeds,
    seen_tables,
    speed,
    speed_table,
    worst,
)
from sammed_bench.paper_values import published
from sammed_bench.reading import Section, cuts, failures_table
from sammed_bench.tables import Table, prepare
from sammed_bench.text import with_interval

if TYPE_CHECKING:
    import pandas as pd

_NAMES = (
    *(worst.NAME, ranks.NAME, offsets.NAME, *level_tables.NAMES.values(), seeds.NAME),
    *(seen_tables.NAME, speed_table.NAME, "failures"),
)
_FOLDED = (ranks.NAME, *level_tables.NAMES.values())
# Sections whose numbers depend on what a model has seen.
_STAMPED = ("overall", "comparisons", "modality", "group", "organ", "dataset", "size", "structure")


def more_tables(
    results: Path,
    rows: pd.DataFrame,
    overall: Table,
    models: Sequence[str] = (),
    *,
    record: Mapping[str, Any],
    beside: Sequence[Path] = (),
) -> list[Table]:
    """Those that have a line.

    Args:
        results: folder.
        rows: its score rows as read.
        overall: the long table of that name.
        models: order of the labels.
        record: ``bench.json``.
        beside: results folders of other box offsets.
    """
    made = prepare(rows)
    records = contamination.read(results)
    order = list(dict.fromkeys([*models, *rows["model"]]))
    timed = speed.read(results)
    found = [
        *paper_tables.paper_tables(made, order, record=record, speed=timed, seen=records),
        *([offsets.offset_table(beside, order)] if beside else []),
        ranks.rank_table(made, models),
        *level_tables.level_tables(results, models),
        seeds.seed_table(made, records),
        seen_tables.seen_table(records, seen_tables.judged(rows, order)),
        speed_table.speed_table(timed, overall),
        failures_table(made),
    ]
    return [table for table in found if table.rows]


def more_sections(
    long: Sequence[Table], models: Sequence[str], kinds: Mapping[str, str], protocol: str
) -> list[Section]:
    """A section for each of them that is there; those by structure stand folded.

    Args:
        long: every table.
        models: order of the labels.
        kinds: kind of each label.
        protocol: how prompts were drawn.
    """
    by_name = {table.name: table for table in long}
    charts = {
        offsets.NAME: lambda table: report_charts.offset_charts(table, models),
        speed_table.NAME: lambda table: report_charts.speed_charts(
            table, by_name["overall"], models
        ),
    }
    found = [_paper(by_name, models, kinds, protocol)]
    for name in _NAMES:
        if name in by_name:
            table = by_name[name]
            full = by_name.get(f"{name}-and-structure")
            found.append(
                Section(
                    name=name,
                    title=table.title,
                    tables=tuple(cuts(with_interval(replace(table, note="")))),
                    full=None if full is None else replace(full, title="", note=""),
                    note=table.note,
                    charts=charts[name](table) if name in charts else (),
                    folded=name in _FOLDED,
                )
            )
    return found


def _paper(
    by_name: Mapping[str, Table], models: Sequence[str], kinds: Mapping[str, str], protocol: str
) -> Section:
    """The paper's tables and its Figure 5; a sentence where another protocol was asked."""
    printed = published()
    here = [by_name[name] for name in paper_tables.NAMES if name in by_name]
    shown = [cut for table in here for cut in cuts(paper_tables.joined_gains(table))]
    apart = [by_name.get(name + paper_tables.PRINTED) for name in paper_tables.NAMES]
    fits = protocol in printed.protocols
    some = paper_tables.MICCAI in by_name
    note = (
        f"{printed.paper}. Means over masks in the view {printed.view}, by protocol {protocol}; "
        "Tables 2 and 3 on the test patients of this corpus, Table 4 on its held-out datasets. A "
        "published value stands beside ours only where both are means over the same masks. "
        "In-sample: patients of its test images were trained on. Overlapping: another edition "
        "with the same patients was. Gated: the data are given out on application only. "
        f"{printed.note}" + ("" if some else " None of the nine sets of Table 4 is in this corpus.")
        if fits
        else f"Scored by protocol {protocol or 'unknown'}; the paper's tables need one of "
        f"{', '.join(printed.protocols)}."
    )
    return Section(
        name="paper",
        title="The paper's Tables 2, 3, 4 and Figure 5",
        tables=(*shown, *(table for table in apart if table is not None)),
        note=note,
        charts=report_charts.paper_charts(by_name, models, kinds) if fits else (),
    )


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
