"""`sammed data ...`: build and inspect corpora."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from sammed_data import (
    cli_audit,
    cli_build,
    cli_describe,
    cli_export,
    cli_get,
    cli_init,
    cli_licenses,
    cli_parts,
    cli_reconcile,
    cli_trace,
)

if TYPE_CHECKING:
    pass

app = typer.Typer(help="Build and inspect corpora.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Build and inspect corpora."""


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
cli_describe.register(app)
cli_export.register(app)
cli_get.register(app)
cli_init.register(app)
cli_licenses.register(app)
cli_parts.register(app)
cli_reconcile.register(app)
cli_trace.register(app)
