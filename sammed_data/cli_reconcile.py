"""`sammed data reconcile`: a rebuilt corpus against the released index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sammed_data.cli_common import (
    CORPUS,
    PLACE,
    QUARANTINED,
    SOURCE,
    new_console,
    one_corpus,
    print_tables,
)

if TYPE_CHECKING:
    from sammed_data.describe import Table
    from sammed_data.reconcile import Line, Reconciled


def register(app: typer.Typer) -> None:
    """Add the verb to `sammed data`."""
    app.command()(reconcile)


def reconcile(
    place: Path | None = PLACE,
    corpus: Path | None = CORPUS,
    against: Path = typer.Option(help="SAMed2D_v1.json, with the file of its classes beside it."),
    source: Path | None = SOURCE,
    view: str = typer.Option("sam-med2d", help="Which of our masks count: sam-med2d or all."),
    built: bool = typer.Option(False, help="Only sources that the corpus has something of."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document with all counts."),
) -> None:
    """Compare images and masks by source, class and axis with the release; exit 3 if they differ.

    For example:

      sammed data reconcile corpus --against SAMed2Dv1/SAMed2D_v1.json --built
    """
    from sammed_data.corpus import Corpus
    from sammed_data.reconcile import reconcile as run

    found = run(
        Corpus(one_corpus(place, corpus)), against, source=source, view=view, only_built=built
    )
    if as_json:
        typer.echo(json.dumps(found.document(), indent=1))
    else:
        console = new_console()
        print_tables(console, _tables(found))
        for name, reasons in found.reasons.items():
            console.print(f"{name}: {'; '.join(reasons)}", markup=False, highlight=False)
    if found.differs:
        raise typer.Exit(QUARANTINED)


def _tables(found: Reconciled) -> list[Table]:
    from sammed_data.describe import Table

    kinds = ("ours", "theirs", "difference")
    by_source = Table(
        title="By source",
        columns=("source", *(f"images {k}" for k in kinds), *(f"masks {k}" for k in kinds)),
        rows=tuple((i.source, *_numbers(i), *_numbers(m)) for i, m in found.sources),
    )
    differing = [line for line in found.lines if line.difference]
    by_class = Table(
        title="What differs by class and axis",
        columns=("source", "class", "axis", *kinds),
        rows=tuple((n.source, n.structure or "(images)", n.axis, *_numbers(n)) for n in differing),
    )
    return [by_source, by_class] if differing else [by_source]


def _numbers(line: Line) -> tuple[int, int, int]:
    return line.ours, line.theirs, line.difference
