"""`sammed weights list | fetch | add | show | merge`: published weights and the user's, by name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sammed_model.about import About

_JSON = Annotated[bool, typer.Option("--json", help="One machine-readable document.")]

weights = typer.Typer(
    no_args_is_help=True,
    help="""Published weights and your own, by name; for example:

      sammed weights fetch sam_vit_b

      sammed train --init sam_vit_b --model vit_b
    """,
)


def register(app: typer.Typer) -> None:
    """Add the verbs to the root app."""
    for verb in (fetch, add, show, merge):
        weights.command()(verb)
    weights.command(name="list")(list_)
    app.add_typer(weights, name="weights")


def list_(as_json: _JSON = False) -> None:
    """List the weights that are known: kind, size, licence, digest, and whether they are here.

    For example:

      sammed weights list --json
    """
    from rich.console import Console
    from rich.table import Table

    from sammed_data.get.download import size_text
    from sammed_model.cards import load_cards, weights_folder
    from sammed_model.weights import as_row

    rows = [as_row(card) for card in load_cards().values()]
    if as_json:
        typer.echo(json.dumps({"folder": str(weights_folder()), "weights": rows}, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "kind", "model", "px", "size", "licence", "digest", "here"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        size = "?" if row["bytes"] is None else size_text(row["bytes"])
        here = "yes" if row["present"] else "by hand" if row["by_hand"] else "no"
        table.add_row(row["name"], row["kind"], row["architecture"], str(row["image_size"]), size,
                      row["license"], _digest_words(row), here)  # fmt: skip
    Console(width=None if Console().is_terminal else 120).print(table)
    typer.echo(f"files and your own cards: {weights_folder()}; `sammed weights fetch NAME`")


def _digest_words(row: dict[str, Any]) -> str:
    if row["sha256"]:
        return f"{row['sha256'][:12]}{'' if row['verified'] == 'card' else ' (unverified)'}"
    return f"md5 {row['md5'][:8]}" if row["md5"] else "not known"


def fetch(
    names: Annotated[list[str], typer.Argument(help="Names of `sammed weights list`.")],
    again: Annotated[bool, typer.Option("--again", help="Fetch anew.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say from where and how large; fetch nothing.")
    ] = False,
    as_json: _JSON = False,
) -> None:
    """Download weights and check them; or print the steps that only a person can do.

    An interrupted download goes on where it stopped. For example:

      sammed weights fetch sam_vit_b

      sammed weights fetch sam-med2d_b      (a drive page is in the way: prints the steps)
    """
    from sammed_data.get.web import Web
    from sammed_model.weights import card_named

    cards = [card_named(name) for name in dict.fromkeys(names)]
    if dry_run:
        _dry_fetch(cards, again=again, as_json=as_json)
        return
    rows = [_fetched(card, Web(), again=again) for card in cards]
    if as_json:
        typer.echo(json.dumps(rows, indent=1, default=str))
    else:
        for row in rows:
            _print_fetched(row)
    if any(row["steps"] or row["error"] for row in rows):
        raise typer.Exit(1)


def _dry_fetch(cards: list[Any], *, again: bool, as_json: bool) -> None:
    from sammed_data.talk import say_dry
    from sammed_model.cards import LOCK_NAME, place_of, weights_folder
    from sammed_model.weights import steps_by_hand

    wanted = [c for c in cards if again or place_of(c) is None]
    by_hand = [c.name for c in wanted if steps_by_hand(c)]
    got = [c for c in wanted if c.name not in by_hand]
    writes = [weights_folder() / c.file for c in got]
    writes += [weights_folder() / LOCK_NAME] if got else []
    say_dry(
        [c.source for c in got], writes, as_json=as_json, by_hand=by_hand,
        bytes=sum(c.bytes or 0 for c in got),
        here=[c.name for c in cards if c not in wanted],
    )  # fmt: skip
    if by_hand:
        raise typer.Exit(1)  # as the fetch itself would


def _fetched(card: Any, web: Any, *, again: bool) -> dict[str, Any]:
    from sammed_data.cli_get_print import progress_bars
    from sammed_data.types import FetchError
    from sammed_model.cards import place_of
    from sammed_model.weights import fetch as run_fetch
    from sammed_model.weights import steps_by_hand

    steps = steps_by_hand(card) if again or place_of(card) is None else []
    row: dict[str, Any] = {"name": card.name, "steps": steps, "error": None}
    if steps:
        return row
    try:
        with progress_bars() as progress:
            return row | asdict(run_fetch(card, web, progress, again=again))
    except FetchError as err:
        return row | {"error": f"{err}; or by hand, from {card.homepage or card.source}"}


def _print_fetched(row: dict[str, Any]) -> None:
    if row["error"]:
        typer.echo(f"{row['name']}: {row['error']}", err=True)
        return
    if row["steps"]:
        typer.echo(f"{row['name']}: a person must get it:")
        for number, step in enumerate(row["steps"], 1):
            typer.echo(f"  {number}. {step}")
        return
    words = {
        "card": "as published",
        "lock": "as at the first fetch",
        "unverified": "unverified: nobody published its digest; recorded at the first sight of it",
    }
    done = "fetched" if row["new"] else "already here"
    typer.echo(f"{row['name']}: {done}: {row['path']}")
    typer.echo(f"  SHA-256 {row['sha256']}: {words[row['verified']]}")


def add(
    name: Annotated[str, typer.Argument(help="A new name, or a published one got by hand.")],
    path: Annotated[Path, typer.Argument(help="The weight file; it stays where it is.")],
    kind: Annotated[
        str | None, typer.Option(help="sam, ft-sam, sam-med2d or medsam, unless it is known.")
    ] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="default, released or medsam.", show_default="the kind's")
    ] = None,
    trained_on: Annotated[
        list[str] | None, typer.Option(help="What it was trained on; may be repeated.")
    ] = None,
    license_: Annotated[str | None, typer.Option("--license", help="SPDX expression.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="The name may be taken.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at the file; register nothing.")
    ] = False,
    as_json: _JSON = False,
) -> None:
    """Register a file by name, with its kind, preprocessing and training sources.

    For example:

      sammed weights add ours-2024 best.pth --kind ft-sam --trained-on "our liver CT"

      sammed weights add sam-med2d_b ~/Downloads/sam-med2d_b.pth
    """
    from sammed_model.register import add as run_add
    from sammed_model.register import card_file

    card = run_add(name, path, kind=kind, preprocessing=preprocessing,
                   trained_on=trained_on or (), license_=license_, replace_=replace,
                   dry_run=dry_run)  # fmt: skip
    if dry_run:
        from sammed_data.talk import say_dry

        say_dry([path], [card_file(name)], as_json=as_json, kind=card.kind, sha256=card.sha256)
        return
    if as_json:
        typer.echo(json.dumps(asdict(card), indent=1))
        return
    typer.echo(
        f"{name}: {card.kind} {card.architecture} at {card.image_size} px, preprocessing "
        f"{card.preprocessing}, SHA-256 {str(card.sha256)[:12]} "
        f"({'as published' if card.verified == 'card' else 'your own word'})"
    )
    sources = ", ".join(card.training_sources) or "not declared: give --trained-on"
    typer.echo(f"trained on: {sources}")
    typer.echo(f"use it as --init {name} or --model LABEL={name}")


def show(
    path: Annotated[str, typer.Argument(help="A weight file, or a name.")],
    as_json: _JSON = False,
) -> None:
    """Say what a weight file is: sizes, adapters, kind, preprocessing, digest, training data.

    For example:

      sammed weights show runs/001-sam-med2d/model.safetensors
    """
    from sammed_model.about import about
    from sammed_model.cards import located

    found = about(located(path))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
        return
    for key, value in _shown(found).items():
        typer.echo(f"{key:<14} {value}")


def _shown(found: About) -> dict[str, str]:
    spec = found.spec
    size = f"{found.tensors} tensors, {found.parameters:,} values, {found.bytes:,} bytes"
    rows = {
        "file": f"{found.path} ({found.form})",
        "SHA-256": found.sha256,
        "model": f"{spec.name} at {spec.image_size} px, adapters: {spec.adapters}",
        "size": size,
        "kind": f"{found.kind or '?'} (from: {found.known_from})",
        "preprocessing": found.preprocessing or "?",
        "recipe": found.recipe or "not said",
        "trained on": ", ".join(found.trained_on) or "not declared",
    }
    if found.base:
        rows["base"] = f"{found.base}, digest of its weights {str(found.base_sha256)[:12]}"
    if found.card:
        rows |= {"licence": found.card.license, "notes": found.card.notes}
    return rows


def merge(
    trained: Annotated[Path, typer.Argument(help="trained.safetensors of a run.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    base: Annotated[
        Path | None, typer.Option(help="Where its base is now.", show_default="as recorded")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check both files; write nothing.")
    ] = False,
    as_json: _JSON = False,
) -> None:
    """Put trained tensors and their base into one file; another base is refused.

    For example:

      sammed weights merge runs/001-lora/trained.safetensors --out liver.safetensors
    """
    from sammed_model.weights import merge as run_merge

    if dry_run:
        from sammed_data.talk import say_dry
        from sammed_model.model_card import card_place
        from sammed_model.weights import on_base

        kind = on_base(trained, base=base).kind
        writes = [out, card_place(out.parent, out.name)]
        say_dry([trained, base or "its base"], writes, as_json=as_json, kind=kind)
        return
    found = run_merge(trained, out, base=base)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
        return
    typer.echo(f"{out}: {found.kind} {found.spec.name}, SHA-256 {found.sha256}")
