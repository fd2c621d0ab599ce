"""What the commands of `sammed data` share: options, printing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sammed_data.stores import local_folder
from sammed_data.types import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sammed_data.describe import Table

QUARANTINED = 3
_NAME_WIDTH = 36  # the longest ids; longer text is folded

SOURCE = typer.Option(None, help="Folder of catalogue entries; default: the bundled ones.")
ROOT = typer.Option(None, help="Where the datasets lie; default: $SAMMED_DATA or ./data.")
# a corpus is an argument or --corpus, as one likes; the latter is what train and bench take
PLACE = typer.Argument(None, metavar="[CORPUS]", help="Corpus folder; default: corpus.")
CORPUS = typer.Option(None, "--corpus", help="The same as the argument.")


def one_corpus(place: Path | None, corpus: Path | None) -> Path:
    """The corpus that was named in one way or the other, else ./corpus."""
    if place is not None and corpus is not None and place != corpus:
        raise UsageError(
            f"expected one corpus, found {place} and --corpus {corpus}: leave one of them out"
        )
    return place or corpus or Path("corpus")


def corpus_and(words: Sequence[str], corpus: Path | None, what: str) -> tuple[Path, str]:
    """The corpus and the one other argument of a verb: ``[CORPUS] WHAT``, or --corpus."""
    if len(words) > 2:
        raise UsageError(f"expected [CORPUS] {what}, found {len(words)} arguments")
    place = Path(words[0]) if len(words) == 2 else None
    return one_corpus(place, corpus), words[-1]


def new_console() -> Console:
    """As wide as the terminal; lines are never broken for a pipe."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    return Console(width=width, soft_wrap=not sys.stdout.isatty())


def data_root(root: Path | None) -> Path:
    """The root given, else $SAMMED_DATA, else ./data; it must exist when it was named."""
    named = root or (Path(os.environ["SAMMED_DATA"]) if os.environ.get("SAMMED_DATA") else None)
    named = None if named is None else local_folder(named, "--root")
    if named is not None and not named.is_dir():
        raise UsageError(f"expected a folder of datasets at {named}, found none: mend --root")
    return named or Path("data")


def split_names(text: str | None) -> list[str]:
    """The names in a comma-separated option."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def print_quarantine(console: Console, out: Path) -> None:
    """The first cases that were set aside, with reasons; and what the corpus' list hides."""
    from sammed_data.corpus import Corpus
    from sammed_data.excluding import excluded_lines
    from sammed_data.shards import read_rejections

    bad = [r for r in read_rejections(out).to_pylist() if r["level"] == "case"]
    for row in bad[:10]:
        text = f"quarantined: {row['dataset']} {row['case_id']}: {row['rule']}: {row['reason']}"
        console.print(text, markup=False, highlight=False)
    if len(bad) > 10:
        console.print(f"... and {len(bad) - 10} more in {out}/rejections", highlight=False)
    for line in excluded_lines(Corpus(out)):
        console.print(line, markup=False, highlight=False)


def print_tables(console: Console, tables: Sequence[Table]) -> None:
    """Count tables."""
    from rich.table import Table as RichTable

    for table in tables:
        shown = RichTable(title=table.title, title_justify="left")
        widest = max((len(str(row[0])) for row in table.rows), default=0)
        for number, column in enumerate(table.columns):
            shown.add_column(
                column,
                justify="right" if number else "left",
                overflow="fold",  # a name that is cut cannot be used
                min_width=None if number else min(widest, _NAME_WIDTH),
            )
        for row in table.rows:
            shown.add_row(*(f"{v:,}" if isinstance(v, int) else v for v in row))
        console.print(shown)
