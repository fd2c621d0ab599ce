"""`sammed data describe` and `show`: what a corpus holds, in numbers, figures and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from sammed_data.cli_common import (
    CORPUS,
    PLACE,
    new_console,
    one_corpus,
    print_quarantine,
    print_tables,
    split_names,
)


def register(app: typer.Typer) -> None:
    """Add the verbs to `sammed data`."""
    app.command(name="describe")(describe)
    app.command(name="show")(show)


def describe(
    place: Path | None = PLACE,
    corpus: Path | None = CORPUS,
    out: Path | None = typer.Option(None, help="Folder for figures (SVG) and one HTML page."),
    both: bool = typer.Option(
        False, "--lesions-in-both", help="Count lesions in their organ's group as well."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Name the files of --out; write none."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Count a corpus by dataset, modality, organ, group and split; draw it with --out.

    For example:

      sammed data describe corpus

      sammed data describe corpus --out figures
    """
    from sammed_data.corpus import Corpus
    from sammed_data.counts import Counts
    from sammed_data.describe import count_tables, counts_lines
    from sammed_data.talk import RECORD, record_command, say_dry

    corpus = one_corpus(place, corpus)
    opened = Corpus(corpus)
    opened.check_shards()
    if dry_run:
        from sammed_data.figures import FIGURES

        places = [] if out is None else [out / name for name in (*FIGURES, RECORD)]
        images = sum(s["rows"] for s in opened.manifest["shards"])
        say_dry([opened.root], places, as_json=as_json, images=images)
        return
    counts = Counts(opened)
    tables = count_tables(counts, lesions_in_both=both)
    if out is not None:
        from sammed_data.figures import write_figures

        write_figures(counts, out, tables, lesions_in_both=both)
        record_command(out)
    if as_json:
        said = {t.title: [dict(zip(t.columns, r, strict=True)) for r in t.rows] for t in tables}
        found = {"tables": said, "counts": opened.manifest["counts"], "hash": opened.content_hash}
        typer.echo(json.dumps(found, indent=1))
        return
    console = new_console()
    print_tables(console, tables)
    for line in counts_lines(opened.manifest):
        console.print(line, highlight=False)
    print_quarantine(console, corpus)
    if out is not None:
        console.print(f"figures: {out}/describe.html", highlight=False)


def show(
    place: Path | None = PLACE,
    corpus: Path | None = CORPUS,
    out: Path = typer.Option(Path("sheet.png"), help="Picture (.png) or page (.html) to write."),
    n: int = typer.Option(24, help="How many images."),
    split: str | None = typer.Option(None, help="Only these splits, separated by commas."),
    dataset: str | None = typer.Option(None, help="Only these datasets."),
    modality: str | None = typer.Option(None, help="Only these modalities."),
    structure: str | None = typer.Option(None, help="Only images with one of these structures."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Count the images; draw nothing."),
) -> None:
    """Show images beside their masks, datasets taking turns.

    For example:

      sammed data show corpus --n 12 --split test --out sheet.png

      sammed data show corpus --structure liver,spleen --out sheet.html
    """
    from sammed_data.corpus import Corpus
    from sammed_data.sheet import Wanted, contact_sheet, sheet_rows
    from sammed_data.talk import answer, say_dry

    wanted = Wanted(
        n=n,
        splits=tuple(split_names(split)),
        datasets=tuple(split_names(dataset)),
        modalities=tuple(split_names(modality)),
        structures=tuple(split_names(structure)),
    )
    opened = Corpus(one_corpus(place, corpus))
    if dry_run:
        say_dry([opened.root], [out], images=len(sheet_rows(opened, out, wanted, keep=False)))
        return
    shown = contact_sheet(opened, out, wanted)
    answer({"out": out, "images": shown})
    typer.echo(f"{out}: {shown} images")
