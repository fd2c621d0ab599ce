"""What `sammed data list | plan | fetch | probe | check` show on a terminal or in a pipe."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rich.console import Console

    from sammed_data.get.download import Progress
    from sammed_data.get.estimate import Cost, Total
    from sammed_data.get.listing import Listed


def wide_console() -> Console:
    """As wide as the terminal, $COLUMNS or 120 columns."""
    from rich.console import Console

    # A pipe has no width: wide enough that no value breaks; COLUMNS still decides where it is set.
    return Console(width=None if sys.stdout.isatty() else _piped_width(), highlight=False)


def _piped_width() -> int:
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else 120


def print_list(rows: Sequence[Listed], base: Path) -> None:
    """The table of datasets; organs only where the console is wide; the three numbers last."""
    from rich.table import Table

    from sammed_data.get.listing import evidence_counts

    console = wide_console()
    wide, all_here = console.width >= 110, all(row.place is not None for row in rows)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("id", overflow="fold", max_width=36 if wide else 28)
    table.add_column("", width=1)
    table.add_column("modality", no_wrap=True, min_width=8)
    # Where all rows lie on disk, their place says more than what they show.
    if wide or all_here:
        column = "where" if all_here else "organs"
        table.add_column(column, no_wrap=True, overflow="ellipsis", max_width=22)
    if wide or not all_here:
        table.add_column("licence", no_wrap=True, overflow="ellipsis", max_width=22 if wide else 13)
    table.add_column("access", no_wrap=True, min_width=6)
    table.add_column("evidence", no_wrap=True, min_width=9)
    for row in rows:
        cells = [_place_text(row, base) if all_here else _organs_text(row.organs)]
        cells = cells if wide or all_here else []
        licence = [row.entry.license] if wide or not all_here else []
        mark = "" if all_here or row.place is None else "*"
        table.add_row(row.entry.id, mark, row.entry.modality, *cells, *licence, row.entry.access,
                      row.entry.evidence)  # fmt: skip
    console.print(table)
    present = sum(row.place is not None for row in rows)
    marked = " (*)" if present and not all_here else ""
    console.print(f"{len(rows)} datasets, {present} of them under {base}{marked}")
    for row in rows:
        if row.problem:
            console.print(f"cannot look: {row.entry.id}: {row.problem}", markup=False)
    counts = evidence_counts(rows)
    console.print("evidence: " + ", ".join(f"{level} {n}" for level, n in counts.items()))


def _place_text(row: Listed, base: Path) -> str:
    if row.place is None:
        return ""
    return str(row.place.relative_to(base)) if row.place.is_relative_to(base) else str(row.place)


def _organs_text(organs: Sequence[str]) -> str:
    text = ", ".join(organs[:2])
    return text if len(organs) <= 2 else f"{text} +{len(organs) - 2}"


def print_plan(costs: Sequence[Cost], sums: Mapping[str, Total]) -> None:
    """The table of costs, its sums, and what a person must do first."""
    from rich.table import Table

    console = wide_console()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    wide = console.width >= 110
    table.add_column("id", overflow="fold", min_width=20, max_width=36)
    table.add_column("access", no_wrap=True, overflow="ellipsis", max_width=12)
    if wide:
        table.add_column("licence", no_wrap=True, overflow="ellipsis", max_width=16)
    for column in ("download", "corpus", "cases", "images", "masks", "core-h"):
        table.add_column(column, justify="right", no_wrap=True)
    for cost in costs:
        licence = [cost.license] if wide else []
        table.add_row(cost.id, cost.access, *licence, *_cells(asdict(cost)))
    blank = [""] * (2 if wide else 1)
    table.add_row("total of what is known", *blank, *_cells({n: t.known for n, t in sums.items()}))
    table.add_row("unknown for, sources", *blank, *[str(sums[n].unknown) for n in _COLUMNS])
    console.print(table)
    for cost in costs:
        if cost.to_do:
            console.print(f"first, for {cost.id}: {cost.to_do}", markup=False)
    if not costs:
        console.print("no dataset passes these filters")


_COLUMNS = ("download_bytes", "corpus_bytes", "cases", "images", "masks", "core_hours")


def _cells(values: Mapping[str, Any]) -> list[str]:
    from sammed_data.get.download import size_text

    cells = []
    for name in _COLUMNS:
        value = values[name]
        if value is None:
            cells.append("?")
        elif name == "download_bytes":
            cells.append(size_text(int(value)))
        elif name == "corpus_bytes":
            cells.append("~" + size_text(int(value), digits=2))
        elif name == "core_hours":
            text = f"~{value:.2g}" if value < 10 else f"~{value:,.0f}"
            cells.append("<0.1" if value < 0.1 else text)
        else:
            cells.append(f"{int(value):,}")
    return cells


def print_fetched(row: Mapping[str, Any]) -> None:
    """What one fetch did, or the steps by hand, or its error."""
    from sammed_data.get.download import size_text

    name = row["dataset"]
    if row["error"]:
        typer.echo(f"error: {name}: {row['error']}", err=True)
        return
    if row["steps"]:
        typer.echo(f"{name} needs a person:")
        for number, step in enumerate(row["steps"], 1):
            typer.echo(f"  {number}. {step}")
        return
    for file in row["files"][:20]:
        proven = file["verified"]
        said = "unverified, hash recorded" if proven == "unverified" else f"as the {proven} says"
        typer.echo(f"{name}: {file['name']}  {size_text(file['bytes'])}  "
                   f"sha256 {file['sha256'][:16]}...  {said}")  # fmt: skip
    if len(row["files"]) > 20:
        typer.echo(f"{name}: ... and {len(row['files']) - 20} more files")
    for text in row["said"]:
        typer.echo(f"{name}: {text}")
    if row["place"] is not None and row["files"]:
        typer.echo(f"{name}: at {row['place']}; `sammed data check {name}` says if all is there")


def print_would_fetch(rows: Sequence[Mapping[str, Any]]) -> None:
    """What a fetch would get, file by file."""
    from sammed_data.get.download import size_text

    for row in rows:
        if row["place"] is not None:
            typer.echo(f"{row['dataset']}: already at {row['place']}; only --again would fetch it")
            continue
        for file in row["would_fetch"]:
            size = "size unknown" if file["bytes"] is None else size_text(file["bytes"])
            digest = file["sha256"] or file["md5"]
            known = f"hash {digest[:12]}..." if digest else "no hash known"
            typer.echo(f"{row['dataset']}: {file['urls'][0]}  {size}, {known}")
        typer.echo(f"{row['dataset']}: would go to {row['to']}; nothing was fetched")


def progress_bars() -> AbstractContextManager[Progress]:
    """Bars for downloads, on a terminal only."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from sammed_data.talk import progress_console

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
               TransferSpeedColumn())  # fmt: skip

    @contextmanager
    def bars() -> Iterator[Any]:
        err = progress_console()
        with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
            tasks: dict[str, Any] = {}

            def step(name: str, done: int, total: int | None) -> None:
                if name not in tasks:
                    tasks.clear()  # one line a file; finished ones stay as they are
                    tasks[name] = progress.add_task(name, total=total)
                progress.update(tasks[name], completed=done, total=total)

            yield step

    return bars()


def print_findings(findings: Sequence[str]) -> None:
    """Findings, or that there are none."""
    for text in findings:
        typer.echo(f"finding: {text}")
    if not findings:
        typer.echo("as the entry says")


def print_checked(row: Mapping[str, Any]) -> None:
    """What lies here and what differs."""
    name = row["dataset"]
    if "cases" in row:
        typer.echo(f"{name}: {row['cases']} cases, {row['groups']} patients or groups")
        typer.echo("splits: " + ", ".join(f"{s} {n}" for s, n in row["splits"].items()))
        typer.echo("labels: " + ", ".join(f"{k} = {v}" for k, v in row["labels"].items()))
    else:
        typer.echo(f"{name}:")
    print_findings(row["findings"])
