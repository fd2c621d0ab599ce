"""`sammed data export`: a corpus in the layouts of others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sammed_data.cli_common import CORPUS, one_corpus, split_names
from sammed_data.types import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sammed_data.export import Writer


def register(app: typer.Typer) -> None:
    """Add the verb to `sammed data`."""
    app.command(name="export")(export)


def export(
    words: list[Path] = typer.Argument(
        None, metavar="[OUT] [CORPUS]", help="Folder to make; corpus folder (default: corpus)."
    ),
    corpus: Path | None = CORPUS,
    out_: Path | None = typer.Option(None, "--out", help="Folder to make, where not OUT."),
    format_: str = typer.Option("sam-med2d", "--format", help="sam-med2d, nnunet or coco."),
    dataset: str | None = typer.Option(None, help="Dataset ids, separated by commas."),
    split: str | None = typer.Option(None, help="Splits, separated by commas."),
    view: str = typer.Option("all", help="all, or sam-med2d for the paper's mask sizes."),
    number: int = typer.Option(1, help="nnU-Net's dataset number."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only count what would be written."),
) -> None:
    """Write images and masks as SAM-Med2D's JSON layout, nnU-Net v2 (2D) or COCO.

    For example:

      sammed data export data_demo --format sam-med2d

      sammed data export corpus --out nnUNet_raw --format nnunet --dataset hc18 --number 18
    """
    from sammed_data.corpus import SPLITS, VIEWS, Corpus
    from sammed_data.export import Chosen, count
    from sammed_data.export import export as run_export
    from sammed_data.talk import answer, record_command

    out, folder = _places(words or [], out_, corpus)
    if view not in VIEWS:
        raise UsageError(f"unknown view {view!r}; {nearest(view, VIEWS)}")
    chosen = Chosen(
        datasets=tuple(split_names(dataset)),
        splits=tuple(split_names(split)) or SPLITS,
        view=VIEWS[view],
    )
    writer, opened = _writer(format_, number), Corpus(folder)
    if dry_run:
        written = count(opened, out, chosen)
    else:
        written = run_export(opened, out, writer, chosen)
        record_command(out)
    answer({"dry_run": dry_run, "out": out} | vars(written))
    by_split = ", ".join(f"{name} {n}" for name, n in sorted(written.splits.items()))
    would = "would hold " if dry_run else ""
    typer.echo(f"{out}: {would}{written.images} images ({by_split}), {written.masks} masks")
    for what, n in sorted(written.lost.items()):
        if n:
            typer.echo(f"not in this layout: {n} {what}")


def _places(words: Sequence[Path], out: Path | None, corpus: Path | None) -> tuple[Path, Path]:
    """Where to write, and the corpus: OUT [CORPUS], or [CORPUS] with --out."""
    left = list(words)
    if out is None:
        if not left:
            raise UsageError("expected the folder to make, found none: name it, or give --out")
        out = left.pop(0)
    if len(left) > 1:
        raise UsageError(f"expected one corpus, found {' and '.join(map(str, left))}")
    return out, one_corpus(left[0] if left else None, corpus)


def _writer(name: str, number: int) -> Writer:
    from sammed_data.export import coco, nnunet, samed2d

    if not 1 <= number <= 999:
        raise UsageError(f"--number is from 1 to 999, found {number}")
    writers: dict[str, Writer] = {
        "sam-med2d": samed2d.write,
        "nnunet": partial(nnunet.write, number=number),
        "coco": coco.write,
    }
    if name not in writers:
        raise UsageError(f"unknown --format {name!r}; {nearest(name, writers)}")
    return writers[name]
