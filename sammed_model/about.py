"""What a weight file is, from its names, its description and its digest; no value is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sammed_data.types import ModelError
from sammed_model.cards import ModelCard, file_sha256, find_card
from sammed_model.frame import Preprocessing
from sammed_model.naming import cleaned, infer_spec
from sammed_model.pickled import read_pickled
from sammed_model.tensorfile import (
    TRAINED,
    is_safetensors,
    read_metadata,
    read_shapes,
    spec_of,
)
from sammed_model.types import SamSpec, kind_facts

_CARD, _FILE, _UNKNOWN = "card", "file", "not known: give it as LABEL=PATH:KIND, or add a card"


@dataclass(frozen=True, kw_only=True)
class About:
    """What a weight file is.

    Attributes:
        form: of the file: ``sammed full-1``, ``sammed trained-1``, ``safetensors`` or ``PyTorch``.
        spec: sizes, image size and adapters, from names and shapes.
        tensors, parameters: in the file.
        kind, preprocessing: None where neither the file nor a card says them.
        known_from: ``file``, ``card NAME``, or what to do.
        card: that records the file, or None.
        recipe: how it was trained.
        trained_on: data that it has seen, as declared; empty = nothing is declared.
        base: of a file of trained tensors, where it says its base is; ``base_sha256`` its digest.
    """

    path: str
    bytes: int
    sha256: str
    form: str
    spec: SamSpec
    tensors: int
    parameters: int
    kind: str | None
    preprocessing: str | None
    known_from: str
    card: ModelCard | None
    recipe: str | None
    trained_on: tuple[str, ...]
    base: str | None = None
    base_sha256: str | None = None


def about(path: Path) -> About:
    """Describe a weight file.

    Raises:
        ModelError: missing, damaged, or not a SAM.
    """
    metadata = read_metadata(path)
    state = outline(path)
    spec = spec_of(metadata, path) if metadata else infer_spec(state, path)
    card = None if metadata else find_card(path, spec)
    kind, preprocessing, known_from = _use(metadata, card)
    return About(
        path=str(path),
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        form=_form(path, metadata),
        spec=spec,
        tensors=len(state),
        parameters=sum(value.numel() for value in state.values()),
        kind=kind,
        preprocessing=preprocessing,
        known_from=known_from,
        card=card,
        recipe=metadata.get("recipe") or ("released weights" if card else None),
        trained_on=_trained_on(path, metadata, card),
        base=metadata.get("base_path"),
        base_sha256=metadata.get("base_sha256"),
    )


def outline(path: Path) -> dict[str, Tensor]:
    """Published names, types and shapes of a weight file, without values.

    Raises:
        ModelError: missing or damaged.
    """
    whole = read_shapes(path) if is_safetensors(path) else read_pickled(path, values=False)
    return cleaned(whole)


def check_use(path: Path, spec: SamSpec, kind: str) -> None:
    """Whether weights of these sizes can be of a kind.

    Raises:
        ModelError: an unknown kind, or adapters that the kind does not have.
    """
    kind_facts(kind)
    if spec.adapters != "none" and kind != "sam-med2d":
        raise ModelError(f"{path} has adapters, so it is of kind sam-med2d, found {kind!r}")


def _form(path: Path, metadata: Mapping[str, str]) -> str:
    if metadata:
        return f"sammed {metadata['format']}"
    return "safetensors" if is_safetensors(path) else "PyTorch"


def _use(metadata: Mapping[str, str], card: ModelCard | None) -> tuple[str | None, str | None, str]:
    """Kind, preprocessing and who says so."""
    if metadata:
        made = Preprocessing.from_dict(json.loads(metadata["preprocessing"]))
        return metadata["kind"], made.name, _FILE
    if card is not None:
        return card.kind, card.preprocessing, f"{_CARD} {card.name}"
    return None, None, _UNKNOWN


def _trained_on(path: Path, metadata: Mapping[str, str], card: ModelCard | None) -> tuple[str, ...]:
    """The card's sources, or those of the record beside the weights of a run."""
    if card is not None:
        return card.training_sources
    if "source" in metadata:
        return (metadata["source"],)
    record = path.parent / "run.json"
    if metadata.get("format") is None or not record.is_file():
        return ()
    try:
        raw = json.loads(record.read_text(encoding="utf-8"))
        datasets, start = [str(name) for name in raw["datasets"]], str(raw["init"])
    except (ValueError, KeyError, TypeError, OSError) as err:
        raise ModelError(f"expected the record of a training run in {record}: {err}") from err
    return (*datasets, *([] if start == "random" else [f"what its start had seen ({start})"]))


def is_trained_only(path: Path) -> bool:
    """Whether a file holds trained tensors that need their base."""
    return read_metadata(path).get("format") == TRAINED
