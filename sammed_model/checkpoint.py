"""Weights on disk: ours (safetensors with their configuration) and the published layouts, strictly.

Size, image size and adapters are read from names and shapes. What names cannot tell (SAM, FT-SAM
and MedSAM look the same) comes from our metadata, a model card, or the caller.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sammed_data.types import ModelError
from sammed_model.adapters import add_adapters, drop_adapters
from sammed_model.cards import find_card, located
from sammed_model.frame import Preprocessing
from sammed_model.lora import add_lora, merge_lora
from sammed_model.naming import (
    check_published,
    cleaned,
    infer_spec,
    load_published,
    published_name,
    published_state,
    resized,
)
from sammed_model.pickled import read_pickled
from sammed_model.sam import SamModel
from sammed_model.tensorfile import (
    FULL,
    TRAINED,
    is_safetensors,
    read_metadata,
    read_tensors,
    spec_of,
    write_tensors,
)
from sammed_model.types import KINDS, SamSpec, kind_facts

_RESERVED = ("format", "kind", "spec", "preprocessing", "base_path", "base_sha256", "lora")


def load_model(
    path: Path | str,
    *,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
    kind: str | None = None,
    base: Path | str | None = None,
) -> SamModel:
    """A model from any weight file of ours or of the published layouts.

    Args:
        path: ``.safetensors`` or ``.pth``, or the name of a card (`sammed weights list`).
        image_size: resize the position embeddings to this side in px; default the file's.
        device: where to put it.
        kind: needed for published files without a card; must agree with what the file says.
        base: for a file of trained tensors, where its base is now (default: as recorded).

    Raises:
        ModelError: missing, damaged, not a SAM, incomplete, of unknown kind, or on another base.
    """
    if kind is not None:
        kind_facts(kind)
    path = located(path)
    metadata = read_metadata(path)
    if metadata.get("format") == TRAINED:
        model = _load_on_base(path, metadata, image_size, base)
    else:
        model = _load_whole(path, metadata, image_size, kind)
    if kind is not None and model.kind != kind:
        raise ModelError(f"{path} says that it is of kind {model.kind}, found {kind!r} asked for")
    return model.to(device).eval()


def _load_whole(
    path: Path, metadata: dict[str, str], image_size: int | None, kind: str | None
) -> SamModel:
    state = _read_state(path)
    found = infer_spec(state, path)
    spec = dataclasses.replace(found, image_size=image_size or found.image_size)
    if metadata:
        kind, preprocessing = metadata["kind"], _preprocessing(metadata, spec.image_size)
    else:
        kind, metadata, preprocessing = _published_kind(path, found, spec.image_size, kind)
    with torch.device("meta"):
        model = SamModel(spec, kind=kind, preprocessing=preprocessing)
    state = resized(state, found, spec)
    check_published(model, state, path)
    _own(state)
    load_published(model, state, path)
    model.metadata = {k: v for k, v in metadata.items() if k not in _RESERVED}
    return model


def _own(state: dict[str, Tensor]) -> None:
    """Float32 tensors, each with memory of its own, in place: one tensor is copied at a time."""
    taken = set()
    for name, value in state.items():
        # As order_weights wants them, so that nothing is copied once more.
        layout = torch.channels_last if ".Adapter.spatial." in name else torch.contiguous_format
        storage = value.untyped_storage()
        shared = storage.data_ptr() in taken or storage.nbytes() != value.numel() * 4
        if shared or value.dtype != torch.float32 or not value.is_contiguous(memory_format=layout):
            state[name] = value.to(torch.float32, copy=True, memory_format=layout)
        taken.add(state[name].untyped_storage().data_ptr())


def _read_state(path: Path) -> dict[str, Tensor]:
    return cleaned(read_tensors(path) if is_safetensors(path) else read_pickled(path))


def _published_kind(
    path: Path, found: SamSpec, image_size: int, kind: str | None
) -> tuple[str, dict[str, str], Preprocessing]:
    """Kind, metadata and preprocessing of a file that does not say them itself."""
    card = find_card(path, found)
    if card is None and kind is None:
        raise ModelError(
            f"expected a known weight file, found {path} ({found.name} at {found.image_size} px), "
            "whose names cannot tell SAM, FT-SAM and MedSAM apart: say what it is as "
            f"LABEL={path}:KIND with KIND one of {', '.join(KINDS)}, or once and for all by "
            "`sammed weights add NAME PATH --kind KIND`"
        )
    known = card.kind if card is not None else str(kind)
    if found.adapters != "none" and known != "sam-med2d":
        raise ModelError(f"{path} has adapters, so it is of kind sam-med2d, found {known!r}")
    name = card.preprocessing if card is not None else kind_facts(known).preprocessing
    metadata = {"recipe": "released weights"} | ({"card": card.name} if card is not None else {})
    return known, metadata, Preprocessing.named(name, image_size)


def _load_on_base(
    path: Path, metadata: dict[str, str], image_size: int | None, base: Path | str | None
) -> SamModel:
    """A base with the trained tensors of a file put in."""
    spec = spec_of(metadata, path)
    base_path = Path(base) if base is not None else Path(metadata["base_path"])
    if not base_path.is_absolute():
        base_path = path.parent / base_path
    if not base_path.is_file():
        raise ModelError(
            f"{path} holds trained tensors only and needs its base, found none at {base_path}: "
            "put it there or give its place as base="
        )
    model = _load_base(base_path, spec.image_size)
    if (digest := weight_digest(model)) != metadata["base_sha256"]:
        raise ModelError(
            f"{path} was trained on the base with digest {metadata['base_sha256'][:12]}, found "
            f"{digest[:12]} at {base_path}: give the base it was trained on"
        )
    if spec.adapters != model.spec.adapters:
        change = add_adapters if spec.adapters != "none" else drop_adapters
        model = change(model)
    trained = read_tensors(path)
    if "lora" in metadata:
        model = add_lora(model, **json.loads(metadata["lora"]))
    adapters = {name for name in published_state(model) if ".Adapter." in name}
    if model.spec.adapters != "none" and metadata["kind"] == "sam-med2d":
        # A fresh adapter that the file does not fill would be noise.
        _require(path, sorted(adapters - trained.keys()), "adapter tensors")
    load_published(model, published_state(model) | trained, path)
    model = merge_lora(model)
    model.kind = metadata["kind"]
    model.preprocessing = _preprocessing(metadata, spec.image_size)
    model.metadata = {k: v for k, v in metadata.items() if k not in _RESERVED}
    return model if image_size in (None, spec.image_size) else _at_size(model, int(image_size or 0))


def _load_base(path: Path, image_size: int) -> SamModel:
    """A base, whose kind does not matter: the file on top of it has its own."""
    metadata = read_metadata(path)
    if metadata:
        return load_model(path, image_size=image_size)
    adapted = infer_spec(_read_state(path), path).adapters != "none"
    return _load_whole(path, metadata, image_size, "sam-med2d" if adapted else "sam")


def _at_size(model: SamModel, image_size: int) -> SamModel:
    """The same weights at another image size."""
    spec = dataclasses.replace(model.spec, image_size=image_size)
    preprocessing = dataclasses.replace(model.preprocessing, image_size=image_size)
    state = resized(published_state(model), model.spec, spec)
    with torch.device("meta"):
        other = SamModel(spec, kind=model.kind, preprocessing=preprocessing)
    load_published(other, state, Path("the model"))
    other.metadata = dict(model.metadata)
    return other


def _require(path: Path, missing: list[str], what: str) -> None:
    if missing:
        raise ModelError(f"{path} lacks {len(missing)} {what}, such as {missing[0]}")


def save_model(
    model: SamModel,
    path: Path | str,
    *,
    recipe: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write everything ``load_model`` needs, under published names, atomically.

    Args:
        model: on any device.
        path: ``.safetensors``.
        recipe: how it was trained, for the tables.
        extra: further strings to keep; come back as ``model.metadata``.

    Raises:
        ModelError: cannot be written.
    """
    write_tensors(path, published_state(model), _description(model, FULL, recipe, extra))


