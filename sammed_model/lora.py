"""LoRA on query and value of every block: W x + (alpha / rank) B A x, merged into W for export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sammed_data.types import ModelError

if TYPE_CHECKING:
    from sammed_model.sam import SamModel

PARTS = ("lora_q_a", "lora_q_b", "lora_v_a", "lora_v_b")


class LowRankQkv(nn.Linear):
    """A block's qkv with its own weights, and a learnt low-rank sum on q and v.

    ``weight`` and ``bias`` keep their names and stay the objects that they were.

    Args:
        qkv: (C -> 3 C) projection.
        rank, alpha: inner width, and the factor's numerator.
    """

    def __init__(self, qkv: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(qkv.in_features, qkv.out_features, device="meta")
        self.weight, self.bias = qkv.weight, qkv.bias
        self.factor = alpha / rank
        width, like = qkv.in_features, qkv.weight
        for name in PARTS:
            shape = (rank, width) if name.endswith("a") else (width, rank)
            value = torch.zeros(shape)
            if name.endswith("a"):  # B is zero: a fresh LoRA changes nothing
                nn.init.kaiming_uniform_(value, a=5**0.5)
            self.register_parameter(name, nn.Parameter(value.to(like.device, like.dtype)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., 3 C)."""
        q, k, v = nn.functional.linear(x, self.weight, self.bias).chunk(3, dim=-1)
        q = q + self._low_rank(x, "q")
        return torch.cat((q, k, v + self._low_rank(x, "v")), dim=-1)

    def _matrices(self, part: str) -> tuple[Tensor, Tensor]:
        return getattr(self, f"lora_{part}_a"), getattr(self, f"lora_{part}_b")

    def _low_rank(self, x: Tensor, part: str) -> Tensor:
        a, b = self._matrices(part)
        return self.factor * nn.functional.linear(nn.functional.linear(x, a), b)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain projection with the same results."""
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        q, k, v = self.weight.chunk(3)
        moved = [
            own + self.factor * b @ a
            for own, (a, b) in ((q, self._matrices("q")), (v, self._matrices("v")))
        ]
        plain.weight = nn.Parameter(torch.cat((moved[0], k, moved[1])))
        plain.bias = self.bias
        return plain


def lora_of(model: SamModel) -> Iterator[LowRankQkv]:
    """The low-rank projections in order of the blocks."""
    for block in model.image_encoder.blocks:
        if isinstance(block.attn.qkv, LowRankQkv):
            yield block.attn.qkv


def add_lora(model: SamModel, *, rank: int, alpha: float, seed: int = 0) -> SamModel:
    """Put LoRA on every block, in place; the model's results do not change yet.

    Raises:
        ModelError: it has LoRA.
    """
    if any(True for _ in lora_of(model)):
        raise ModelError("expected a model without LoRA, found one with it: merge it first")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for block in model.image_encoder.blocks:
            block.attn.qkv = LowRankQkv(block.attn.qkv, rank, alpha)
    return model


def merge_lora(model: SamModel) -> SamModel:
    """Put what LoRA learnt into the weights, in place."""
    for block in model.image_encoder.blocks:
        if isinstance(block.attn.qkv, LowRankQkv):
            block.attn.qkv = block.attn.qkv.merged()
    return model
