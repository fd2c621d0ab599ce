"""`sammed data audit | exclude | withdraw | diff`: how far a corpus can be trusted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sammed_data.cli_common import CORPUS, PLACE, corpus_and, one_corpus
from sammed_data.types import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from rich.progress import TaskID

_JSON = typer.Option(False, "--json", help="Print one JSON document instead.")


def register(app: typer.Typer) -> None:
    """Add the verbs to `sammed data`."""
    for verb in (audit, exclude, withdraw, diff):
        app.command()(verb)


def audit(
    place: Path | None = PLACE,
    corpus: Path | None = CORPUS,
    out: Path = typer.Option(
        Path("audit"), help="Folder for audit.html (with pictures), pairs.csv and defects.csv."
    ),
    workers: int = typer.Option(0, min=0, help="Processes that read shards; 0 = one a core."),
    planted: int = typer.Option(
        100, help="Pictures of which copies are planted to measure the search; 30 get defects too."
    ),
    tables: int = typer.Option(16, help="Tables of the search; more find more, and take longer."),
    scratch: Path | None = typer.Option(
        None, help="Folder for arrays while it runs, about 400 bytes an image."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check the corpus; search nothing."),
    as_json: bool = _JSON,
) -> None:
    """Look for duplicates, leaks and defects, and say how much such a search finds.

    Exit code 1 where a split leaks, 3 for other findings, 0 where nothing was found.

    For example:

      sammed data audit corpus --out audit
    """
    import os

    from sammed_data.audit.gallery import write_gallery
    from sammed_data.audit.run import AuditOptions, audit_corpus
    from sammed_data.audit.words import TABLES, document, sentences, write_tables
    from sammed_data.audit.words import tables as audit_tables
    from sammed_data.cli_common import new_console, print_tables
    from sammed_data.corpus import Corpus
    from sammed_data.talk import RECORD, record_command, say_dry

    opened = Corpus(one_corpus(place, corpus))
    options = AuditOptions(
        workers=workers or os.cpu_count() or 1, planted=planted, tables=tables, scratch=scratch
    )
    if dry_run:
        options.check()
        opened.check_shards()
        images = sum(s["rows"] for s in opened.manifest["shards"])
        writes = [out / f"{name}.csv" for name in TABLES] + [out / "audit.html", out / RECORD]
        say_dry([opened.root], writes, as_json=as_json, images=images)
        return
    with _stages() as progress:
        found = audit_corpus(opened, options, progress)
    write_tables(found, opened, out)
    shown = write_gallery(found, opened, out / "audit.html")
    record_command(out)
    if as_json:
        typer.echo(json.dumps(document(found), indent=1))
    else:
        console = new_console()
        print_tables(console, audit_tables(found))
        for line in sentences(found):
            console.print(line, markup=False, highlight=False)
        console.print(f"gallery of {shown}: {out / 'audit.html'}", markup=False, highlight=False)
    raise typer.Exit(found.exit_code)


def exclude(
    words: list[str] = typer.Argument(
        metavar="[CORPUS] LIST",
        help="Corpus folder (default: corpus); CSV, JSON lines or Parquet: sample_id, or dataset "
        "with case_id or patient_id; and reason.",
    ),
    corpus: Path | None = CORPUS,
    key: Path | None = typer.Option(None, help="Secret key file, for raw ids of restricted data."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say how many entries name rows."),
) -> None:
    """Leave samples, cases or patients out wherever the corpus is read; nothing is rebuilt.

    For example:

      sammed data exclude corpus audit/exclude-proposal.csv
    """
    from sammed_data.corpus import Corpus
    from sammed_data.exclude import read_list
    from sammed_data.excluding import apply_list, excluded_lines
    from sammed_data.talk import answer

    folder, listed = corpus_and(words, corpus, "LIST")
    applied = apply_list(folder, read_list(Path(listed)), key_file=key, dry_run=dry_run)
    lines = excluded_lines(Corpus(folder))
    listing = counted(applied.known + applied.unknown, "entry", "entries")
    typer.echo(f"{listing}: {applied.known} found in {folder}, {applied.unknown} not")
    if dry_run:
        typer.echo(f"nothing was written; the list of {folder} is as it was")
    for line in lines:
        typer.echo(line)
    answer({"dry_run": dry_run, "known": applied.known, "unknown": applied.unknown, "now": lines})


def withdraw(
    place: Path | None = PLACE,
    corpus: Path | None = CORPUS,
    patient: str = typer.Option(help="DATASET:ID; the patient_id of the rows, or the raw key."),
    reason: str = typer.Option(
        help="Why; kept in the list of the corpus (of public sources also in its rejections)."
    ),
    key: Path | None = typer.Option(None, help="Secret key file, for raw ids of restricted data."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be removed."),
) -> None:
    """Remove a patient's rows from the disk; only the shards that hold them are written anew.

    A later build does not bring them back. Copies elsewhere (galleries, exports, the source) are
    yours to remove.

    For example:

      sammed data withdraw corpus --patient hc18:p1b2c3d4e5f60 --reason "consent withdrawn"
    """
    from sammed_data.corpus import Corpus
    from sammed_data.excluding import patient_name
    from sammed_data.talk import answer
    from sammed_data.types import UsageError
    from sammed_data.withdraw import held_by, patients_of
    from sammed_data.withdraw import withdraw as take_out

    dataset, colon, name = patient.partition(":")
    if not (dataset and colon and name):
        raise UsageError(f"expected --patient DATASET:ID, found {patient!r}")
    folder = one_corpus(place, corpus)
    opened = Corpus(folder)
    known = patients_of(opened, dataset)
    if name in opened.exclusions.withdrawn(dataset):
        raise UsageError(f"{patient} is withdrawn from {folder} already: its rows are gone")
    stored = patient_name(dataset, name, known, key)
    if dry_run:
        held = held_by(opened, dataset, stored, typed=name)
        answer({"dry_run": True} | asdict(held))
        typer.echo(
            f"would withdraw {held.images} images with {held.masks} masks; would write "
            f"{', '.join(held.shards)} anew; nothing was written"
        )
        return
    done = take_out(folder, dataset, stored, reason, typed=name)
    answer({"dry_run": False} | asdict(done))
    typer.echo(
        f"withdrawn: {counted(done.cases, 'case')}, {counted(done.images, 'image')} with "
        f"{counted(done.masks, 'mask')}; rewritten: "
        f"{', '.join(done.shards)}; content {done.content_sha256[:16]}"
    )


def diff(
    a: Path = typer.Argument(metavar="A", help="Corpus folder or fingerprint file."),
    b: Path | None = typer.Argument(None, metavar="B", help="The same."),
    fingerprint: bool = typer.Option(
        False, "--fingerprint", help="Print the fingerprint of corpus A: hashes, no image."
    ),
    as_json: bool = _JSON,
) -> None:
    """Compare two corpora by content hash; exit code 3 where they differ.

    Sites that may not share images exchange fingerprint files.

    For example:

      sammed data diff --fingerprint corpus > ours.jsonl

      sammed data diff ours.jsonl theirs.jsonl
    """
    from sammed_data.cli_common import QUARANTINED, print_tables
    from sammed_data.corpus import Corpus
    from sammed_data.diff import (
        compare,
        difference_document,
        difference_table,
        fingerprint_lines,
        open_side,
    )
    from sammed_data.types import UsageError

    if fingerprint:
        if b is not None or as_json:
            raise UsageError("--fingerprint takes one corpus and no other option")
        for line in fingerprint_lines(Corpus(a)):
            typer.echo(line)
        return
    if b is None:
        raise UsageError("expected two corpora or fingerprint files, found one")
    sides = open_side(a), open_side(b)
    found = compare(*sides)
    if as_json:
        typer.echo(json.dumps(difference_document(*sides, found), indent=1))
    else:
        from sammed_data.cli_common import new_console

        console = new_console()
        print_tables(console, [difference_table(*sides, found)])
        said = "differ" if found.differs else "hold the same rows"
        console.print(f"{sides[0].name} and {sides[1].name} {said}", markup=False, highlight=False)
    if found.differs:
        raise typer.Exit(QUARANTINED)


def _stages() -> AbstractContextManager[Callable[[str, int, int], None]]:
    from contextlib import contextmanager

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from sammed_data.talk import progress_console

    @contextmanager
    def bars() -> Iterator[Callable[[str, int, int], None]]:
        err = progress_console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TimeElapsedColumn())  # fmt: skip
        with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
            tasks: dict[str, TaskID] = {}

            def show(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = progress.add_task(stage, total=total)
                progress.update(tasks[stage], completed=done, total=total)

            yield show

    return bars()
