"""`sammed data ...`: build and inspect corpora."""

from __future__ import annotations

import typer

app = typer.Typer(help="Build and inspect corpora.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Build and inspect corpora."""
