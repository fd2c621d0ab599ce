"""Results folder -> report: Markdown, CSV, JSON and one HTML page that opens offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sammed_bench import tables, text
from sammed_bench.figures import bar_chart
from sammed_bench.scores import read_scores
from sammed_bench.statistics import LEVEL, MIN_CLUSTERS
from sammed_bench.tables import TRIVIAL, VIEW_NAMES, Table
from sammed_data.types import UsageError

_READING = ("overall", "modality", "organ", "group", "dataset", "size")
_DEFINITIONS = (
    "Dice and IoU at the native size of the slice, mean over masks; nothing against nothing is 1; "
    "failures count as 0.",
    f"Intervals: {LEVEL:.0%} percentile bootstrap over patients, none below {MIN_CLUSTERS} "
    "patients.",
    "Gain: mean over the best trivial baseline of the same masks and mode (box-full and "
    "box-ellipse for boxes, click-disc for clicks, the prompt itself for masks).",
    "View all: every mask. View sam-med2d: masks of at least 0.153 % of the image on images of at "
    "most 1:2, as in the paper.",
    "Prompts of protocol sam-med2d: tight boxes of the largest part; clicks accumulate, each in "
    "the error of the model's last answer, which it also gets as mask prompt.",
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A results folder read and grouped.

    Attributes:
        record: ``bench.json``.
        long: full tables.
        reading: compact ones, for people.
    """

    record: dict[str, Any]
    models: list[str]
    long: list[Table]
    reading: list[Table]
    overall: Table

    @property
    def facts(self) -> list[str]:
        """Conditions in sentences."""
        known = self.record.get("conditions", {})
        said = [
            f"Corpus {known.get('corpus_sha256', '')[:12]}, splits "
            f"{', '.join(known.get('splits', []))}; protocol "
            f"{known.get('protocol', {}).get('name', '')} "
            f"({known.get('protocol_hash', '')[:12]}), seed {known.get('seed')}.",
        ]
        return said + [str(note) for note in self.record.get("notes", [])]


def load_report(results: Path) -> Report:
    """Read the rows of a results folder and group them.

    Raises:
        CorpusError: no rows there.
    """
    rows = read_scores(results)
    path = results / "bench.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    order = record.get("model_order", [])
    long = tables.all_tables(rows, order)
    models = tables.model_order(rows, order)
    trivial = set(rows.loc[rows["kind"] == TRIVIAL, "model"])
    judged = [m for m in models if m not in trivial]
    by_name = {table.name: table for table in long}
    reading = [
        tables.wide_table(by_name[name], view, judged) for view in VIEW_NAMES for name in _READING
    ]
    return Report(
        record=record, models=models, long=long, reading=reading, overall=by_name["overall"]
    )


def write_report(results: Path) -> Report:
    """Write ``report/`` beside the rows.

    Raises:
        CorpusError: no rows.
        UsageError: the folder cannot be written.
    """
    report = load_report(results)
    out = results / "report"
    try:
        (out / "tables").mkdir(parents=True, exist_ok=True)
        for table in report.long:
            (out / "tables" / f"{table.name}.csv").write_text(text.csv_text(table), "utf-8")
        plain = {"record": report.record, "tables": [text.as_json(t) for t in report.long]}
        (out / "tables.json").write_text(json.dumps(plain, indent=1) + "\n", "utf-8")
        (out / "report.md").write_text(_markdown(report), "utf-8")
        (out / "report.html").write_text(_html(report, results), "utf-8")
    except OSError as err:
        raise UsageError(
            f"expected to write a report to {out}, found {err.strerror or err}: make it writable"
        ) from err
    return report


def _shown(report: Report) -> list[Table]:
    """Tables in the order of the report."""
    comparisons = next(t for t in report.long if t.name == "comparisons")
    return [
        text.with_interval(report.overall),
        text.with_interval(comparisons),
        *report.reading,
    ]


def _models(report: Report) -> Table:
    columns = ("name", "recipe", "kind", "weights_sha256", "source", "failed", "seconds")
    rows = [
        entry | {"weights_sha256": entry["weights_sha256"][:12], "seconds": str(entry["seconds"])}
        for entry in report.record.get("models", [])
    ]
    return Table(name="models", title="Models", columns=columns, rows=rows)


def _markdown(report: Report) -> str:
    lines = ["# Benchmark", "", *(f"{fact}\n" for fact in report.facts)]
    lines += [text.markdown(_models(report))]
    lines += ["Numbers are per cent.", ""]
    lines += [text.markdown(table) for table in _shown(report)]
    lines += ["### How to read this", "", *(f"- {line}" for line in _DEFINITIONS), ""]
    return "\n".join(lines)


def _html(report: Report, results: Path) -> str:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    template = environment.get_template("report.html.jinja")
    gallery = results / "gallery" / "gallery.json"
    cases = json.loads(gallery.read_text(encoding="utf-8")) if gallery.is_file() else []
    return template.render(
        facts=report.facts,
        definitions=_DEFINITIONS,
        charts=_charts(report),
        tables=[_models(report), *_shown(report)],
        cell=text.cell,
        cases=cases,
    )


def _charts(report: Report) -> list[dict[str, str]]:
    """One bar chart of mean Dice per set, view all."""
    charts = []
    rows = [r for r in report.overall.rows if r["view"] == "all" and r["dice"] is not None]
    for set_name in dict.fromkeys(row["set"] for row in rows):
        chosen = [row for row in rows if row["set"] == set_name]
        charts.append({"title": f"Mean Dice, {set_name}", "svg": bar_chart(chosen, report.models)})
    return charts


def headline(report: Report) -> list[Table]:
    """What the terminal shows: strata first, then comparisons, the overall tables last.

    The view ``sam-med2d`` is shown where it leaves something out.
    """
    by_name = {table.name: table for table in report.reading}
    wide: Sequence[Table] = [by_name[f"{name}-all"] for name in ("modality", "group", "organ")]
    comparisons = next(t for t in report.long if t.name == "comparisons")
    return [*wide, text.with_interval(comparisons), *_overall_by_view(report)]


def _overall_by_view(report: Report) -> list[Table]:
    """The overall table cut by set and view."""
    overall = text.with_interval(report.overall)
    hidden = {"set", "view"}
    if all(row["datasets"] in (None, 1) for row in overall.rows):
        hidden |= {"dice_over_datasets", "datasets"}
    columns = tuple(c for c in overall.columns if c not in hidden)
    cuts = dict.fromkeys((row["set"], row["view"]) for row in overall.rows)
    found: list[Table] = []
    for set_name, view in cuts:
        rows = [r for r in overall.rows if (r["set"], r["view"]) == (set_name, view)]
        title = f"Overall, {set_name}, view {view}"
        before = found[-1].rows if found else []
        if view != "all" and [r["masks"] for r in rows] == [r["masks"] for r in before]:
            found[-1] = replace(found[-1], title=f"Overall, {set_name}, both views")
            continue
        found.append(Table(name="overall", title=title, columns=columns, rows=rows))
    return found
