"""Long tables and ``bench.json`` -> the sections that people read: apart by set and by view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sammed_bench import click_tables, tables, text
from sammed_bench.editions import EDITIONS, NATIVE, caption
from sammed_bench.metric_cards import ALWAYS
from sammed_bench.metric_tables import NAMES as METRIC_TABLES
from sammed_bench.report_charts import click_charts, gain_charts, set_title, size_charts
from sammed_bench.seeds import MIN_SEEDS
from sammed_bench.seen_tables import grouped
from sammed_bench.statistics import MIN_CLUSTERS
from sammed_bench.tables import TRIVIAL, Table

if TYPE_CHECKING:
    import pandas as pd

# What one sentence says where all lines of an overall table agree.
_SAID = (
    ("unit", "clusters are: {}"),
    ("datasets", "datasets: {}"),
    ("modalities", "modalities: {}"),
)
HEADLINE = ("modality", "group", "organ")
_WIDE = (*HEADLINE, "dataset", "size")


@dataclass(frozen=True, kw_only=True)
class Section:
    """One heading of the report.

    Attributes:
        name: anchor.
        tables: short ones, held-out sets after the test set.
        full: the long table with intervals, IoU and gain; None where ``tables`` say it all.
        charts: title, SVG and note of each figure.
        folded: tables are there on demand.
    """

    name: str
    title: str
    tables: tuple[Table, ...]
    full: Table | None = None
    note: str = ""
    charts: tuple[dict[str, str], ...] = ()
    folded: bool = False


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
            charts=gain_charts(compared, models),
        ),
    ]
    for name in _WIDE:
        table = by_name[name]
        wide = [_short(cut, judged) for cut in cuts(table)]
        charts = size_charts(table, models) if name == "size" else ()
        whole = _untitled(table)
        found.append(
            Section(name=name, title=table.title, tables=tuple(wide), full=whole, charts=charts)
        )
    structure = by_name["structure"]
    full = _untitled(structure)
    found.append(Section(name="structure", title=structure.title, tables=(), full=full))
    if click_tables.CLICKS in by_name:
        found.append(_clicks(by_name, models))
    for table in (by_name[name] for name in METRIC_TABLES if name in by_name):
        every = tuple(cuts(replace(table, note="")))
        found.append(
            Section(name=table.name, title=table.title, tables=every, note=table.note, folded=True)
        )
    return found


def _clicks(by_name: dict[str, Table], models: Sequence[str]) -> Section:
    """Clicks to a target, with a curve for each set."""
    table, curve = by_name[click_tables.CLICKS], by_name.get(click_tables.CURVE)
    charts = () if curve is None else click_charts(curve, models)
    shown = text.with_interval(click_tables.short(table))
    return Section(
        name=table.name,
        title=table.title,
        tables=tuple(cuts(shown)),
        full=_untitled(replace(table, note="")),
        note=table.note,
        charts=charts,
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
        title = f"{table.title}, {set_title(set_name)}"
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
    """The overall table; what is the same in every line is said once, above it."""
    shown = text.with_interval(table)
    known = [row for row in shown.rows if row["datasets"] is not None]
    spare = {"dice_over_datasets"} if all(row["datasets"] == 1 for row in known) else set()
    if all(row["modalities"] == 1 for row in known):
        spare.add("dice_over_modalities")
    if not any(row["left_out"] for row in known):
        spare.add("left_out")
    found = []
    for cut in cuts(shown):
        own = [row for row in cut.rows if row["datasets"] is not None]
        said = []
        for name, words in _SAID:
            if len({row[name] for row in own}) == 1:
                spare.add(name)
                said.append(words.format(own[0][name]))
        columns = tuple(c for c in cut.columns if c not in spare)
        found.append(replace(cut, columns=columns, note="; ".join(said)))
        spare -= {name for name, _ in _SAID}
    return found


def _short(cut: Table, judged: Sequence[str]) -> Table:
    """Mean Dice, a column per model; by dataset also who has seen it."""
    wide = tables.wide_table(cut, cut.rows[0]["view"], judged)
    wide = replace(wide, title=f"{cut.title}: mean Dice %")
    if "seen" not in cut.columns:
        return wide
    states: dict[str, dict[str, str]] = {}
    for row in cut.rows:
        if row["seen"] is not None:
            states.setdefault(row["dataset"], {})[row["model"]] = row["seen"]
    lines = [row | {"seen": grouped(states.get(row["dataset"], {}))} for row in wide.rows]
    return replace(wide, columns=(*wide.columns, "seen"), rows=lines)


def models_table(
    record: dict[str, Any], rows: pd.DataFrame, lineage: Sequence[dict[str, Any]] = ()
) -> Table:
    """Who answered, how often, and how often that failed; baselines that were not asked left out.

    Args:
        record: ``bench.json``.
        rows: score rows.
        lineage: of ``contamination.read``: which model is a run of which method and seed.
    """
    listed = {entry["name"]: entry for entry in record.get("models", [])}
    runs = {r["model"]: (r["method"], r["training_seed"]) for r in lineage if r.get("method")}
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
                "result_of": _result_of(name, str(first["kind"]), runs),
                "image_px": entry.get("image_px"),
                "answers": answers,
                "failed": int((own["status"] == "failed").sum()),
                "seconds": entry.get("seconds"),
                "weights_sha256": str(first["weights_sha256"])[:12],
                "from": entry.get("source", ""),
            }
        )
    head = ("model", "recipe", "kind", "result_of", "image_px")
    columns = (*head, "answers", "failed", "seconds", "weights_sha256", "from")
    return Table(name="models", title="Models", columns=columns, rows=lines)


def _result_of(name: str, kind: str, runs: dict[str, tuple[str, Any]]) -> str | None:
    """``method`` where its runs have enough training seeds, else ``weights``; no rule has any."""
    if kind in (TRIVIAL, "oracle"):
        return None
    method = runs.get(name, ("", None))[0]
    seeds = {seed for own, seed in runs.values() if own == method}
    return f"method ({len(seeds)} training seeds)" if len(seeds) >= MIN_SEEDS else "weights"


def failures_table(rows: pd.DataFrame) -> Table:
    """Answers that failed, by model, mode and error, with the first row of each.

    Args:
        rows: of ``tables.prepare``.
    """
    keys = ["set", "model", "mode", "error"]
    lines = []
    for key, part in rows[rows["failed"]].groupby(keys, sort=True):
        first = part.iloc[0]
        line = dict(zip(keys, map(str, key), strict=True)) | {"answers": len(part)}
        line |= {"patients": int(part["patient"].nunique())}
        where = f"{first['sample_id']}, mask {int(first['mask_index'])}"
        lines.append(line | {"first_row": where})
    return Table(
        name="failures",
        title="Failures",
        columns=("set", "model", "mode", "answers", "patients", "error", "first_row"),
        rows=lines,
        note="Each counts as Dice 0 in every table. A crash, a time-out, numbers that are none, an "
        "answer of another shape or a missing prediction is a failure.",
    )


def conditions_table(record: dict[str, Any], rows: pd.DataFrame) -> Table:
    """What was scored, on what and how, a line each."""
    known, settings = record.get("conditions", {}), record.get("settings", {})
    protocol, edition = known.get("protocol", {}), known.get("edition", NATIVE)
    found = sorted(rows.groupby("set"), key=lambda pair: pair[0] == "held_out")
    said = {
        "corpus": f"{settings.get('corpus', '')} (content {known.get('corpus_sha256', '')[:12]})",
        **{f"scored: {set_title(str(s))}": _counts(part) for s, part in found},
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
        "run": f"{settings.get('device', '')}, finished {record.get('finished', '')}",
        "versions": f"sammed {record.get('code_version', '')}, torch {record.get('torch', '')}, "
        f"Python {record.get('python', '')}",
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
