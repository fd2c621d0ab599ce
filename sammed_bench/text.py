"""Tables as text: Markdown, CSV, JSON values, and single cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sammed_bench.metric_cards import METRICS, TARGETS
from sammed_bench.speed_table import SPEED_COLUMNS
from sammed_bench.statistics import LEVEL, MIN_CLUSTERS
from sammed_bench.tables import Table

MISSING = "–"
# Numbers that stand as text: as published, or two in one cell.
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?( \([+-]?\d+(\.\d+)?\))?")
# Numbers that are no shares of 1.
_FORMATS = {"effect": "+.2f", "seconds": ".1f"} | {
    f"{name}_{part}": ".2f"
    for name, card in METRICS.items()
    if card.length
    for part in ("mean", "low", "high")
}
_FORMATS |= {f"noc{target}{end}": ".2f" for target in TARGETS for end in ("", "_low", "_high")}
_FORMATS |= {name: ".3f" for name in ("p", "p_holm")}
_FORMATS |= {name: ".1f" for name in ("rank", "rank_low", "rank_high", "interactions")}
_FORMATS |= {name: ".2f" for name in SPEED_COLUMNS}
# Smaller values are no zeros.
_SMALLEST = {"p": 0.001, "p_holm": 0.001}
_SIGNED = {"gain", "difference"}
_INTERVAL = f"{LEVEL:.0%} interval".replace("%", " %")
# Columns whose name does not say what they hold; shares of 1 are shown in per cent.
_HEADINGS = {
    "dice": "Dice %",
    "iou": "IoU %",
    "median": "median Dice %",
    "gain": "gain over trivial",
    "dice_over_datasets": "Dice %, mean of datasets",
    "dice_over_modalities": "Dice %, mean of modalities",
    "left_out": "masks left out %",
    "p_holm": "p (Holm)",
    "rank_low": "rank from",
    "rank_high": "rank to",
    "first": "first in % of draws",
    "result_of": "a result of",
    "sd_training": "SD of training seeds",
    "sd_prompts": "SD of prompt seeds",
    "se_patients": "SE of patients",
    "difference": "difference of Dice %",
    "effect": "effect size",
    "group": "anatomical group",
    "size": "object size",
    "mode": "prompt",
    "trivial": "best trivial",
    "weights_sha256": "weights (SHA-256)",
    "surface_unit": "unit",
    "click_auc": "area %",
    "image_px": "resolution px",
    "bbox": "Bbox %",
    "1pt": "1 pt %",
    "3pt": "3 pts %",
    "5pt": "5 pts %",
    "fps": "FPS",
    "offset_px": "offset px",
    "unit": "clusters are",
} | {f"{name}_mean": card.heading for name, card in METRICS.items()}
_HEADINGS |= {f"noc{target}": f"clicks to {target} %" for target in TARGETS}
_HEADINGS |= {f"never{target}": f"never {target} %" for target in TARGETS}


def heading(column: str) -> str:
    """A column's name for people, with its unit."""
    return _HEADINGS.get(column, column.replace("_", " "))


def cell(column: str, value: Any) -> str:
    """A value as text: shares in percent with one decimal, gains with their sign."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        if column in _SMALLEST and value < _SMALLEST[column]:
            return f"<{_SMALLEST[column]:g}"
        if column in _FORMATS:
            return format(value, _FORMATS[column])
        # Adding 0.0 turns -0.0 into 0.0.
        rounded = round(100 * value, 1) + 0.0
        return f"{rounded:+.1f}" if column in _SIGNED else f"{rounded:.1f}"
    return str(value)


def with_interval(table: Table) -> Table:
    """The same table with ``low`` and ``high`` as one column, for reading."""
    if "low" not in table.columns:
        return table
    columns = tuple(_INTERVAL if c == "low" else c for c in table.columns if c != "high")
    rows = [row | {_INTERVAL: _interval(row)} for row in table.rows]
    return replace(table, columns=columns, rows=rows)


def _interval(row: Mapping[str, Any]) -> str:
    """``low to high``, or why there is none."""
    low, high = row.get("low"), row.get("high")
    if low is not None and high is not None:
        return f"{100 * low:.1f} to {100 * high:.1f}"
    mean = row.get("dice", row.get("difference", row.get("click_auc")))
    few = mean is not None and row["patients"] < MIN_CLUSTERS
    return f"under {MIN_CLUSTERS} patients" if few else MISSING


def is_number(table: Table, column: str) -> bool:
    """Whether a column holds numbers, which stand to the right; ``20.9 (+18.6)`` is one."""
    values = [row[column] for row in table.rows if row.get(column) is not None]
    if any(isinstance(value, int | float) for value in values):
        return True
    return bool(values) and all(_NUMBER.fullmatch(str(value)) for value in values)


def markdown(table: Table) -> str:
    """A pipe table under its title."""
    lines = [f"### {table.title}", ""] if table.title else []
    if table.note:
        lines += [table.note, ""]
    lines.append("| " + " | ".join(heading(c) for c in table.columns) + " |")
    marks = ("---:" if is_number(table, c) else "---" for c in table.columns)
    lines.append("|" + "|".join(marks) + "|")
    for row in table.rows:
        texts = (cell(c, row.get(c)).replace("|", "\\|") for c in table.columns)
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def csv_text(table: Table) -> str:
    """Comma-separated, full precision, empty where missing."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow(["" if row.get(c) is None else row[c] for c in table.columns])
    return buffer.getvalue()


def latex(table: Table) -> str:
    """A ``tabular`` with the rules of booktabs, title and note as comments."""
    sides = "".join("r" if is_number(table, c) else "l" for c in table.columns)
    lines = [f"% {line}" for line in (table.title, *table.note.splitlines()) if line]
    lines += [rf"\begin{{tabular}}{{{sides}}}", r"\toprule"]
    lines += [" & ".join(_tex(heading(c)) for c in table.columns) + r" \\", r"\midrule"]
    for row in table.rows:
        lines.append(" & ".join(_tex(cell(c, row.get(c))) for c in table.columns) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


_TEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MISSING: "--",
    "\u2191": r"$\uparrow$",
    "\u2193": r"$\downarrow$",
}


def _tex(text: str) -> str:
    """Text as LaTeX takes it."""
    return "".join(_TEX.get(character, character) for character in text)


def as_json(table: Table) -> dict[str, Any]:
    """Plain values."""
    return {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "columns": list(table.columns),
        "rows": [{c: row.get(c) for c in table.columns} for row in table.rows],
    }
