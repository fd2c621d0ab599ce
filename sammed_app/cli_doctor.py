"""The command ``sammed doctor``."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the root app."""
    app.command()(doctor)


def doctor() -> None:
    """Look at libraries, GPU, memory, disk and caches, and say what to do.

    Nothing is changed. Exit code 1 where something must be mended before sammed works, else 0.

    For example:

      sammed doctor

      sammed doctor --json > machine.json      (to put into a bug report)
    """
    from dataclasses import asdict

    from rich.markup import escape
    from rich.table import Table

    from sammed_app.doctor import examine
    from sammed_data.cli_common import new_console
    from sammed_data.talk import answer

    found = examine()
    answer([asdict(each) for each in found])
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    signs = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}
    for each in found:
        table.add_row(signs[each.state], each.name, escape(each.found))
        if each.advice:
            table.add_row("", "", f"[bold]-> {escape(each.advice)}[/]")
    console = new_console()
    console.print(table)
    problems = sum(each.state == "problem" for each in found)
    notes = sum(each.state == "note" for each in found)
    console.print(f"{problems} problems, {notes} notes", highlight=False)
    if problems:
        raise typer.Exit(1)
