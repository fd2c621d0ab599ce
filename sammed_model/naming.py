"""Published tensor names, and what they say about a model: sizes, adapters, positions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from sammed_data.types import ModelError
from sammed_model.adapters import order_weights
from sammed_model.sam import SPECS, SamModel
from sammed_model.types import AdapterKind, SamSpec

# block.mlp is replaced where there are adapters: ours on the left, published on the right.
_TO_PUBLISHED = (
    (re.compile(r"(blocks\.\d+)\.mlp\.adapter\."), r"\1.Adapter."),
    (re.compile(r"(blocks\.\d+)\.mlp\.mlp\."), r"\1.mlp."),
)
_ADAPTER = re.compile(r"blocks\.\d+\.Adapter\.")
# Constants that some files carry; the model keeps them in its preprocessing.
_CONSTANTS = ("pixel_mean", "pixel_std")
# Of data-parallel training, and of torch_em, which medico-sam is trained with.
_PREFIXES = ("module.sam.", "module.", "sam.")
_SHOWN = 6


def published_name(name: str) -> str:
    """Our parameter name -> the name in published files."""
    for pattern, replacement in _TO_PUBLISHED:
        name = pattern.sub(replacement, name)
    return name


def published_state(model: SamModel) -> dict[str, Tensor]:
    """All weights by published name, sorted; they share memory with the model."""
    return dict(sorted((published_name(k), v) for k, v in model.state_dict().items()))


def cleaned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that a trainer puts before all names, and without pixel constants."""
    before = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), "")
    names = {name: name.removeprefix(before) for name in state}
    return {names[k]: v for k, v in state.items() if names[k] not in _CONSTANTS}


def infer_spec(state: Mapping[str, Tensor], path: Path) -> SamSpec:
    """Family member, image size and adapters of published weights.

    Raises:
        ModelError: not a SAM, or one of unknown sizes.
    """
    position = state.get("image_encoder.pos_embed")
    patch = state.get("image_encoder.patch_embed.proj.weight")
    if position is None or patch is None or position.ndim != 4 or patch.ndim != 4:
        found = ", ".join(sorted(state)[:3])
        raise ModelError(
            f"expected the weights of a SAM in {path} (image_encoder.pos_embed, ...), "
            f"found {len(state)} tensors such as {found}"
        )
    depth = len({k.split(".")[2] for k in state if k.startswith("image_encoder.blocks.")})
    grid, width = int(position.shape[1]), int(position.shape[3])
    adapters: AdapterKind = "sam-med2d" if any(_ADAPTER.search(k) for k in state) else "none"
    for spec in SPECS.values():
        if (spec.embed_dim, spec.depth, spec.patch_size) == (width, depth, patch.shape[-1]):
            size = grid * spec.patch_size
            return dataclasses.replace(spec, image_size=size, adapters=adapters)
    known = ", ".join(f"{s.name} {s.embed_dim} x {s.depth}" for s in SPECS.values())
    raise ModelError(
        f"expected an image encoder of a known size in {path} (width x blocks: {known}), "
        f"found {width} x {depth} with patches of {patch.shape[-1]} px"
    )


def resized(state: Mapping[str, Tensor], old: SamSpec, new: SamSpec) -> dict[str, Tensor]:
    """Weights for another image size: absolute and global relative positions are interpolated.

    Bilinear, align_corners False, no anti-aliasing, as the released code does it; windowed blocks
    keep theirs.
    """
    if old.embedding_size == new.embedding_size:
        return dict(state)
    out = dict(state)
    side = new.embedding_size
    grid = out["image_encoder.pos_embed"].float().permute(0, 3, 1, 2)
    out["image_encoder.pos_embed"] = _bilinear(grid, side, side).permute(0, 2, 3, 1)
    for block in new.global_attn_indexes:
        for axis in "hw":
            name = f"image_encoder.blocks.{block}.attn.rel_pos_{axis}"
            if name in out:
                table = out[name].float()[None, None]
                out[name] = _bilinear(table, 2 * side - 1, table.shape[-1])[0, 0]
    return out


def _bilinear(x: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(x, (height, width), mode="bilinear", align_corners=False)


def load_published(model: SamModel, state: Mapping[str, Tensor], path: Path) -> None:
    """Put published weights into a model, every one of them; the tensors become the model's.

    Raises:
        ModelError: missing or unexpected names, or shapes that differ.
    """
    check_published(model, state, path)
    own = {published_name(name): name for name in model.state_dict()}
    model.load_state_dict({own[k]: v for k, v in state.items()}, strict=True, assign=True)
    order_weights(model)


def check_published(model: SamModel, state: Mapping[str, Tensor], path: Path) -> None:
    """Whether published weights are a model's, before anything is copied.

    Raises:
        ModelError: missing or unexpected names, or shapes that differ.
    """
    own = {published_name(name): tensor for name, tensor in model.state_dict().items()}
    problems = []
    if missing := sorted(own.keys() - state.keys()):
        problems.append(f"missing {_list(missing)}")
    if unexpected := sorted(state.keys() - own.keys()):
        problems.append(f"unexpected {_list(unexpected)}")
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in sorted(own.items())
        if name in state and state[name].shape != tensor.shape
    ]
    if shapes:
        problems.append(f"other shapes: {_list(shapes)}")
    if problems:
        spec = model.spec
        raise ModelError(
            f"{path} does not fit {spec.name} at {spec.image_size} px "
            f"({'with' if spec.adapters != 'none' else 'without'} adapters): "
            f"{'; '.join(problems)}: give a complete weight file of this model"
        )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