def save_trained(
    model: SamModel,
    path: Path | str,
    base_digest: str,
    *,
    base_path: Path | str,
    names: Iterable[str] | None = None,
    recipe: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write the trained tensors alone; loading needs the same base.

    Args:
        model: after ``train_only``.
        path: ``.safetensors``.
        base_digest: ``weight_digest`` of the base at this image size, before adapters were added.
        base_path: of the base; a relative one is relative to the file's folder.
        names: parameter names; default those that require a gradient.
        recipe: as in ``save_model``.
        extra: as in ``save_model``.

    Raises:
        ModelError: cannot be written.
    """
    if names is None:
        names = [n for n, p in model.named_parameters() if p.requires_grad]
    wanted = {published_name(name) for name in names}
    state = {k: v for k, v in published_state(model).items() if k in wanted}
    description = _description(model, TRAINED, recipe, extra)
    description |= {"base_path": str(base_path), "base_sha256": base_digest}
    write_tensors(path, state, description)


def _description(
    model: SamModel, form: str, recipe: str | None, extra: Mapping[str, str] | None
) -> dict[str, str]:
    kept = dict(model.metadata)
    if recipe:
        # Weights that were trained on are no longer those of a card.
        kept.pop("card", None)
        kept["recipe"] = recipe
    return {
        **kept,
        **(extra or {}),
        "format": form,
        "kind": model.kind,
        "spec": json.dumps(dataclasses.asdict(model.spec), sort_keys=True),
        "preprocessing": json.dumps(model.preprocessing.to_dict(), sort_keys=True),
    }


def weight_digest(model: SamModel) -> str:
    """SHA-256 over published names, types, shapes and bytes; the same on any device."""
    digest = hashlib.sha256()
    for name, value in published_state(model).items():
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _preprocessing(metadata: Mapping[str, str], image_size: int) -> Preprocessing:
    made = Preprocessing.from_dict(json.loads(metadata["preprocessing"]))
    return dataclasses.replace(made, image_size=image_size)
