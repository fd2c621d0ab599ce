"""`sammed data ...`: build and inspect corpora."""

from __future__ import annotations

import json

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
    cli_phantom,
    cli_push,
    cli_reconcile,
    cli_trace,
)

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Get datasets, build corpora of them, and look into these.

    The usual order: `init` (data of one's own) or `list`, `plan`, `fetch` (public ones), `build`,
    then `describe`, `show`, `audit`; for example:

      sammed data build --root /archives --only hc18 --out corpus
    """


@app.command()
def schema() -> None:
    """Print the JSON Schema of a catalogue entry.

    For example:

      sammed data schema > entry.schema.json
    """
    from sammed_data.catalog import json_schema
    from sammed_data.talk import answer

    found = json_schema()
    answer(found)
    typer.echo(json.dumps(found, indent=1))


cli_audit.register(app)
cli_build.register(app)
cli_describe.register(app)
cli_export.register(app)
cli_get.register(app)
cli_init.register(app)
cli_licenses.register(app)
cli_parts.register(app)
cli_phantom.register(app)
cli_push.register(app)
cli_reconcile.register(app)
cli_trace.register(app)
