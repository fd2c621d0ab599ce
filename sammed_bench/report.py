"""Results folder -> report: Markdown, CSV, JSON and one HTML page that opens offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sammed_bench import contamination, tables, text
from sammed_bench.click_tables import click_tables
from sammed_bench.clicks import read_clicks
from sammed_bench.editions import NATIVE, caption
from sammed_bench.figures import CASE_COLOURS, bar_chart, width_of
from sammed_bench.metric_tables import metric_tables
from sammed_bench.more import more_sections, more_tables, stamp_of, stamped
from sammed_bench.paper_tables import protocol_of
from sammed_bench.protocols import SAM_MED2D, parse_protocol
from sammed_bench.reading import (
    HEADLINE,
    Section,
    chart_note,
    conditions_table,
    cuts,
    models_table,
    sections,
)
from sammed_bench.scores import read_scores
from sammed_bench.seen_tables import judged, with_seen
from sammed_bench.statistics import LEVEL, MIN_CLUSTERS
from sammed_bench.tables import TRIVIAL, Table
from sammed_bench.worst import worst_table
from sammed_data.types import UsageError

# A figure that is wider has a line of its own.
_WIDE_PX, _PAGE_PX = 760, 1160
# Long tables that say who has seen what they are means of.
SEEN_IN = ("overall", "dataset")
_DEFINITIONS = (
    "Dice and IoU at the native size of the slice, mean over masks, in per cent; nothing against "
    "nothing is 100. An answer that failed counts as 0; a prompt that a model does not take is "
    "'not supported' and left out.",
    f"Intervals: {100 * LEVEL:.0f} %, clustered on the patient, since masks of one patient "
    f"resemble each other; none under {MIN_CLUSTERS} patients. 'Clusters are' says what is counted "
    "as a patient: a person (patient), a study, an image, or unknown.",
    "Seen: whether a model has seen the patients that it is scored on; unknown is not clean.",
    "Dice %, mean of datasets (or modalities): each counts once, however many masks it has; "
    "'Dice %' is weighted by masks. Masks left out: the share that the view leaves out.",
    "Gain over trivial: mean Dice minus that of the best trivial baseline on the same masks and "
    "prompts, in points (box-full and box-ellipse for boxes, click-disc for clicks, the prompt "
    "itself for masks). At or under 0 the prompt alone explains the score.",
    "Prompt-only: what a control, trained on the same masks and prompts with the images permuted, "
    "gains over the start. It was learnt without seeing the right image.",
    "View all: every mask. View sam-med2d: masks of at least 0.153 % of the image on images of at "
    "most 1:2, as in the paper. Held-out datasets had no image in training.",
    "bbox+3pt: the box, then clicks in the error that is left. mask: a coarse version of the true "
    "mask. scribble: points along the midline of the largest part.",
    "'failed' in a table with a column per model counts the failed answers of all its models.",
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A results folder read and grouped.

    Attributes:
        record: ``bench.json``.
        models: labels in order.
        long: full tables.
        sections: what people read.
        about: the models and the conditions.
        stamp: what models have seen of the data, for captions.
    """

    record: dict[str, Any]
    models: list[str]
    long: list[Table]
    sections: list[Section]
    about: tuple[Table, Table]
    stamp: str = ""

    @property
    def notes(self) -> list[str]:
        """What was said while it ran."""
        return [str(note) for note in self.record.get("notes", [])]

    @property
    def edition(self) -> str:
        """How the models were fed."""
        return str(self.record.get("conditions", {}).get("edition", NATIVE))

    @property
    def definitions(self) -> list[str]:
        """How to read it, the protocol and the edition included."""
        name = self.record.get("conditions", {}).get("protocol", {}).get("name", SAM_MED2D.name)
        try:
            protocol = [f"Protocol {name}: {parse_protocol(name).about}"]
        except UsageError:  # results of a version that had others
            protocol = []
        return [*_DEFINITIONS, *protocol, caption(self.edition)]


def load_report(results: Path, beside: Sequence[Path] = ()) -> Report:
    """Read the rows of a results folder and group them.

    Args:
        results: folder.
        beside: results folders of other box offsets, for their curve.

    Raises:
        CorpusError: no rows there.
        UsageError: ``beside`` holds something else.
    """
    rows = read_scores(results)
    path = results / "bench.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    order = record.get("model_order", [])
    long = [*tables.all_tables(rows, order), *metric_tables(rows, order)]
    long += click_tables(rows, read_clicks(results), order)
    models = tables.model_order(rows, order)
    lineage = contamination.read(results)
    could = judged(rows, models)
    long = [with_seen(t, lineage, could) if t.name in SEEN_IN else t for t in long]
    overall = next(table for table in long if table.name == "overall")
    long += more_tables(results, rows, overall, models, record=record, beside=beside)
    long += [table for table in (worst_table(long),) if table.rows]
    kinds = tables.kinds_of(rows)
    stamp = stamp_of(results, rows, models)
    trivial = set(rows.loc[rows["kind"] == TRIVIAL, "model"])
    made = tables.prepare(rows)
    own = stamped(sections(long, models, [m for m in models if m not in trivial]), stamp)
    paper, *more = more_sections(long, models, kinds, protocol_of(record))
    return Report(
        record=record,
        models=models,
        long=long,
        sections=[*own[:2], paper, *own[2:], *more],
        stamp=stamp,
        about=(conditions_table(record, made), models_table(record, made, lineage)),
    )


