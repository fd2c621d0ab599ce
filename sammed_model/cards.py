"""Model cards: what a weight file is, matched by the digest of its content, and where it lies.

Cards come with the package; `sammed weights add` writes the user's own into ``<folder>/cards``, and
`sammed weights fetch` writes the digests of files it saw first into ``<folder>/weights.lock.yaml``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sammed_data.types import ModelError, nearest
from sammed_model.types import KINDS, SamSpec

CARDS = Path(__file__).parent / "cards"
SHIPPED = Path(__file__).parent / "weights"
LOCK_NAME = "weights.lock.yaml"
_LISTS = ("training_sources", "mirrors", "steps")
_BLOCK = 1 << 20


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
        source: where to get it; ``mirrors`` are other addresses of the same bytes.
        license: SPDX expression of the weights.
        steps: what a person must do where no address gives the file to a program.
        sha256, md5: of the file; None = not recorded yet.
        bytes: size of the file where known.
        verified: who knows the digest: ``card``, or ``unverified`` (the first download, or the
            user's own file).
        path: of a file that the user registered where it lies.
        training_sources: what it was trained on, in words; empty = no data but what a program drew.
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
    mirrors: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    sha256: str | None = None
    md5: str | None = None
    bytes: int | None = None
    verified: str = "card"
    path: str | None = None
    notes: str = ""


def weights_folder() -> Path:
    """Where fetched files and the user's cards lie: $SAMMED_WEIGHTS or ~/.cache/sammed/weights."""
    named = os.environ.get("SAMMED_WEIGHTS")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "sammed" / "weights"


@lru_cache(maxsize=1)
def bundled_cards() -> dict[str, ModelCard]:
    """The cards of the package by name.

    Raises:
        ModelError: unknown keys or kinds.
    """
    return {path.stem: _read_card(path) for path in sorted(CARDS.glob("*.yaml"))}


def load_cards() -> dict[str, ModelCard]:
    """All cards by name: the package's, with what the user's lock and cards say on top.

    Raises:
        ModelError: a card or the lock cannot be understood.
    """
    folder = weights_folder()
    cards = dict(bundled_cards())
    for name, row in read_lock().items():
        if name in cards and cards[name].sha256 is None:
            known = "card" if cards[name].md5 else "unverified"
            cards[name] = replace(
                cards[name], sha256=row["sha256"], bytes=row["bytes"], verified=known
            )
    return cards | {p.stem: _read_card(p) for p in sorted(folder.glob("cards/*.yaml"))}


def _read_card(path: Path) -> ModelCard:
    raw = _mapping(path)
    unknown = sorted(raw.keys() - {f.name for f in fields(ModelCard)})
    if unknown or raw.get("kind") not in KINDS:
        raise ModelError(f"{path} has unknown keys {unknown} or kind {raw.get('kind')!r}")
    raw |= {key: tuple(raw[key]) for key in _LISTS if key in raw}
    try:
        return ModelCard(name=path.stem, **raw)
    except TypeError as err:
        raise ModelError(f"expected a complete model card in {path}, found: {err}") from err


def read_lock() -> dict[str, dict[str, Any]]:
    """Name -> what the first fetch of it saw: file, bytes, sha256, url, fetched.

    Raises:
        ModelError: the lock cannot be understood.
    """
    path = weights_folder() / LOCK_NAME
    if not path.exists():
        return {}
    raw = _mapping(path)
    rows = raw.get("files")
    if raw.get("lock_version") != 1 or not isinstance(rows, dict):
        raise ModelError(f"expected a lock of version 1 in {path}, found another: move it away")
    if not all(
        isinstance(row, dict) and {"sha256", "bytes"} <= row.keys() for row in rows.values()
    ):
        raise ModelError(f"expected sha256 and bytes of each file in {path}: move it away")
    return rows


def _mapping(path: Path) -> dict[str, Any]:
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as err:
        raise ModelError(f"expected YAML in {path}, found: {str(err).splitlines()[0]}") from err
    if not isinstance(raw, dict):
        raise ModelError(f"expected keys and values in {path}, found {type(raw).__name__}")
    return raw


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a card or the lock; beside, then renamed.

    Raises:
        ModelError: cannot be written.
    """
    import yaml

    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as err:
        raise ModelError(f"expected to write {path}, found: {err.strerror}") from err


def find_card(path: Path, spec: SamSpec | None = None) -> ModelCard | None:
    """The card of a published file, by its content; None if no card records it.

    Args:
        path: of the file.
        spec: its sizes where they are known: cards of other sizes need no digest.
    """
    size = path.stat().st_size
    # Hashing gigabytes only where the sizes do not already say no.
    known = [
        c
        for c in load_cards().values()
        if (c.sha256 or c.md5)
        and (c.bytes is None or c.bytes == size)
        and (spec is None or (c.architecture, c.image_size) == (spec.name, spec.image_size))
    ]
    if not known:
        return None
    found = file_digests(path, "sha256", *(["md5"] if any(c.md5 for c in known) else []))
    same = [c for c in known if c.sha256 == found["sha256"]]
    # A digest of SHA-256 says more than one of MD5, which is all that some publishers give.
    same += [c for c in known if c.md5 and not c.sha256 and c.md5 == found["md5"]]
    return same[0] if same else None


def place_of(card: ModelCard) -> Path | None:
    """Where the file of a card lies here, or None; its content is looked at when it is loaded."""
    folders = (weights_folder(), SHIPPED)
    places = [Path(card.path)] if card.path else [folder / card.file for folder in folders]
    return next((path for path in places if path.is_file()), None)


def find_place(path: Path | str) -> Path | None:
    """A weight file by its path, that of its training run, or the name of its card, or None."""
    for place in (Path(path), Path(path) / "model.safetensors"):
        if place.is_file():
            return place
    card = load_cards().get(str(path))
    return place_of(card) if card else None


def located(path: Path | str) -> Path:
    """A weight file by its path or by the name of its card.

    Raises:
        ModelError: neither; the message says how to get it.
    """
    found = find_place(path)
    if found is not None:
        return found
    name, cards = str(path), load_cards()
    if name in cards:
        raise ModelError(
            f"expected the weights {name} in {weights_folder()}, found none: "
            f"`sammed weights fetch {name}`, or `sammed weights add {name} PATH`"
        )
    plain = "/" not in name and not Path(name).suffix
    hint = nearest(name, cards) if plain else "check the path"
    raise ModelError(
        f"expected a weight file at {path}, found none: {hint}, or get published weights by "
        "`sammed weights fetch NAME` (`sammed weights list` has the names)"
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return file_digests(path, "sha256")["sha256"]


def file_digests(path: Path, *names: str) -> Mapping[str, str]:
    """Name of a hash -> hexadecimal digest of a file's bytes, which are read once."""
    made = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            for digest in made.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in made.items()}
