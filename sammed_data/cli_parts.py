"""`sammed data merge | status`: a corpus built by many machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sammed_data.parts import Status

QUARANTINED = 3

_OUT = typer.Argument(help="Corpus folder that the parts write to.")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(merge)
    app.command()(status)


def merge(
    out: Path = _OUT,
    root: Path | None = typer.Option(
        None, help="Where the datasets lie; default: where the parts saw them."
    ),
    build: bool = typer.Option(False, "--build", help="Build here what is still missing."),
    workers: int = typer.Option(0, min=0, help="Processes for --build; 0 = one a core."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Count shards; publish nothing."),
) -> None:
    """Publish the corpus once every part has run; says what is missing otherwise.

    For example:

      sammed data merge corpus
    """
    from os import cpu_count

    from sammed_data.cli_build import report_build
    from sammed_data.parts import merge as run_merge
    from sammed_data.parts import merge_and_build, survey_merge
    from sammed_data.run_shards import How
    from sammed_data.talk import say_dry

    if dry_run:
        shards, missing = survey_merge(out, root, build=build)
        say_dry([out / ".partial"], [out / "manifest.json"], shards=shards, missing=missing)
        return
    if build:
        result = merge_and_build(out, How(workers=workers or cpu_count() or 1), root)
    else:
        result = run_merge(out, root)
    report_build(result, out)
    if result.quarantined:
        raise typer.Exit(QUARANTINED)


def status(
    out: Path = _OUT,
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Say how many shards are done, failed and remaining, per dataset and in all.

    For example:

      sammed data status corpus --json
    """
    from sammed_data.parts import status as read_status

    found = read_status(out)
    if as_json:
        document = {
            "published": found.published,
            "total": found.total.as_json(),
            "datasets": {name: p.as_json() for name, p in found.datasets.items()},
        }
        typer.echo(json.dumps(document, indent=1))
    else:
        _print_status(found)


def _print_status(found: Status) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    table = Table("dataset", "done", "failed", "remaining")
    for name, progress in [*found.datasets.items(), ("all", found.total)]:
        row = (progress.done, len(progress.failed), progress.remaining)
        table.add_row(name, *(f"{n:,}" for n in row))
    console.print(table)
    for stem, reason in sorted(found.total.failed.items()):
        console.print(f"failed: {stem}: {reason}", markup=False, highlight=False)
    said = "published" if found.published else "not published yet"
    console.print(said, highlight=False)
