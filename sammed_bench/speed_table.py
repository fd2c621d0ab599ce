"""Speed beside accuracy, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sammed_bench.tables import Table

NAME = "speed"
_NUMBERS = (
    *("image_ms_p50", "image_ms_p90", "image_ms_p99"),
    *("prompt_ms_p50", "prompt_ms_p90", "prompt_ms_p99"),
    *("images_per_second", "peak_mb"),
)
SPEED_COLUMNS = _NUMBERS
_NOTE = (
    "One image at a time after a warm-up: the encoder once per image, then one prompt (50th, 90th "
    "and 99th percentile, ms). Images per second: an image with one prompt. Peak memory in MiB: "
    "allocated on a GPU, of the whole process (all models scored so far) on a CPU. Measured on "
    "this machine as it was then; not part of the scores."
)


def speed_table(measured: Sequence[Mapping[str, Any]], overall: Table) -> Table:
    """A line per set and model: mean Dice of the timed mode, latency, throughput, memory.

    Args:
        measured: of ``speed.read``.
        overall: the long table of that name.
    """
    lines = [
        {"set": row["set"], "dice": row["dice"]} | dict(entry)
        for entry in measured
        for row in overall.rows
        if row["view"] == "all" and (row["model"], row["mode"]) == (entry["model"], entry["mode"])
    ]
    lines.sort(key=lambda line: str(line["set"]) == "held_out")
    head = ("set", "mode", "model", "dice")
    columns = (*head, *_NUMBERS, "timed_images", "device")
    return Table(name=NAME, title="Speed beside accuracy", columns=columns, rows=lines, note=_NOTE)
