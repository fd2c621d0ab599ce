"""``sammed compare``: two results folders. Heavy imports inside the verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add ``compare`` to the root app."""
    app.command("compare")(_compare)


def _compare(
    a: Annotated[Path, typer.Argument(help="Results folder.")],
    b: Annotated[Path, typer.Argument(help="Results folder that it is compared against.")],
    as_json: Annotated[bool, typer.Option("--json", help="One document on stdout.")] = False,
) -> None:
    r"""Differences between two results folders, paired mask by mask, with intervals.

    Folders of another corpus, prompt protocol or prompt seed are refused.

    \b
    Example:
      sammed compare results/002 results/001
    """
    import json

    from sammed_bench.compare import compare

    table = compare(a, b)
    if as_json:
        from sammed_bench.text import as_json as plain

        typer.echo(json.dumps(plain(table), indent=1))
        return
    from sammed_bench.console import console, terminal_table
    from sammed_bench.text import with_interval

    console().print(terminal_table(with_interval(table)))
