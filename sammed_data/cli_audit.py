"""`sammed data audit | exclude | withdraw | diff`: how far a corpus can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from rich.progress import TaskID

_CORPUS = typer.Argument(Path("corpus"), help="Corpus folder.")
_JSON = typer.Option(False, "--json", help="Print one JSON document instead.")


def register(app: typer.Typer) -> None:
    """Add the verbs to `sammed data`."""
    for verb in (audit,):
        app.command()(verb)


def audit(
    corpus: Path = _CORPUS,
    out: Path = typer.Option(
        Path("audit"), help="Folder for audit.html (with pictures), pairs.csv and defects.csv."
    ),
    workers: int = typer.Option(0, help="Processes that read shards; 0 = one a core."),
    planted: int = typer.Option(
        100, help="Pictures of which altered copies are planted to measure the search."
    ),
    tables: int = typer.Option(16, help="Tables of the search; more find more, and take longer."),
    scratch: Path | None = typer.Option(
        None, help="Folder for arrays while it runs, about 400 bytes an image."
    ),
    as_json: bool = _JSON,
) -> None:
    """Look for duplicates, leaks and defects, and say how much such a search finds.

    Exit code 1 where a split leaks, 3 for other findings, 0 where nothing was found.

    For example:

      sammed data audit corpus --out audit
    """
    import os

    from sammed_data.audit.gallery import write_gallery
    from sammed_data.audit.run import AuditOptions, audit_corpus
    from sammed_data.audit.words import document, sentences, write_tables
    from sammed_data.audit.words import tables as audit_tables
    from sammed_data.cli_common import new_console, print_tables
    from sammed_data.corpus import Corpus

    opened = Corpus(corpus)
    options = AuditOptions(
        workers=workers or os.cpu_count() or 1, planted=planted, tables=tables, scratch=scratch
    )
    with _stages() as progress:
        found = audit_corpus(opened, options, progress)
    write_tables(found, opened, out)
    shown = write_gallery(found, opened, out / "audit.html")
    if as_json:
        typer.echo(json.dumps(document(found), indent=1))
    else:
        console = new_console()
        print_tables(console, audit_tables(found))
        for line in sentences(found):
            console.print(line, markup=False, highlight=False)
        console.print(f"gallery of {shown}: {out / 'audit.html'}", markup=False, highlight=False)
    raise typer.Exit(found.exit_code)


def _stages() -> AbstractContextManager[Callable[[str, int, int], None]]:
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    @contextmanager
    def bars() -> Iterator[Callable[[str, int, int], None]]:
        err = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TimeElapsedColumn())  # fmt: skip
        with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
            tasks: dict[str, TaskID] = {}

            def show(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = progress.add_task(stage, total=total)
                progress.update(tasks[stage], completed=done, total=total)

            yield show

    return bars()
