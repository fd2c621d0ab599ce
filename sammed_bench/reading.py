"""Long tables and ``bench.json`` -> the sections that people read: apart by set and by view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sammed_bench import click_tables, tables, text
from sammed_bench.editions import EDITIONS, NATIVE, caption
from sammed_bench.figures import line_chart
from sammed_bench.metric_cards import ALWAYS
from sammed_bench.metric_tables import NAMES as METRIC_TABLES
from sammed_bench.statistics import MIN_CLUSTERS
from sammed_bench.tables import TRIVIAL, Table

if TYPE_CHECKING:
    import pandas as pd

HEADLINE = ("modality", "group", "organ")
_WIDE = (*HEADLINE, "dataset", "size")
_SETS = {"held_out": "held-out datasets", "train": "TRAINING IMAGES"}


@dataclass(frozen=True, kw_only=True)
class Section:
    """One heading of the report.

    Attributes:
        name: anchor.
        tables: short ones, held-out sets after the test set.
        full: the long table with intervals, IoU and gain; None where ``tables`` say it all.
        charts: title, SVG and note of each figure.
    """

    name: str
    title: str
    tables: tuple[Table, ...]
    full: Table | None = None
    note: str = ""
    charts: tuple[dict[str, str], ...] = ()


def sections(long: Sequence[Table], models: Sequence[str], judged: Sequence[str]) -> list[Section]:
    """The tables of a benchmark in reading order.

    Args:
        long: of ``tables.all_tables``.
        models: labels in order.
        judged: those of them that are no trivial baseline.
    """
    by_name = {table.name: table for table in long}
    overall, compared = by_name["overall"], by_name["comparisons"]
    found = [
        Section(name="overall", title="Overall, by prompt mode", tables=tuple(_overall(overall))),
        Section(
            name="comparisons",
            title="Paired comparisons",
            tables=tuple(cuts(replace(text.with_interval(compared), note=""))),
            note=f"Difference of mean Dice on the same masks and prompts, in points of per cent. "
            f"{compared.note} Effect size: mean of the patients' differences over their standard "
            "deviation; each patient counts once there, so its sign may differ.",
        ),
    ]
    for name in _WIDE:
        table = by_name[name]
        wide = [_short(cut, judged) for cut in cuts(table)]
        found.append(
            Section(name=name, title=table.title, tables=tuple(wide), full=_untitled(table))
        )
    structure = by_name["structure"]
    full = _untitled(structure)
    found.append(Section(name="structure", title=structure.title, tables=(), full=full))
    if click_tables.CLICKS in by_name:
        found.append(_clicks(by_name, models))
    for table in (by_name[name] for name in METRIC_TABLES if name in by_name):
        every = tuple(cuts(replace(table, note="")))
        found.append(Section(name=table.name, title=table.title, tables=every, note=table.note))
    return found


def _clicks(by_name: dict[str, Table], models: Sequence[str]) -> Section:
    """Clicks to a target, with a curve for each set."""
    table, curve = by_name[click_tables.CLICKS], by_name.get(click_tables.CURVE)
    charts = []
    for cut in cuts(curve) if curve is not None else []:
        if cut.rows[0]["view"] == "all":
            title = cut.title.removeprefix(f"{cut.title.partition(',')[0]}, ")
            svg = line_chart(cut.rows, models)
            about = {"name": f"click-curve-{cut.rows[0]['set']}", "svg": svg}
            charts.append(about | {"title": f"IoU over clicks, {title}", "note": cut.note})
    shown = text.with_interval(click_tables.short(table))
    return Section(
        name=table.name,
        title=table.title,
        tables=tuple(cuts(shown)),
        full=_untitled(replace(table, note="")),
        note=table.note,
        charts=tuple(charts),
    )


def _untitled(table: Table) -> Table:
    return replace(text.with_interval(table), title="")


def cuts(table: Table) -> list[Table]:
    """A long table by set and view; a view that leaves nothing out is said, not repeated."""
    parts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in sorted(table.rows, key=lambda row: str(row["set"]) == "held_out"):
        parts.setdefault((row["set"], row.get("view", "all")), []).append(row)
    titles: dict[tuple[str, str], str] = {}
    for (set_name, view), rows in parts.items():
        whole = parts.get((set_name, "all"), [])
        title = f"{table.title}, {_SETS.get(set_name, set_name)}"
        same = [row.get("masks") for row in rows] == [row.get("masks") for row in whole]
        if view != "all" and same:
            titles[set_name, "all"] = f"{title}, both views"
        else:
            titles[set_name, view] = f"{title}, view {view}"
    columns = tuple(c for c in table.columns if c not in ("set", "view"))
    return [
        replace(table, title=title, columns=columns, rows=parts[where])
        for where, title in titles.items()
    ]


def _overall(table: Table) -> list[Table]:
    """The overall table; the mean over datasets only where there are several."""
    shown = text.with_interval(table)
    if all(row["datasets"] in (None, 1) for row in table.rows):
        several = {"dice_over_datasets", "datasets"}
        shown = replace(shown, columns=tuple(c for c in shown.columns if c not in several))
    if all(row["modalities"] in (None, 1) for row in table.rows):
        several = {"dice_over_modalities", "modalities"}
        shown = replace(shown, columns=tuple(c for c in shown.columns if c not in several))
    if not any(row["left_out"] for row in table.rows):
        shown = replace(shown, columns=tuple(c for c in shown.columns if c != "left_out"))
    return cuts(shown)


def _short(cut: Table, judged: Sequence[str]) -> Table:
    """Mean Dice, a column per model."""
    wide = tables.wide_table(cut, cut.rows[0]["view"], judged)
    return replace(wide, title=f"{cut.title}: mean Dice %")


def models_table(record: dict[str, Any], rows: pd.DataFrame) -> Table:
    """Who answered, how often, and how often that failed; baselines that were not asked left out.

    Args:
        record: ``bench.json``.
        rows: score rows.
    """
    listed = {entry["name"]: entry for entry in record.get("models", [])}
    lines = []
    for name in tables.model_order(rows, record.get("model_order", [])):
        own = rows[rows["model"] == name]
        first, answers = own.iloc[0], int((own["status"] != "unsupported").sum())
        if first["kind"] == TRIVIAL and not answers:
            continue
        entry = listed.get(name, {})
        lines.append(
            {
                "model": name,
                "recipe": first["recipe"],
                "kind": first["kind"],
                "answers": answers,
                "failed": int((own["status"] == "failed").sum()),
                "seconds": entry.get("seconds"),
                "weights_sha256": str(first["weights_sha256"])[:12],
                "from": entry.get("source", ""),
            }
        )
    columns = ("model", "recipe", "kind", "answers", "failed", "seconds", "weights_sha256", "from")
    return Table(name="models", title="Models", columns=columns, rows=lines)


def conditions_table(record: dict[str, Any], rows: pd.DataFrame) -> Table:
    """What was scored, on what and how, a line each."""
    known, settings = record.get("conditions", {}), record.get("settings", {})
    protocol, edition = known.get("protocol", {}), known.get("edition", NATIVE)
    found = sorted(rows.groupby("set"), key=lambda pair: pair[0] == "held_out")
    said = {
        "corpus": f"{settings.get('corpus', '')} (content {known.get('corpus_sha256', '')[:12]})",
        **{f"scored: {_SETS.get(str(s), s)}": _counts(part) for s, part in found},
        **({"suite": _suite(known)} if known.get("suite") else {}),
        "patients": _unit(rows),
        "prompt modes": ", ".join(known.get("modes", [])),
        "protocol": f"{protocol.get('name', '')}, version {protocol.get('version', '')} "
        f"({known.get('protocol_hash', '')[:12]})",
        "edition": f"{edition}: {EDITIONS.get(edition, '')}",
        "first prompts": _prompts(record),
        "metrics": _metrics(known),
        "prompt seed": str(known.get("seed", "")),
        "images": "all" if known.get("limit") is None else f"the first {known['limit']} at most",
        "run": f"{settings.get('device', '')}, torch {record.get('torch', '')}, sammed "
        f"{record.get('code_version', '')}, finished {record.get('finished', '')}",
    }
    lines = [{"condition": name, "value": value} for name, value in said.items()]
    return Table(name="conditions", title="", columns=("condition", "value"), rows=lines)


def _suite(known: dict[str, Any]) -> str:
    """The suite by name and digest."""
    return f"{known['suite']} ({known.get('suite_sha256', '')[:12]})"


def _prompts(record: dict[str, Any]) -> str:
    """Where the prompts that all models got are."""
    digest = record.get("prompts_sha256")
    return f"the same for every model, in prompts/ ({digest[:12]})" if digest else "not stored"


def _metrics(known: dict[str, Any]) -> str:
    named = ", ".join(known.get("metrics", ALWAYS))
    return f"{named}; NSD within {known['tolerance']:g} mm or px" if "nsd" in named else named


def _counts(rows: pd.DataFrame) -> str:
    masks = rows.drop_duplicates(["sample_id", "mask_index"])
    return (
        f"{masks['sample_id'].nunique():,} images, {len(masks):,} masks "
        f"({int(masks['in_view'].sum()):,} in view sam-med2d), "
        f"{rows['patient'].nunique():,} patients, {rows['dataset'].nunique():,} datasets"
    )


def _unit(rows: pd.DataFrame) -> str:
    """Where 'patient' is a person and where it is not."""
    others = rows[rows["cluster"] != "patient"]
    named = [
        f"{d} ({', '.join(sorted(p.unique()))})" for d, p in others.groupby("dataset")["cluster"]
    ]
    if not named:
        return "persons, as the datasets name them"
    return (
        f"not known as persons in {', '.join(named)}: there the unit in brackets is counted, and "
        "intervals are too narrow if one person has several"
    )


def chart_note(rows: Sequence[dict[str, Any]], edition: str = NATIVE) -> str:
    """What the bars of one set are means of, and how the models were fed."""
    masks, patients = (max(row[name] for row in rows) for name in ("masks", "patients"))
    lines = (
        "lines: 95 % intervals"
        if any(row["low"] is not None for row in rows)
        else f"no intervals under {MIN_CLUSTERS} patients"
    )
    return (
        f"Mean over {masks:,} masks of {patients:,} patients, view all; {lines}. Failed answers "
        "count as 0. Grey: trivial baselines, which never look at the image. Pale: controls, "
        f"trained with the images permuted. {caption(edition)}"
    )
