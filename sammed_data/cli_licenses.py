"""`sammed data licenses`: what may be done with each dataset, and the form to decide it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sammed_data.cli_common import CORPUS, one_corpus, split_names
from sammed_data.types import UsageError, counted

if TYPE_CHECKING:
    from sammed_data.licenses import Standing


def register(app: typer.Typer) -> None:
    """Add the verb to `sammed data`."""
    app.command(name="licenses")(licenses)


def licenses(
    place: Path | None = typer.Argument(
        None, metavar="[CORPUS]", help="Corpus folder; without one: the catalogue."
    ),
    corpus: Path | None = CORPUS,
    source: Path | None = typer.Option(
        None, help="Folder of catalogue entries; default: the bundled ones."
    ),
    only: str | None = typer.Option(None, help="Dataset ids, separated by commas."),
    license_: str | None = typer.Option(
        None,
        "--license",
        help="SPDX ids, redistribute, commercial, known, unknown; separated by commas.",
    ),
    decisions: Path | None = typer.Option(None, help="Signed licence-decisions.yaml."),
    write: Path | None = typer.Option(None, help="Write a form of undecided datasets here."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check and show; write no form."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Show what licences allow, of the catalogue or of a corpus, and how sure that is.

    For example:

      sammed data licenses --license unknown --write licence-decisions.yaml

      sammed data licenses corpus --decisions licence-decisions.yaml
    """
    from sammed_data.catalog import refuse_unknown
    from sammed_data.licenses import (
        admits,
        check_words,
        decision_form,
    )
    from sammed_data.types import nearest

    names, words = split_names(only), split_names(license_)
    check_words(words)
    folder = None if place is None and corpus is None else one_corpus(place, corpus)
    known = {each.dataset: each for each in _standings(folder, source, decisions)}
    if folder is None:
        refuse_unknown(names, known, source)
    for name in names:
        if name not in known:
            raise UsageError(f"no dataset of {folder} {name!r}; {nearest(name, known)}")
    found = [each for name, each in known.items() if name in names or not only]
    found = [each for each in found if admits(words, each)]
    if write is not None:
        if write.exists():
            raise UsageError(f"{write} exists: name a new file, or add to it by hand")
        if not dry_run:
            write.write_text(decision_form(found), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=1))
        return
    _print(found)
    if write is not None:
        typer.echo(f"would write {write}; nothing was written" if dry_run else f"form: {write}")


def _standings(folder: Path | None, source: Path | None, decisions: Path | None) -> list[Standing]:
    """Of the datasets of a corpus, or of the catalogue."""
    from sammed_data.catalog import load_catalogs
    from sammed_data.licenses import load_decisions, standing

    if folder is None:
        signed = load_decisions(decisions)
        return [standing(entry, signed) for entry in load_catalogs(source).values()]
    if source is not None:
        raise UsageError("--source and a corpus do not go together: a corpus has its own words")
    from sammed_data.corpus import Corpus
    from sammed_data.hub_plan import standings

    return standings(Corpus(folder), decisions)


def _print(found: list[Standing]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=counted(len(found), "dataset"), title_justify="left")
    for column in ("id", "licence", "confidence", "pass on", "commercial"):
        table.add_column(column, overflow="fold")
    said = {True: "yes", False: "no", None: "unknown"}
    for each in found:
        license_ = each.license + (f" (signed: {each.signed_by})" if each.signed_by else "")
        table.add_row(
            each.dataset, license_, each.confidence, said[each.redistribute], said[each.commercial]
        )
    console = Console()
    console.print(table)
    known = sum(each.known for each in found)
    console.print(
        f"{known} known, {len(found) - known} unknown: read those at their source and sign "
        "(--write FILE makes the form)",
        highlight=False,
    )
