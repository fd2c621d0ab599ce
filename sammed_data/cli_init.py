"""`sammed data init`: a folder of one's own to a catalogue entry."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from sammed_data.cli_common import QUARANTINED, new_console
from sammed_data.types import UsageError, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sammed_data.propose.carriers import Answers, Inference, Proposal
    from sammed_data.propose.inspect import Inspector
    from sammed_data.propose.overlays import Trial

_ASK = {
    "labels": ("labels", 'VALUE=NAME pairs, such as "1=liver,2=liver_tumor"'),
    "modality": ("modality", "CT, MR, ultrasound, ..."),
    "patient": ("patient", "regular expression on the image path with one (group); or: image"),
    "encoding": ("encoding", "binary, index, instance_ids, rgb, ..."),
    "runs": ("runs", "ORDER,OFFSETS,FIRST, such as column,absolute,1 or row,relative,0"),
    "splits": ("splits", "a CSV file (case,split), {split}/**, test=GLOB;train=GLOB, or: none"),
    "axes": ("axes", "letters of the image's axes, such as ZYX or NYXC; or IMAGE,MASK"),
}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="init")(init)


def init(
    path: Path = typer.Argument(help="Folder with images and masks."),
    out: Path = typer.Option(Path("catalogs"), help="Folder for the entry, <id>.yaml."),
    id_: str | None = typer.Option(None, "--id", help="Id of the entry; default: folder name."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Take all guesses, ask nothing."),
    modality: str | None = typer.Option(None, help="CT, MR, PET, ultrasound, endoscopy, ..."),
    labels: str | None = typer.Option(None, help='Names of raw labels: "1=liver,2=liver_tumor".'),
    patient: str | None = typer.Option(
        None, help="Regex on the image path whose (group) is the key; or: image."
    ),
    encoding: str | None = typer.Option(None, help="binary, index, instance_ids, rgb, ..."),
    images: str | None = typer.Option(None, help="Path pattern, such as 'images/{case}.png'."),
    masks: str | None = typer.Option(None, help="Path pattern, such as 'masks/{case}_seg.png'."),
    axes: str | None = typer.Option(None, help="Axes of arrays: ZYX, NYXC, ...; or IMAGE,MASK."),
    runs: str | None = typer.Option(None, help="Of a run-length table: column,absolute,1."),
    splits: str | None = typer.Option(
        None, help="Official split: CSV (case,split), '{split}/**', 'test=GLOB;train=GLOB', none."
    ),
    group: str | None = typer.Option(None, help="Only this group, where a folder holds several."),
    license_: str | None = typer.Option(None, "--license", help="SPDX name; default: unknown."),
    public: bool = typer.Option(False, "--public", help="The data are public, not restricted."),
    force: bool = typer.Option(False, "--force", help="Replace an entry of the same name."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the entry, write nothing."),
    max_files: int = typer.Option(200_000, help="Files to list at most."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Propose a catalogue entry for a folder: what was inferred, from what, with which doubt.

    For example:

      sammed data init ~/my_scans --yes --labels "1=liver" --modality CT

      sammed data init ~/my_scans --dry-run --yes
    """  # fmt: skip
    from sammed_data.ontology import load_ontology
    from sammed_data.propose.carriers import Answers
    from sammed_data.propose.inspect import Inspector

    answers = Answers(
        id=id_, group=group, modality=modality, labels=labels, patient=patient, encoding=encoding,
        images=images, masks=masks, axes=axes, runs=runs, splits=splits, license=license_,
        public=public,
    )  # fmt: skip
    console = _stderr_console() if as_json or dry_run else new_console()
    inspector = Inspector(path, load_ontology(None), max_files=max_files)
    proposals = inspector.proposals(answers)
    _refuse_existing(proposals, out, force=force or dry_run)
    if not yes:
        proposals = _asked(inspector, proposals, answers, console)
    results = [_finish(p, path, out, console, dry_run=dry_run) for p in proposals]
    if dry_run and not as_json:
        typer.echo("---\n".join(r["text"] for r in results), nl=False)
    if as_json:
        typer.echo(json.dumps(results, indent=1, ensure_ascii=False))
    elif not dry_run:
        _say_next(console, results, path, out, public=public)
    for where, why in inspector.unreadable[:5]:
        why = why.removeprefix(f"{where}: ")
        console.print(f"not read: {where}: {why}", markup=False, highlight=False)
    if any(r["trial"]["failure"] or _bad_cases(r["trial"]) for r in results):
        raise typer.Exit(QUARANTINED)


def _stderr_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def _refuse_existing(proposals: Sequence[Proposal], out: Path, *, force: bool) -> None:
    there = [p.entry["id"] for p in proposals if (out / f"{p.entry['id']}.yaml").exists()]
    if there and not force:
        raise UsageError(
            f"{out / there[0]}.yaml is already there: pass --force to replace it, or another --id "
            "or --out"
        )


