"""`sammed data ...`: build and inspect corpora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sammed_data import (
    cli_audit,
    cli_build,
    cli_export,
    cli_get,
    cli_init,
    cli_licenses,
    cli_parts,
    cli_trace,
)
from sammed_data.cli_common import (
    new_console,
    print_quarantine,
    print_tables,
    split_names,
)

if TYPE_CHECKING:
    pass

app = typer.Typer(help="Build and inspect corpora.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Build and inspect corpora."""


@app.command()
def describe(corpus: Path = typer.Argument(Path("corpus"), help="Corpus folder.")) -> None:
    """Print counts of a corpus by dataset, modality, organ and split.

    For example:

      sammed data describe corpus
    """
    from sammed_data.corpus import Corpus
    from sammed_data.describe import count_tables, counts_lines

    console, opened = new_console(), Corpus(corpus)
    print_tables(console, count_tables(opened))
    for line in counts_lines(opened.manifest):
        console.print(line, highlight=False)
    print_quarantine(console, corpus)


@app.command()
def show(
    corpus: Path = typer.Argument(Path("corpus"), help="Corpus folder."),
    out: Path = typer.Option(Path("sheet.png"), help="Picture to write."),
    n: int = typer.Option(24, help="How many images."),
    split: str | None = typer.Option(None, help="Only these splits, separated by commas."),
) -> None:
    """Write a contact sheet: images beside their masks, datasets taking turns.

    For example:

      sammed data show corpus --n 12 --split test --out sheet.png
    """
    from sammed_data.corpus import Corpus
    from sammed_data.describe import contact_sheet

    shown = contact_sheet(Corpus(corpus), out, n=n, splits=split_names(split) or None)
    typer.echo(f"{out}: {shown} images")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a catalogue entry.

    For example:

      sammed data schema > entry.schema.json
    """
    from sammed_data.catalog import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


cli_audit.register(app)
cli_build.register(app)
cli_export.register(app)
cli_get.register(app)
cli_init.register(app)
cli_licenses.register(app)
cli_parts.register(app)
cli_trace.register(app)
