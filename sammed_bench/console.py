"""What `sammed bench` shows on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from sammed_bench.tables import Table
from sammed_bench.text import cell, heading, is_number

_PLAIN_WIDTH = 150


def console() -> Console:
    """Standard output; wide where it is a file or a pipe, so that no table is folded."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=max(plain.width, _PLAIN_WIDTH))


class Shown:
    """A bar per model on a terminal; notes as lines."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = None if quiet else self._bar.add_task("", total=1, visible=False)

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
        if self._task is not None:
            self._bar.reset(self._task, total=images, description=label, visible=True)

    def advance(self, images: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task, images)


def terminal_table(table: Table) -> RichTable:
    """A table of this room as one of rich's; numbers in per cent, to the right."""
    shown = RichTable(
        title=table.title,
        title_justify="left",
        caption=table.note or None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in table.columns:
        side: Literal["left", "right"] = "right" if is_number(table, column) else "left"
        shown.add_column(heading(column), justify=side, overflow="fold")
    for row in table.rows:
        shown.add_row(*(cell(column, row.get(column)) for column in table.columns))
    return shown
