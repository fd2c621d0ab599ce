"""Model cards: published weights, matched by the SHA-256 of their file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from sammed_data.types import ModelError
from sammed_model.types import KINDS

CARDS = Path(__file__).parent / "cards"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a published weight file is, and how it wants its input.

    Attributes:
        name: the card's file name.
        title: for tables.
        kind: how the weights are used.
        architecture, image_size: family member and side of the input in px.
        preprocessing: input convention.
        file: usual file name.
        source: where to get it.
        license: SPDX expression of the weights.
        sha256: of the file; None = not recorded yet, so the file cannot be matched.
        bytes: size of the file where known.
        training_sources: what it was trained on, in words.
        homepage, citation, notes: for people.
    """

    name: str
    title: str
    kind: str
    architecture: str
    image_size: int
    preprocessing: str
    file: str
    source: str
    license: str
    homepage: str
    citation: str
    training_sources: tuple[str, ...]
    sha256: str | None = None
    bytes: int | None = None
    notes: str = ""


@lru_cache(maxsize=1)
def load_cards() -> dict[str, ModelCard]:
    """The bundled cards by name.

    Raises:
        ModelError: unknown keys or kinds.
    """
    import yaml

    cards = {}
    for path in sorted(CARDS.glob("*.yaml")):
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        unknown = sorted(raw.keys() - {f.name for f in fields(ModelCard)})
        if unknown or raw.get("kind") not in KINDS:
            raise ModelError(f"{path} has unknown keys {unknown} or kind {raw.get('kind')!r}")
        raw["training_sources"] = tuple(raw["training_sources"])
        cards[path.stem] = ModelCard(name=path.stem, **raw)
    return cards


def find_card(path: Path) -> ModelCard | None:
    """The card of a published file, by its content; None if no card records it."""
    known = [c for c in load_cards().values() if c.sha256]
    size = path.stat().st_size
    # Hashing gigabytes only where the size does not already say no.
    if not any(c.bytes is None or c.bytes == size for c in known):
        return None
    digest = file_sha256(path)
    return next((c for c in known if c.sha256 == digest), None)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
