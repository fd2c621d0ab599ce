"""Registering a weight file: its digest, and what only its owner knows of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sammed_data.types import ModelError, UsageError
from sammed_model.about import About, about, check_use
from sammed_model.cards import ModelCard, bundled_cards, load_cards, weights_folder, write_yaml
from sammed_model.frame import Preprocessing
from sammed_model.types import kind_facts

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def add(
    name: str,
    path: Path,
    *,
    kind: str | None = None,
    preprocessing: str | None = None,
    trained_on: Sequence[str] = (),
    license_: str | None = None,
    replace_: bool = False,
    dry_run: bool = False,
) -> ModelCard:
    """Register a file where it lies: its digest, and what only the user knows of it.

    Args:
        name: a new one, or that of a published card whose file was got by hand.
        path: the file; it is not copied.
        kind: needed unless the file or the published card says it.
        preprocessing: default the kind's, the file's or the card's.
        trained_on: declared training sources; default the card's or the run's.
        license_: SPDX expression.
        replace_: another file may have the name already.
        dry_run: check all, write nothing.

    Raises:
        UsageError: a name that cannot be one, no kind, or a name that is taken.
        ModelError: not a SAM, or another file or kind than the published card's.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"expected a name of letters, digits, . _ and -, found {name!r}")
    if not path.is_file():
        raise ModelError(f"expected a weight file at {path}, found none: check the path")
    found, published = about(path), bundled_cards().get(name)
    _refuse_other(name, found, published, replace_)
    said = {
        "the file": found.kind if found.form.startswith("sammed") else None,
        f"the card {name}": published.kind if published else None,
        "--kind": kind,
    }
    chosen = _one_kind(path, said)
    check_use(path, found.spec, chosen)
    card = _card(name, found, chosen, preprocessing, published)
    card = replace(
        card,
        training_sources=tuple(trained_on) or card.training_sources or found.trained_on,
        license=license_ or card.license,
    )
    _refuse_other_kind(card)
    if dry_run:
        return card
    content = {
        field.name: list(value) if isinstance(value, tuple) else value
        for field in fields(card)
        if field.name != "name" and (value := getattr(card, field.name)) not in (None, (), "")
    }
    content["training_sources"] = list(card.training_sources)
    write_yaml(card_file(name), content | _empty_words(card))
    return card


def card_file(name: str) -> Path:
    """Where the card of a registered file lies."""
    return weights_folder() / "cards" / f"{name}.yaml"


def _empty_words(card: ModelCard) -> dict[str, str]:
    """Required keys that are empty stay in the file."""
    return {key: getattr(card, key) for key in ("source", "license", "homepage", "citation")}


def _one_kind(path: Path, said: Mapping[str, str | None]) -> str:
    named = {who: kind for who, kind in said.items() if kind is not None}
    for kind in named.values():
        kind_facts(kind)
    if not named:
        raise UsageError(
            f"{path} does not say how it wants to be used: give --kind sam, ft-sam, sam-med2d or "
            "medsam"
        )
    if len(set(named.values())) > 1:
        words = ", ".join(f"{who} says {kind}" for who, kind in named.items())
        raise ModelError(f"expected one kind for {path}, found: {words}")
    return next(iter(named.values()))


def _refuse_other(name: str, found: About, published: ModelCard | None, replace_: bool) -> None:
    known = published.sha256 if published else None
    if known and known != found.sha256:
        raise ModelError(
            f"expected the file of {name} with SHA-256 {known[:12]}, found {found.sha256[:12]} at "
            f"{found.path}: register your file under another name"
        )
    if published and published.architecture != found.spec.name:
        raise ModelError(
            f"expected {published.architecture} for {name}, found {found.spec.name} at {found.path}"
        )
    there = load_cards().get(name)
    mine = there is not None and there.path is not None
    if there and mine and there.sha256 != found.sha256 and not replace_:
        raise UsageError(
            f"{name} is already the file {there.path}: give another name, or --replace"
        )


def _refuse_other_kind(card: ModelCard) -> None:
    """One file is one thing, under whatever names."""
    for other in load_cards().values():
        same = other.sha256 == card.sha256 and other.name != card.name
        if same and (other.kind, other.preprocessing) != (card.kind, card.preprocessing):
            raise ModelError(
                f"{card.path} is already registered as {other.name}, of kind {other.kind} with "
                f"preprocessing {other.preprocessing}: remove "
                f"{weights_folder() / 'cards' / other.name}.yaml first"
            )


def _card(
    name: str, found: About, kind: str, preprocessing: str | None, published: ModelCard | None
) -> ModelCard:
    own = found.preprocessing if found.form.startswith("sammed") else None
    there = own or (published.preprocessing if published else None)
    if preprocessing and there and preprocessing != there:
        raise ModelError(f"{found.path} wants preprocessing {there}, found {preprocessing!r}")
    made = preprocessing or there or kind_facts(kind).preprocessing
    here: dict[str, Any] = {
        "kind": kind,
        "architecture": found.spec.name,
        "image_size": found.spec.image_size,
        "preprocessing": Preprocessing.named(made, found.spec.image_size).name,
        "sha256": found.sha256,
        "md5": None,
        "bytes": found.bytes,
        "verified": "card" if published and published.sha256 else "unverified",
        "path": str(Path(found.path).resolve()),
    }
    if published:
        return replace(published, **here)
    return ModelCard(
        name=name,
        title=name,
        file=Path(found.path).name,
        source="",
        license="LicenseRef-not-declared",
        homepage="",
        citation="",
        training_sources=(),
        **here,
    )
