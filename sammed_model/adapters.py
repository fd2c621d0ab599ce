"""SAM-Med2D's adapters in upstream's blocks, without touching upstream: ``block.mlp`` is replaced.

A block computes ``x + mlp(norm2(x))``; with ``mlp`` replaced by a module that returns
``mlp(n) + adapter(n)`` the block gives the published sum ``x + mlp(n) + adapter(n)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from sammed_data.types import ModelError, nearest
from sammed_model.lora import PARTS, lora_of
from sammed_model.types import KINDS

if TYPE_CHECKING:
    from sammed_model.sam import SamModel

Method = Literal["sam-med2d", "ft-sam", "lora", "full"]
METHODS: tuple[str, ...] = get_args(Method)
_REDUCTION = 4


class Adapter(nn.Module):
    """Channel gate, spatial convolutions on half the grid, ungated skip, LayerNorm.

    Args:
        width: channels C of the block.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = width // _REDUCTION
        # eps 1e-5: torch's default, not the 1e-6 of the encoder's own norms.
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.channel = nn.Sequential(
            nn.Linear(width, narrow, bias=False),
            nn.ReLU(),
            nn.Linear(narrow, width, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, n_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape; an odd grid is cropped back to its size."""
        _, height, width, _ = n_BHWC.shape
        n_BCHW = n_BHWC.permute(0, 3, 1, 2)
        gate_BC = self.channel(n_BHWC.mean(dim=(1, 2)))
        spatial = self.spatial(n_BCHW * gate_BC[:, :, None, None])[:, :, :height, :width]
        out: Tensor = self.norm((n_BCHW + spatial).permute(0, 2, 3, 1))
        return out

    def reset(self, *, zero_init: bool) -> None:
        """Kaiming normal, fan-out (released); ``zero_init`` lets a fresh adapter return zero."""
        for module in (*self.channel, *self.spatial):
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.constant_(self.norm.weight, 0.0 if zero_init else 1.0)
        nn.init.zeros_(self.norm.bias)


class MlpWithAdapter(nn.Module):
    """``mlp(n) + adapter(n)``, in the place of a block's mlp."""

    def __init__(self, mlp: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.mlp = mlp
        self.adapter = adapter

    def forward(self, n_BHWC: Tensor) -> Tensor:
        """Sum of both branches."""
        out: Tensor = self.mlp(n_BHWC) + self.adapter(n_BHWC)
        return out


def adapters_of(model: SamModel) -> Iterator[Adapter]:
    """The adapters in order of the blocks."""
    for block in model.image_encoder.blocks:
        if isinstance(block.mlp, MlpWithAdapter):
            yield block.mlp.adapter


def has_adapters(model: SamModel) -> bool:
    """Whether any block carries an adapter."""
    return any(True for _ in adapters_of(model))


def add_adapters(model: SamModel, *, zero_init: bool = False, seed: int = 0) -> SamModel:
    """Put a fresh adapter into every block, in place; returns the model.

    Args:
        model: without adapters.
        zero_init: a fresh adapter adds exactly zero, so that SAM is unchanged at the start (mended
            recipe); else the released initialisation.
        seed: of the initialisation; the global random state is left as it was.

    Raises:
        ModelError: the model has adapters.
    """
    if has_adapters(model):
        raise ModelError("expected a model without adapters, found one with them: drop them first")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for block in model.image_encoder.blocks:
            weight = block.norm2.weight
            with torch.device("cpu" if weight.device.type != "meta" else "meta"):
                adapter = Adapter(weight.shape[0])
                adapter.reset(zero_init=zero_init)
            block.mlp = MlpWithAdapter(block.mlp, adapter.to(weight.device, weight.dtype))
    order_weights(model)
    model.spec = dataclasses.replace(model.spec, adapters="sam-med2d")
    return model


def order_weights(model: SamModel) -> None:
    """Lay the adapters' convolution weights out channels last, in place: values do not change.

    The fast path reads them as matrices without a copy; in any other layout it copies, and is slow.
    """
    for adapter in adapters_of(model):
        adapter.spatial.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def drop_adapters(model: SamModel) -> SamModel:
    """Take the adapters out (the paper's SAM-Med2D*), in place; returns the model."""
    for block in model.image_encoder.blocks:
        if isinstance(block.mlp, MlpWithAdapter):
            block.mlp = block.mlp.mlp
    model.spec = dataclasses.replace(model.spec, adapters="none")
    return model


def train_only(model: SamModel, method: Method) -> list[str]:
    """Freeze all that a method does not train, by object; returns the names that train.

    ``sam-med2d``: adapters, prompt encoder, decoder; ``lora``: low-rank parts and the last two;
    ``ft-sam``: the last two; ``full``: everything.
    The mask prompt holds what the model's ``kind`` says: ``sam-med2d`` and ``ft-sam`` make the
    model one of theirs, the others keep what the start was trained with. A MedSAM, which knows
    boxes alone, becomes an FT-SAM.

    Raises:
        ModelError: unknown method, or one whose parts are not there.
    """
    if method not in METHODS:
        raise ModelError(f"unknown training method {method!r}: {nearest(method, METHODS)}")
    trained: list[nn.Parameter] = [
        *model.prompt_encoder.parameters(),
        *model.mask_decoder.parameters(),
    ]
    if method == "sam-med2d":
        parts = [p for adapter in adapters_of(model) for p in adapter.parameters()]
        if not parts:
            raise ModelError("method sam-med2d trains adapters, found none: add_adapters first")
        trained += parts
    elif method == "lora":
        low_rank = [getattr(layer, name) for layer in lora_of(model) for name in PARTS]
        if not low_rank:
            raise ModelError("method lora trains low-rank parts, found none: add_lora first")
        trained += low_rank
    elif method == "full":
        trained += model.image_encoder.parameters()
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    if method in KINDS:
        model.kind = method
    elif model.kind == "medsam":
        model.kind = "ft-sam"
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def leave_prompts(model: SamModel) -> None:
    """Freeze what the released code never trained of the prompt encoder, by object.

    It makes the embeddings of clicks anew in each forward, and runs without gradient where there
    is a mask prompt; the box corners and the embedding of 'no mask' do learn.
    """
    encoder = model.prompt_encoder
    never = (*encoder.point_embeddings[:2], encoder.not_a_point_embed, encoder.mask_downscaling)
    for module in never:
        module.requires_grad_(False)