def _asked(
    inspector: Inspector, proposals: Sequence[Proposal], answers: Answers, console: Console
) -> list[Proposal]:
    """Ask what only the user can say; without a terminal name the flags that answer.

    Raises:
        UsageError: questions are open and there is no one to ask.
    """
    is_open = [(p, q) for p in proposals for q in p.open_questions]
    if is_open and not (sys.stdin.isatty() and sys.stdout.isatty()):
        first = "; ".join(
            f"{q.key} of {p.entry['id']} (guess: {q.value[:60]}; {q.evidence[:80]}): {q.flag}"
            for p, q in is_open[:6]
        )
        those = counted(len(is_open), "question is", "questions are")
        raise UsageError(
            f"{those} open and there is no terminal to ask on: {first}; "
            "answer by these flags (with --group NAME where there are several groups), or take the "
            "guesses with --yes"
        )
    out = []
    for proposal in proposals:
        if not proposal.open_questions:
            out.append(proposal)
            continue
        _print_inferences(console, proposal)
        told = replace(answers, group=proposal.group.name or None)
        for question in proposal.open_questions:
            told = _answered(inspector, told, question, console)
        out.append(inspector.proposals(told)[0])
    return out


def _answered(
    inspector: Inspector, told: Answers, question: Inference, console: Console
) -> Answers:
    """The answers with one more, asked again until it fits.

    Raises:
        UsageError: the pairing is not what the user wants.
    """
    if question.key not in _ASK:
        if not typer.confirm(f"{question.key} in doubt: {question.evidence}; take it?"):
            raise UsageError(f"say the {question.key} with {question.flag}")
        return told
    while said := _ask(question):
        more = replace(told, **{question.key: said})  # type: ignore[arg-type]
        try:
            inspector.proposals(more)
        except UsageError as err:
            console.print(str(err), markup=False, highlight=False)
            continue
        return more
    return told


def _ask(question: Inference) -> str:
    """The user's answer, '' to take the guess."""
    _, form = _ASK[question.key]
    text = f"{question.key}: guess {question.value[:70]!r} ({question.evidence[:90]})\n  {form}"
    return str(typer.prompt(text, default="", show_default=False)).strip()


def _finish(
    proposal: Proposal, path: Path, out: Path, console: Console, *, dry_run: bool
) -> dict[str, Any]:
    """Try the entry, write it, and say all of it."""
    from sammed_data.propose.entry import to_yaml
    from sammed_data.propose.overlays import try_build

    name = proposal.entry["id"]
    sheet = None if dry_run else out / f"{name}.overlays.png"
    if sheet is not None:
        _make_folder(out)
    trial = try_build(proposal.entry, path, sheet)
    if not trial.failure:
        proposal = replace(proposal, entry={**proposal.entry, "evidence": "built"})
    text = to_yaml(proposal)
    _print_inferences(console, proposal)
    _print_trial(console, trial, sheet)
    if not dry_run:
        _write(out / f"{name}.yaml", text)
    return {
        "id": name,
        "entry": dict(proposal.entry),
        "text": text,
        "inferences": [asdict(i) for i in proposal.inferences],
        "label_comments": dict(proposal.label_comments),
        "trial": asdict(trial),
        "path": None if dry_run else str(out / f"{name}.yaml"),
        "overlays": None if sheet is None or not trial.shown else str(sheet),
    }


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UsageError(f"cannot make the folder {out} ({err.strerror}): pass --out") from err


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".yaml.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as err:
        raise UsageError(f"cannot write {path} ({err.strerror}): pass another --out") from err


def _print_inferences(console: Console, proposal: Proposal) -> None:
    from rich.table import Table
    from rich.text import Text

    from sammed_data.propose.entry import label_notes

    table = Table(title=f"{proposal.entry['id']}: what was inferred", title_justify="left")
    for column in ("key", "value", "from", "doubt"):
        table.add_column(column, overflow="fold")
    for i in proposal.inferences:
        table.add_row(*map(Text, (i.key, i.value, i.evidence, i.doubt)))
    console.print(table)
    for note in label_notes(proposal)[:10]:
        console.print(f"label {note}", markup=False, highlight=False)


def _print_trial(console: Console, trial: Trial, sheet: Path | None) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    if trial.failure:
        say(f"trial of {trial.cases} of {trial.found} cases: nothing was kept: {trial.failure}")
    else:
        say(
            f"trial of {trial.cases} of {trial.found} cases: {counted(trial.images, 'image')} with "
            f"{counted(trial.masks, 'mask')} kept"
        )
    for r in trial.rejected:
        say(f"  would be rejected: {counted(r.count, r.level)} by rule {r.rule}: {r.reason}")
    if trial.unpaired:
        say(f"  without a partner: {counted(trial.unpaired, 'file')}: {trial.unpaired_reason}")
    if trial.shown and sheet is not None:
        say(f"overlays: {sheet} ({trial.shown})")


def _bad_cases(trial: dict[str, Any]) -> bool:
    return any(r["level"] == "case" for r in trial["rejected"])


def _say_next(
    console: Console, results: Sequence[dict[str, Any]], path: Path, out: Path, *, public: bool
) -> None:
    names = ",".join(r["id"] for r in results)
    for result in results:
        console.print(f"entry: {result['path']}", markup=False, highlight=False)
    key = "" if public else " --key site.key"
    if not public and not Path("site.key").is_file():
        console.print(
            "restricted data need a secret of yours, made once and kept outside the corpus:\n"
            "  head -c 32 /dev/urandom > site.key",
            markup=False, highlight=False,
        )  # fmt: skip
    look = "look at the overlays, " if any(r["overlays"] for r in results) else ""
    console.print(
        f"next: {look}mend what is in doubt, then\n"
        f"  sammed data build --source {quote(str(out))} --root {quote(str(path))} "
        f"--only {names}{key}",
        markup=False, highlight=False,
    )  # fmt: skip
