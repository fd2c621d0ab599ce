"""What `sammed bench` shows on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from types import TracebackType
from typing import Literal, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from sammed_bench.tables import CONTROL_SUFFIX, Table
from sammed_bench.text import cell, heading, is_number

_PLAIN_WIDTH = 150
_ENDLESS = 10_000
# What a short line does without, the first one first; the report has everything.
_SPARE = (
    *("datasets", "dice_over_datasets", "modalities", "dice_over_modalities", "left_out"),
    *("recipe", "effect", "p", "median", "iou", "unit", "seen"),
    *("patients", "what", "failed", "masks"),
)


def console() -> Console:
    """Standard output; wide where it is a file or a pipe, so that no table is folded."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=max(plain.width, _PLAIN_WIDTH))


class Shown:
    """A bar per model on a terminal; notes as lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1, visible=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """A line."""
        self._console.print(text, highlight=False, markup=False)

    def start(self, label: str, images: int) -> None:
        """A model begins."""
        self._bar.reset(self._task, total=images, description=label, visible=True)

    def advance(self, images: int) -> None:
        """Move the bar."""
        self._bar.advance(self._task, images)


class Fitted:
    """A table that leaves out its less important columns, and says so, where a line is short."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = self._table.columns
        controls = [c for c in columns if c.endswith(CONTROL_SUFFIX)]
        spare = [c for c in (*_SPARE[:-2], *controls, *_SPARE[-2:]) if c in columns]
        for dropped in range(len(spare) + 1):
            kept = [c for c in columns if c not in spare[:dropped]]
            for wrap in (40, 12):
                found = _drawn(self._table, kept, spare[:dropped], wrap)
                wide = options.update(width=_ENDLESS)
                if Measurement.get(console, wide, found).maximum <= options.max_width:
                    yield found
                    yield ""
                    return
        for column in found.columns:  # too short a line for anything: folded, nothing is lost
            column.no_wrap, column.overflow = False, "fold"
        yield found


def terminal_table(table: Table) -> Fitted:
    """A table of this room for a terminal of any width; numbers to the right."""
    return Fitted(table)


def _drawn(table: Table, columns: Sequence[str], dropped: Sequence[str], wrap: int) -> RichTable:
    """The table as one of rich's, words never broken."""
    left_out = f"not shown here: {'; '.join(map(heading, dropped))}" if dropped else ""
    caption = " ".join(part for part in (table.note, left_out) if part)
    shown = RichTable(
        title=table.title,
        title_justify="left",
        caption=caption or None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    cells = [[_wrapped(cell(c, row.get(c)), wrap) for c in columns] for row in table.rows]
    for number, column in enumerate(columns):
        body = max((len(part) for row in cells for part in row[number].split("\n")), default=0)
        side: Literal["left", "right"] = "right" if is_number(table, column) else "left"
        shown.add_column(_wrapped(heading(column), max(body, 8)), justify=side, no_wrap=True)
    for row in cells:
        shown.add_row(*row)
    return shown


def _wrapped(text: str, width: int) -> str:
    """Lines of whole words."""
    return fill(text, width, break_long_words=False, break_on_hyphens=False)
