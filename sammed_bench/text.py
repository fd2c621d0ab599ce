"""Tables as text: Markdown, CSV, JSON values, and single cells."""

from __future__ import annotations

import csv
import io
from typing import Any

from sammed_bench.tables import Table

_SIGNED = {"gain", "difference"}


def cell(column: str, value: Any) -> str:
    """A value as text: shares in percent with one decimal, gains with their sign."""
    if value is None:
        return ""
    if isinstance(value, float):
        if column == "effect":
            return f"{value:+.2f}"
        # Adding 0.0 turns -0.0 into 0.0.
        rounded = round(100 * value, 1) + 0.0
        return f"{rounded:+.1f}" if column in _SIGNED else f"{rounded:.1f}"
    return str(value)


def with_interval(table: Table) -> Table:
    """The same table with ``low`` and ``high`` as one column, for reading."""
    if "low" not in table.columns:
        return table
    columns = tuple("95 % interval" if c == "low" else c for c in table.columns if c != "high")
    rows = []
    for row in table.rows:
        low, high = row.get("low"), row.get("high")
        text = "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
        rows.append(row | {"95 % interval": text})
    return Table(name=table.name, title=table.title, columns=columns, rows=rows, note=table.note)


def markdown(table: Table) -> str:
    """A pipe table under a heading."""
    lines = [f"### {table.title}", ""]
    if table.note:
        lines += [table.note, ""]
    lines.append("| " + " | ".join(table.columns) + " |")
    right = [any(isinstance(row.get(c), int | float) for row in table.rows) for c in table.columns]
    lines.append("|" + "|".join("---:" if r else "---" for r in right) + "|")
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


def as_json(table: Table) -> dict[str, Any]:
    """Plain values."""
    return {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "columns": list(table.columns),
        "rows": [{c: row.get(c) for c in table.columns} for row in table.rows],
    }