def write_report(results: Path, beside: Sequence[Path] = ()) -> Report:
    """Write ``report/`` beside the rows.

    Args:
        results: folder.
        beside: results folders of other box offsets, for their curve.

    Raises:
        CorpusError: no rows.
        UsageError: the folder cannot be written.
    """
    report = load_report(results, beside)
    out = results / "report"
    try:
        for folder in ("tables", "figures"):
            (out / folder).mkdir(parents=True, exist_ok=True)
            for old in (out / folder).iterdir():  # of a report that had other tables
                if old.suffix in (".csv", ".tex", ".svg"):
                    old.unlink()
        for table in [*report.long, *report.about]:
            (out / "tables" / f"{table.name}.csv").write_text(text.csv_text(table), "utf-8")
        for section in report.sections:
            shown = [table for table in section.tables if table.rows]
            for number, table in enumerate(shown, start=1):
                several = f"-{number}" if len(shown) > 1 else ""
                path = out / "tables" / f"{section.name}{several}.tex"
                path.write_text(text.latex(table), "utf-8")
            if section.full is not None:
                path = out / "tables" / f"{section.name}-full.tex"
                path.write_text(text.latex(section.full), "utf-8")
        for table in report.about:
            (out / "tables" / f"{table.name}.tex").write_text(text.latex(table), "utf-8")
        plain = {
            "record": report.record,
            "tables": [text.as_json(t) for t in [*report.long, *report.about]],
        }
        (out / "tables.json").write_text(json.dumps(plain, indent=1) + "\n", "utf-8")
        drawn = [*charts(report), *(chart for s in report.sections for chart in s.charts)]
        for chart in drawn:
            (out / "figures" / f"{chart['name']}.svg").write_text(chart["svg"], "utf-8")
        (out / "report.md").write_text(_markdown(report), "utf-8")
        (out / "report.html").write_text(_html(report, results), "utf-8")
    except OSError as err:
        raise UsageError(
            f"expected to write a report to {out}, found {err.strerror or err}: make it writable"
        ) from err
    return report


def _markdown(report: Report) -> str:
    conditions, models = report.about
    lines = ["# Benchmark", "", *(f"> {note}\n" for note in report.notes)]
    lines += ["## Conditions", "", text.markdown(conditions)]
    lines += ["## Models", "", text.markdown(replace(models, title=""))]
    for section in report.sections:
        if any(table.rows for table in section.tables):
            lines += [f"## {section.title}", "", *([section.note, ""] if section.note else [])]
            lines += [text.markdown(table) for table in section.tables if table.rows]
    lines += ["## How to read this", "", *(f"- {line}" for line in report.definitions), ""]
    return "\n".join(lines)


def _html(report: Report, results: Path) -> str:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        notes=report.notes,
        conditions=report.about[0],
        models=replace(report.about[1], title=""),
        sections=report.sections,
        definitions=report.definitions,
        charts=charts(report),
        cell=text.cell,
        heading=text.heading,
        numbers_of=lambda table: {c for c in table.columns if text.is_number(table, c)},
        is_wide=lambda svg: width_of(svg) > _WIDE_PX,
        repeats=_repeats,
        cases=_cases(results),
        colours=CASE_COLOURS,
    )


def _cases(results: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Pictures of the gallery by model and prompt mode."""
    path = results / "gallery" / "gallery.json"
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for case in json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []:
        groups.setdefault(case["model"], {}).setdefault(case["mode"], []).append(case)
    return groups


def _repeats(table: Table) -> bool:
    """Whether lines that share their first cell stand together."""
    first = [row.get(table.columns[0]) for row in table.rows]
    return len(set(map(str, first))) < len(first)


def charts(report: Report) -> list[dict[str, str]]:
    """One bar chart of mean Dice per set, view all."""
    overall = next(table for table in report.long if table.name == "overall")
    found = []
    for cut in cuts(overall):
        rows = [r for r in cut.rows if r["view"] == "all" and r["dice"] is not None]
        if rows:
            title = cut.title.removeprefix("Overall, ").rpartition(", ")[0]
            modes = len({row["mode"] for row in rows})
            room = (_PAGE_PX - 36 * modes) // len(rows)
            svg = bar_chart(rows, report.models, wide=max(10, min(32, room)))
            about = {"name": f"dice-{rows[0]['set']}", "title": f"Mean Dice, {title}", "svg": svg}
            found.append(
                about | {"note": f"{chart_note(rows, report.edition)} {report.stamp}".strip()}
            )
    return found


def headline(report: Report) -> list[Table]:
    """What the terminal shows: strata first, then comparisons, the overall tables last.

    The view ``sam-med2d`` is shown for the overall tables alone, where it leaves something out.
    """
    by_name = {section.name: section for section in report.sections}
    short = [table for name in HEADLINE for table in by_name[name].tables]
    wide = [table for table in short if table.name.endswith("-all")]
    compared = by_name["comparisons"]
    paired = [replace(table, note=compared.note) for table in compared.tables]
    return [*wide, *paired, *by_name["overall"].tables]
