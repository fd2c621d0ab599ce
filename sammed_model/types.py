"""Carriers of this room: what a SAM is, what it is asked, what it answers. Imports no sibling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sammed_data.types import ModelError, nearest

AdapterKind = Literal["none", "sam-med2d"]
Kind = Literal["sam", "ft-sam", "sam-med2d", "medsam"]
PreprocessingName = Literal["default", "released", "medsam"]


@dataclass(frozen=True, kw_only=True)
class SamSpec:
    """Sizes of one SAM: everything needed to build it.

    Attributes:
        name: family member (``vit_b`` ...).
        image_size: side S of the square input in px.
        patch_size: side of a patch in px.
        window_size: side of an attention window in patches.
        global_attn_indexes: blocks that attend to the whole image.
        out_chans: width of the embedding, the prompt encoder and the decoder.
        iou_hidden: hidden width of the head that predicts the IoU.
        adapters: ``sam-med2d`` puts one adapter into every block.
    """

    name: str
    image_size: int
    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    patch_size: int = 16
    window_size: int = 14
    out_chans: int = 256
    decoder_mlp_dim: int = 2048
    decoder_depth: int = 2
    decoder_heads: int = 8
    iou_hidden: int = 256
    adapters: AdapterKind = "none"

    def __post_init__(self) -> None:
        if self.image_size <= 0 or self.image_size % self.patch_size:
            raise ModelError(
                f"the image size of {self.name} must be a multiple of its patch of "
                f"{self.patch_size} px, found {self.image_size}"
            )

    @property
    def embedding_size(self) -> int:
        """Side of the embedding grid in patches."""
        return self.image_size // self.patch_size

    @property
    def low_res_size(self) -> int:
        """Side of the low-resolution logits and of the mask prompt."""
        return 4 * self.embedding_size


@dataclass(frozen=True, kw_only=True)
class KindFacts:
    """How weights of one kind want to be used; nothing of it can be read from the tensors.

    Attributes:
        preprocessing: convention of the published weights of this kind.
        mask_feedback: what the mask prompt holds, probabilities or logits.
        single_mask: the answer is token 0, not the best of tokens 1..3.
        prompts: prompt types the weights were trained on.
    """

    preprocessing: PreprocessingName
    mask_feedback: Literal["sigmoid", "logits"]
    single_mask: bool = False
    prompts: tuple[str, ...] = ("point", "box", "mask")


KINDS: dict[str, KindFacts] = {
    "sam": KindFacts(preprocessing="default", mask_feedback="logits"),
    "ft-sam": KindFacts(preprocessing="released", mask_feedback="sigmoid"),
    "sam-med2d": KindFacts(preprocessing="released", mask_feedback="sigmoid"),
    "medsam": KindFacts(
        preprocessing="medsam", mask_feedback="logits", single_mask=True, prompts=("box",)
    ),
}


def kind_facts(kind: str) -> KindFacts:
    """Facts of a kind by name.

    Raises:
        ModelError: unknown kind.
    """
    if kind not in KINDS:
        raise ModelError(f"unknown kind of model {kind!r}: {nearest(kind, get_args(Kind))}")
    return KINDS[kind]


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts for M masks of a batch of images, in model pixels ``(x, y)``.

    Attributes:
        image_index_M: int64, the image of the batch each mask belongs to.
        points_MN2: float clicks, the same number for every mask.
        point_labels_MN: 1 object, 0 background, -1 void.
        boxes_M4: half-open ``xyxy``.
        mask_M1hw: mask prompt of the low-res size (``model.mask_feedback`` says what it holds).
    """

    image_index_M: Tensor
    points_MN2: Tensor | None = None
    point_labels_MN: Tensor | None = None
    boxes_M4: Tensor | None = None
    mask_M1hw: Tensor | None = None

    def __post_init__(self) -> None:
        n = self.image_index_M.shape[0]
        if (self.points_MN2 is None) != (self.point_labels_MN is None):
            raise ModelError("point prompts need coordinates and labels, found only one of them")
        wanted: dict[str, tuple[int | None, ...]] = {
            "points_MN2": (n, None, 2),
            "point_labels_MN": (n, None),
            "boxes_M4": (n, 4),
            "mask_M1hw": (n, 1, None, None),
        }
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is None:
                continue
            fits = len(value.shape) == len(shape) and all(
                want is None or want == have for want, have in zip(shape, value.shape, strict=True)
            )
            if not fits:
                shown = " x ".join("any" if s is None else str(s) for s in shape)
                raise ModelError(f"{name} of {n} masks must be {shown}, found {tuple(value.shape)}")

    def __len__(self) -> int:
        return int(self.image_index_M.shape[0])


@dataclass(frozen=True, kw_only=True)
class DecoderOutput:
    """All mask tokens of M prompts: token 0 is the single mask, 1..3 the three alternatives.

    Attributes:
        low_res_MKhw: logits at 4 x the embedding grid.
        iou_MK: predicted IoU, unbounded.
        single_mask: the model answers with token 0 (MedSAM).
    """

    low_res_MKhw: Tensor
    iou_MK: Tensor
    single_mask: bool = False

    def chosen(self) -> Tensor:
        """(M,) int64 token of the answer: the highest predicted IoU of tokens 1..3, or 0."""
        if self.single_mask:
            return torch.zeros_like(self.iou_MK[:, 0], dtype=torch.int64)
        return self.iou_MK[:, 1:].argmax(dim=1) + 1

    def best(self) -> tuple[Tensor, Tensor]:
        """The answer: ``low_res_M1hw`` and its predicted ``iou_M``."""
        token = self.chosen()
        _, _, h, w = self.low_res_MKhw.shape
        low = self.low_res_MKhw.gather(1, token[:, None, None, None].expand(-1, 1, h, w))
        return low, self.iou_MK.gather(1, token[:, None])[:, 0]
