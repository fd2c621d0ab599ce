"""`sammed data push`: a corpus to the Hugging Face Hub, as far as its licences allow."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sammed_data.cli_common import CORPUS, QUARANTINED, corpus_and

if TYPE_CHECKING:
    from sammed_data.hub_plan import HubFile, PushPlan


def register(app: typer.Typer) -> None:
    """Add the verb to `sammed data`."""
    app.command()(push)


def push(
    words: list[str] = typer.Argument(
        metavar="[CORPUS] REPOSITORY",
        help="Corpus folder (default: corpus); dataset repository as OWNER/NAME.",
    ),
    corpus: Path | None = CORPUS,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="List files, licences and what is refused; send nothing."
    ),
    private: bool = typer.Option(False, "--private", help="Make the repository private."),
    leave_out: bool = typer.Option(
        False, "--leave-out", help="Push the datasets that may be, without those refused."
    ),
    decisions: Path | None = typer.Option(None, help="Signed licence-decisions.yaml."),
) -> None:
    """Upload a corpus to the Hugging Face Hub, where `datasets` streams it.

    Refused are datasets that are restricted, whose licence nobody is sure of (sign it, see
    `sammed data licenses`), or that may not be passed on. The token comes from $HF_TOKEN alone.
    Exit code 3: a dry run with something refused. For example:

      sammed data push corpus my-lab/abdomen --dry-run

      sammed data push my-lab/abdomen --corpus corpus --private --leave-out
    """
    from sammed_data.corpus import Corpus
    from sammed_data.hub import check_repo, open_hub, refuse
    from sammed_data.hub import push as run_push
    from sammed_data.hub_plan import plan_push
    from sammed_data.talk import answer

    folder, repo_id = corpus_and(words, corpus, "OWNER/NAME")
    check_repo(repo_id)
    plan = plan_push(Corpus(folder), decisions)
    document = _document(plan, repo_id)
    answer(document)
    _print_plan(plan)
    if dry_run:
        raise typer.Exit(QUARANTINED if plan.refused else 0)
    refuse(plan, leave_out=leave_out)

    def tell(file: HubFile, new: bool) -> None:
        typer.echo(f"{'sent' if new else 'there already'}: {file.path}")

    hub = open_hub(os.environ.get("HF_TOKEN"))
    sent = run_push(plan, repo_id, hub, private=private, leave_out=leave_out, tell=tell)
    answer(document | {"sent_bytes": sent})
    typer.echo(f'{repo_id}: load it by datasets.load_dataset("{repo_id}", streaming=True)')


def _document(plan: PushPlan, repo_id: str) -> dict[str, Any]:
    files = [
        {"path": f.path, "bytes": f.bytes, "rows": f.rows, "dataset": f.dataset} for f in plan.files
    ]
    return {
        "repo_id": repo_id,
        "content_sha256": plan.content_sha256,
        "files": files,
        "bytes": sum(f.bytes for f in plan.files),
        "rows": sum(f.rows for f in plan.files),
        "datasets": [asdict(each) for each in plan.datasets],
        "notes": list(plan.notes),
    }


def _print_plan(plan: PushPlan) -> None:
    from rich.table import Table

    from sammed_data.cli_common import new_console
    from sammed_data.get.download import size_text

    console = new_console()
    table = Table(title="licences", title_justify="left")
    for column in ("dataset", "rows", "licence", "confidence", "access", "may go"):
        table.add_column(column, overflow="fold", justify="right" if column == "rows" else "left")
    for each in plan.datasets:
        may = "no" if each.refused else "yes"
        sure = f"signed: {each.signed_by}" if each.signed_by else each.confidence
        table.add_row(each.dataset, f"{each.rows:,}", each.license, sure, each.access, may)
    console.print(table)
    for file in plan.files:
        rows = f", {file.rows:,} rows" if file.rows else ""
        console.print(f"{file.path}: {size_text(file.bytes)}{rows}", markup=False, highlight=False)
    size, count = sum(f.bytes for f in plan.files), sum(f.rows for f in plan.files)
    console.print(f"{len(plan.files)} files, {size_text(size)}, {count:,} rows", highlight=False)
    for each in plan.refused:
        console.print(f"refused: {each.dataset}: {each.refused}", markup=False, highlight=False)
    for note in plan.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
