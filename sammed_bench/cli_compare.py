"""``sammed compare`` and ``sammed seeds``. Heavy imports inside the verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sammed_bench.tables import Table


def register(app: typer.Typer) -> None:
    """Add ``compare`` and ``seeds`` to the root app."""
    app.command("compare")(_compare)
    app.command("seeds")(_seeds)


def _compare(
    a: Annotated[Path, typer.Argument(help="Results folder.")],
    b: Annotated[Path, typer.Argument(help="Results folder that it is compared against.")],
) -> None:
    """Differences between two results folders, paired mask by mask, with intervals.

    Folders of another corpus, prompt protocol or prompt seed are refused.

    For example:

    sammed compare results/002 results/001
    """
    from sammed_bench.compare import compare

    _show(compare(a, b))


def _seeds(
    results: Annotated[list[Path], typer.Argument(help="Results folders, a prompt seed each.")],
) -> None:
    """How much training seeds, prompt seeds and patients move the mean Dice of a method.

    For example:

    sammed seeds results/001 results/002 results/003
    """
    from sammed_bench.compare import seeds_of

    _show(seeds_of(results))


def _show(table: Table) -> None:
    from sammed_bench.console import console, terminal_table
    from sammed_bench.text import as_json, with_interval
    from sammed_data.talk import answer

    answer(as_json(table))
    console().print(terminal_table(with_interval(table)))
