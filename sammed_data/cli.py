"""`sammed data ...`: build and inspect corpora."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sammed_data.types import CatalogError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from rich.console import Console

    from sammed_data.build import BuildResult
    from sammed_data.describe import Table

app = typer.Typer(help="Build and inspect corpora.", no_args_is_help=True)
QUARANTINED = 3

_SOURCE = typer.Option(None, help="Folder of catalogue entries; default: the bundled ones.")
_ROOT = typer.Option(None, help="Where the datasets lie; default: $SAMMED_DATA or ./data.")


@app.callback()
def _data() -> None:
    """Build and inspect corpora."""


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    return Console(width=width, soft_wrap=not sys.stdout.isatty())


def _data_root(root: Path | None) -> Path:
    """The root given, else $SAMMED_DATA, else ./data; it must exist when it was named."""
    named = root or (Path(os.environ["SAMMED_DATA"]) if os.environ.get("SAMMED_DATA") else None)
    if named is not None and not named.is_dir():
        raise UsageError(f"expected a folder of datasets at {named}, found none: mend --root")
    return named or Path("data")


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


@app.command()
def build(
    source: Path | None = _SOURCE,
    root: Path | None = _ROOT,
    out: Path = typer.Option(Path("corpus"), help="Corpus folder; an interrupted build goes on."),
    only: str | None = typer.Option(None, help="Dataset ids, separated by commas."),
    workers: int = typer.Option(
        0, help="Processes; 0 = one a core. The bytes do not depend on it."
    ),
    depth: int = typer.Option(8, help="8, or 16 to store 16-bit images beside the 8-bit ones."),
    axes: str | None = typer.Option(None, help="axial,coronal,sagittal for all 3D sources."),
    min_part_px: int = typer.Option(4, help="Smaller parts are counted rejections."),
    intensity: str = typer.Option(
        "auto", help="auto, paper, released, percentile, identity, ct-soft, ct-lung, ct-bone."
    ),
    orientation: str = typer.Option("lps", help="lps, or stored for the released code's order."),
    shard_mb: int = typer.Option(64, help="Source megabytes a shard covers."),
    strict: bool = typer.Option(False, "--strict", help="Stop at the first bad case."),
    key: Path | None = typer.Option(None, help="Secret key file for restricted datasets."),
) -> None:
    """Turn the datasets on disk into one corpus of images with masks.

    For example:

      sammed data build --source catalogs/

      sammed data build --root /archives --only msd_task04_hippocampus,hc18
    """
    from sammed_data.build import build as run_build
    from sammed_data.plan import BuildOptions

    options = BuildOptions(
        depth=depth,
        axes=tuple(_names(axes)) or None,
        min_part_px=min_part_px,
        intensity=intensity,
        orientation=orientation,
        shard_mb=shard_mb,
    )
    console = _console()
    with _progress() as progress:
        result = run_build(
            source,
            _data_root(root),
            out,
            only=_names(only),
            options=options,
            workers=workers or os.cpu_count() or 1,
            strict=strict,
            key_file=key,
            progress=progress,
        )
    _report(console, result, out)
    if result.quarantined:
        raise typer.Exit(QUARANTINED)


def _progress() -> AbstractContextManager[Callable[[int, int], None]]:
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    @contextmanager
    def bar() -> Iterator[Callable[[int, int], None]]:
        columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        shown = sys.stderr.isatty()
        with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
            task = progress.add_task("shards", total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    return bar()


def _report(console: Console, result: BuildResult, out: Path) -> None:
    from sammed_data.corpus import Corpus
    from sammed_data.describe import count_tables, counts_lines

    _print_tables(console, count_tables(Corpus(out)))
    for line in counts_lines(result.manifest):
        console.print(line, highlight=False)
    console.print(f"shards: {result.built} built, {result.reused} already there", highlight=False)
    if result.absent:
        names = ", ".join(entry.id for entry in result.absent)
        console.print(
            f"not on disk: {names} (`sammed data list` says where to get each)", highlight=False
        )
    if result.dropped:
        console.print(f"no longer in the corpus: {', '.join(result.dropped)}", highlight=False)
    for name, reason in sorted(result.failed.items()):
        console.print(f"not built: {name}: {reason}", markup=False, highlight=False)
    _print_quarantine(console, out)
    console.print(
        f"corpus: {out}  content {result.manifest['content_sha256'][:16]}", highlight=False
    )


def _print_quarantine(console: Console, out: Path) -> None:
    from sammed_data.shards import read_rejections

    bad = [r for r in read_rejections(out).to_pylist() if r["level"] == "case"]
    for row in bad[:10]:
        text = f"quarantined: {row['dataset']} {row['case_id']}: {row['rule']}: {row['reason']}"
        console.print(text, markup=False, highlight=False)
    if len(bad) > 10:
        console.print(f"... and {len(bad) - 10} more in {out}/rejections", highlight=False)


def _print_tables(console: Console, tables: Sequence[Table]) -> None:
    from rich.table import Table as RichTable

    for table in tables:
        shown = RichTable(title=table.title, title_justify="left")
        for column in table.columns:
            shown.add_column(column, justify="left" if column == table.columns[0] else "right")
        for row in table.rows:
            shown.add_row(*(f"{v:,}" if isinstance(v, int) else v for v in row))
        console.print(shown)


@app.command()
def describe(corpus: Path = typer.Argument(Path("corpus"), help="Corpus folder.")) -> None:
    """Print counts of a corpus by dataset, modality, organ and split.

    For example:

      sammed data describe corpus
    """
    from sammed_data.corpus import Corpus
    from sammed_data.describe import count_tables, counts_lines

    console, opened = _console(), Corpus(corpus)
    _print_tables(console, count_tables(opened))
    for line in counts_lines(opened.manifest):
        console.print(line, highlight=False)
    _print_quarantine(console, corpus)


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

    shown = contact_sheet(Corpus(corpus), out, n=n, splits=_names(split) or None)
    typer.echo(f"{out}: {shown} images")


@app.command(name="list")
def list_(
    source: Path | None = _SOURCE,
    root: Path | None = _ROOT,
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """List the catalogue: what it knows, what lies under --root, licences and access.

    For example:

      sammed data list --root /archives --json
    """
    from sammed_data.catalog import load_catalogs
    from sammed_data.discover import find_root

    base = _data_root(root)
    rows: list[dict[str, Any]] = []
    for entry in load_catalogs(source).values():
        place = find_root(entry, base) if base.is_dir() else None
        fields = ("id", "name", "modality", "dims", "role", "license", "license_confidence",
                  "access", "evidence", "homepage")  # fmt: skip
        found = {f: getattr(entry, f) for f in fields}
        rows.append(found | {"place": None if place is None else str(place)})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    _print_list(rows, base)


def _print_list(rows: Sequence[dict[str, Any]], base: Path) -> None:
    from rich.table import Table as RichTable

    console = _console()
    table = RichTable(title=f"{len(rows)} datasets, looked for under {base}", title_justify="left")
    for column in ("id", "modality", "licence", "access", "evidence", "where"):
        table.add_column(column, overflow="fold")
    for row in rows:
        place = row["place"] or f"not on disk: {row['homepage']}"
        table.add_row(
            row["id"], row["modality"], row["license"], row["access"], row["evidence"], place
        )
    console.print(table)


@app.command()
def check(
    name: str = typer.Argument(help="Dataset id."),
    source: Path | None = _SOURCE,
    root: Path | None = _ROOT,
) -> None:
    """Compare a dataset on disk with its entry: cases, labels, files without partner, splits.

    For example:

      sammed data check hc18 --root /archives
    """
    from sammed_data.build import find_datasets
    from sammed_data.splits import assign_splits, group_key

    base = _data_root(root)
    found = find_datasets(source, base, [name], None, keyed=False).datasets[0]
    entry, cases = found.entry, found.cases
    splits = list(assign_splits(entry, cases).values())
    by_split = ", ".join(f"{s} {splits.count(s)}" for s in sorted(set(splits)))
    typer.echo(
        f"{name}: {len(cases)} cases, {len({group_key(c) for c in cases})} patients or groups"
    )
    typer.echo(f"splits: {by_split}")
    typer.echo(f"labels: {', '.join(f'{k} = {m.structure}' for k, m in found.meanings.items())}")
    for problem in found.unpaired:
        typer.echo(f"unpaired: {problem.reason}")
    expected = entry.expected.cases
    if expected is not None and expected != len(cases):
        raise CatalogError(
            f"{name}: expected {expected} cases by its entry, found {len(cases)} under {base}: the "
            f"download is incomplete, or this is a part of the dataset"
        )
    if found.unpaired:
        raise typer.Exit(QUARANTINED)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a catalogue entry.

    For example:

      sammed data schema > entry.schema.json
    """
    from sammed_data.catalog import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))
