"""Our weight files: safetensors with one JSON entry of metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sammed_data.types import ModelError
from sammed_model.types import SamSpec

# One entry: safetensors writes several in an order that changes from run to run.
_ENTRY = "sammed"
FULL, TRAINED = "full-1", "trained-1"


def write_tensors(
    path: Path | str, state: Mapping[str, Tensor], description: dict[str, str]
) -> None:
    """Write tensors and their description, by a temporary name.

    Raises:
        ModelError: cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    try:
        partial.touch()
        mode = partial.stat().st_mode  # safetensors' own file is for nobody but its writer
        save_file(tensors, partial, metadata={_ENTRY: json.dumps(description, sort_keys=True)})
        partial.chmod(mode)
        partial.replace(path)
    except (OSError, SafetensorError) as err:
        raise ModelError(f"expected to write weights to {path}, found: {err}") from err


def read_metadata(path: Path | str) -> dict[str, str]:
    """What a file of ours says: format, kind, spec, preprocessing, recipe, ...; {} for others.

    Raises:
        ModelError: a damaged safetensors file, or metadata of an unknown version.
    """
    path = Path(path)
    if not is_safetensors(path):
        return {}
    with _open(path) as file:
        text = (file.metadata() or {}).get(_ENTRY)
    if text is None:
        return {}
    try:
        found: dict[str, str] = json.loads(text)
        known = found["format"] in (FULL, TRAINED)
        complete = {"kind", "spec", "preprocessing"} <= found.keys()
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise ModelError(f"expected sammed's description in {path}, found {text[:80]!r}") from err
    if not known or not complete:
        raise ModelError(
            f"expected weights of format {FULL} or {TRAINED} in {path}, found "
            f"{found['format']!r} with {', '.join(found)}: use the version of sammed that wrote it"
        )
    return found


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors: a length of 8 bytes, then the header's brace."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as err:
        raise ModelError(
            f"expected a complete safetensors file at {path} ({path.stat().st_size:,} bytes), "
            f"found a damaged one ({err}): copy it again"
        ) from err


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, in memory of their own: not the mapped file's.

    Raises:
        ModelError: damaged.
    """
    with _open(path) as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict


def read_shapes(path: Path) -> dict[str, Tensor]:
    """Names, types and shapes of a safetensors file, as tensors without values (on ``meta``).

    Raises:
        ModelError: damaged.
    """
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return {name: torch.empty(s.get_shape(), device="meta") for name, s in slices.items()}


def spec_of(metadata: Mapping[str, str], path: Path) -> SamSpec:
    """The sizes that a file of ours describes.

    Raises:
        ModelError: it does not.
    """
    try:
        raw = json.loads(metadata["spec"])
        raw["global_attn_indexes"] = tuple(raw["global_attn_indexes"])
        return SamSpec(**raw)
    except (KeyError, TypeError, ValueError) as err:
        raise ModelError(f"expected the sizes of a model in the metadata of {path}") from err
