"""Weights by name: what is known and here, fetching, merging."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sammed_data.types import ModelError, UsageError, nearest
from sammed_model.about import About, about, is_trained_only
from sammed_model.cards import (
    LOCK_NAME,
    ModelCard,
    bundled_cards,
    file_sha256,
    load_cards,
    place_of,
    read_lock,
    weights_folder,
    write_yaml,
)

if TYPE_CHECKING:
    from sammed_data.get.download import Progress
    from sammed_data.get.web import Web
    from sammed_model.sam import SamModel


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file that is here now.

    Attributes:
        verified: ``card`` = the digest was known beforehand; ``unverified`` = first sight of it,
            recorded in the lock; ``lock`` = as at the first fetch.
        new: whether it was downloaded now.
    """

    name: str
    path: Path
    bytes: int
    sha256: str
    verified: str
    new: bool


def card_named(name: str) -> ModelCard:
    """A card by name.

    Raises:
        UsageError: unknown.
    """
    cards = load_cards()
    if name not in cards:
        raise UsageError(f"unknown weights {name!r}: {nearest(name, cards)}")
    return cards[name]


def steps_by_hand(card: ModelCard) -> list[str]:
    """What a person must do to get the file; empty = `fetch` can."""
    if not card.steps:
        return []
    return [
        f"address: {card.source}",
        *card.steps,
        f"sammed weights add {card.name} PATH  (where PATH is the downloaded file)",
    ]


def fetch(card: ModelCard, web: Web, progress: Progress, *, again: bool = False) -> Fetched:
    """Bring the file of a card into the weights folder: resumed, measured, hashed, looked into.

    Raises:
        FetchError: no address gives the expected bytes.
        ModelError: the file is not what the card says.
    """
    from sammed_data.catalog import Download
    from sammed_data.get.download import download
    from sammed_data.get.records import RemoteFile

    here = place_of(card)
    if here is not None and not again:
        return _there(card, here)
    folder = weights_folder()
    seen = read_lock().get(card.name)
    got = download(
        RemoteFile(
            name=card.file,
            urls=(card.source, *card.mirrors),
            download=Download(url=card.source),
            bytes=card.bytes,
            sha256=card.sha256,
            md5=card.md5,
            known_from="lock" if seen else "card",
        ),
        folder / card.file,
        web,
        progress=progress,
    )
    found = about(got.path)
    if found.spec.name != card.architecture:
        raise ModelError(
            f"expected {card.architecture} in {got.path} by the card {card.name}, found "
            f"{found.spec.name}: the file at {got.url} is another"
        )
    first = bundled_cards().get(card.name, card)
    known = bool(first.sha256 or first.md5)
    if seen is None:
        _lock(card, got.url, got.bytes, got.sha256)
    verified = "card" if known else "lock" if seen else "unverified"
    return Fetched(
        name=card.name, path=got.path, bytes=got.bytes, sha256=got.sha256, verified=verified,
        new=True,
    )  # fmt: skip


def _there(card: ModelCard, path: Path) -> Fetched:
    digest = file_sha256(path)
    if card.sha256 and digest != card.sha256:
        raise ModelError(
            f"expected the file of {card.name} with SHA-256 {card.sha256[:12]} at {path}, found "
            f"{digest[:12]}: `sammed weights fetch {card.name} --again`, or add your file under "
            "another name"
        )
    verified = card.verified if card.sha256 else "unverified"
    return Fetched(
        name=card.name, path=path, bytes=path.stat().st_size, sha256=digest, verified=verified,
        new=False,
    )  # fmt: skip


def _lock(card: ModelCard, url: str, size: int, digest: str) -> None:
    """Record the first sight of a file; written beside, then renamed."""
    row = {
        "file": card.file,
        "bytes": size,
        "sha256": digest,
        "url": url,
        "fetched": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    files = dict(sorted((read_lock() | {card.name: row}).items()))
    write_yaml(weights_folder() / LOCK_NAME, {"lock_version": 1, "files": files})


def merge(trained: Path, out: Path, *, base: Path | None = None) -> About:
    """One self-contained file out of trained tensors and their base, and its model card.

    Raises:
        UsageError: ``trained`` is whole already.
        ModelError: another base than it was trained on.
    """
    from sammed_model.checkpoint import save_model
    from sammed_model.model_card import read_record, write_model_card

    save_model(on_base(trained, base=base), out)
    write_model_card(out, out.parent, record=read_record(trained))
    return about(out)


def on_base(trained: Path, *, base: Path | None = None) -> SamModel:
    """The whole model of a file of trained tensors.

    Raises:
        UsageError: ``trained`` is whole already.
        ModelError: another base than it was trained on.
    """
    from sammed_model.checkpoint import load_model

    if not is_trained_only(trained):
        raise UsageError(f"expected a file of trained tensors, found a whole model in {trained}")
    return load_model(trained, base=base)


def as_row(card: ModelCard) -> dict[str, Any]:
    """A card for `list --json`: with its place here, and whether a person must get it."""
    place = place_of(card)
    return asdict(card) | {
        "present": place is not None,
        "place": None if place is None else str(place),
        "by_hand": bool(card.steps),
    }
