"""SAM built from ``segment_anything``'s own modules; the only file that knows sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sammed_data.types import ModelError, nearest
from sammed_model.adapters import add_adapters
from sammed_model.attention import BlockForward, encode_fast
from sammed_model.decode import encode_together, predict_masks
from sammed_model.frame import Preprocessing
from sammed_model.two_way import TwoWay
from sammed_model.types import AdapterKind, DecoderOutput, Prompts, SamSpec, kind_facts

_MASK_CHANNELS = 16
_ALTERNATIVES = 3

SPECS: dict[str, SamSpec] = {
    spec.name: spec
    for spec in (
        SamSpec(
            name="vit_b",
            image_size=1024,
            embed_dim=768,
            depth=12,
            num_heads=12,
            global_attn_indexes=(2, 5, 8, 11),
        ),
        SamSpec(
            name="vit_l",
            image_size=1024,
            embed_dim=1024,
            depth=24,
            num_heads=16,
            global_attn_indexes=(5, 11, 17, 23),
        ),
        SamSpec(
            name="vit_h",
            image_size=1024,
            embed_dim=1280,
            depth=32,
            num_heads=16,
            global_attn_indexes=(7, 15, 23, 31),
        ),
        # For CPU, tests and the demo: 1.5 M parameters. The decoder is narrow too: at width 256 it
        # costs more than this encoder.
        SamSpec(
            name="vit_tiny",
            image_size=128,
            patch_size=8,
            embed_dim=128,
            depth=6,
            num_heads=4,
            window_size=8,
            global_attn_indexes=(2, 5),
            out_chans=64,
            decoder_mlp_dim=256,
            decoder_heads=4,
            iou_hidden=64,
        ),
    )
}


def spec_for(
    name: str, *, image_size: int | None = None, adapters: AdapterKind = "none"
) -> SamSpec:
    """A family member at an image size.

    Raises:
        ModelError: unknown name, or a size that is no multiple of the patch.
    """
    if name not in SPECS:
        raise ModelError(f"unknown model {name!r}: {nearest(name, SPECS)}")
    spec = SPECS[name]
    return dataclasses.replace(spec, image_size=image_size or spec.image_size, adapters=adapters)


class SamModel(nn.Module):
    """SAM's three parts with what is needed to use them.

    Attributes:
        image_encoder, prompt_encoder, mask_decoder: upstream's modules, callable as upstream's.
        spec: sizes.
        kind: ``sam``, ``ft-sam``, ``sam-med2d`` or ``medsam``: how the weights want to be used.
        preprocessing: how an image becomes the encoder's input.
        metadata: free strings kept with the weights (recipe, source, file digest).
        fast: ``encode`` takes the fast path (same numbers to rounding), not upstream's forward.
        block_forward: what the fast path calls for a block, if it is compiled.
        padded_forward: what it calls for prompts of different lengths, if it is compiled.
    """

    def __init__(
        self, spec: SamSpec, *, kind: str = "sam", preprocessing: Preprocessing | None = None
    ) -> None:
        super().__init__()
        kind_facts(kind)
        self.spec = dataclasses.replace(spec, adapters="none")
        self.kind = kind
        self.preprocessing = preprocessing or Preprocessing.named("default", spec.image_size)
        self.metadata: dict[str, str] = {}
        self.fast = True
        self.block_forward: BlockForward | None = None
        self.padded_forward: TwoWay | None = None
        modeling = _modeling()
        # Any: upstream's classes carry annotations that say less than they do.
        self.image_encoder: Any = _image_encoder(modeling, spec)
        self.prompt_encoder: Any = _prompt_encoder(modeling, spec)
        self.mask_decoder: Any = _mask_decoder(modeling, spec)
        if spec.adapters != "none":
            add_adapters(self)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def mask_feedback(self) -> Literal["sigmoid", "logits"]:
        """What the mask prompt holds for weights of this kind."""
        return kind_facts(self.kind).mask_feedback

    def feedback(self, low_res_M1hw: Tensor) -> Tensor:
        """Low-res logits of a pass as the mask prompt of the next."""
        logits = low_res_M1hw.float()
        return logits.sigmoid() if self.mask_feedback == "sigmoid" else logits

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Prepared images (B, 3, S, S) -> embeddings (B, C, h, w).

        Raises:
            ModelError: images of another size.
        """
        size = self.spec.image_size
        if x_BCHW.ndim != 4 or tuple(x_BCHW.shape[1:]) != (3, size, size):
            raise ModelError(
                f"{self.spec.name} expects images of 3 x {size} x {size}, found "
                f"{tuple(x_BCHW.shape)}: use model.preprocessing.prepare"
            )
        if self.fast:
            return encode_fast(self.image_encoder, x_BCHW, self.block_forward)
        embedding: Tensor = self.image_encoder(x_BCHW)
        return embedding

    def decode(self, embedding_BChw: Tensor, prompts: Prompts) -> DecoderOutput:
        """All mask tokens for every mask of a batch of images, in one pass.

        Args:
            embedding_BChw: of ``encode``.
            prompts: in model pixels; ``image_index_M`` picks the embedding.

        Raises:
            ModelError: a mask prompt of another size than the low-res logits.
        """
        return self.decode_together(embedding_BChw, [prompts])

    def decode_together(self, embedding_BChw: Tensor, groups: Sequence[Prompts]) -> DecoderOutput:
        """What ``decode`` gives for each group, joined in their order, in one pass.

        Args:
            embedding_BChw: of ``encode``.
            groups: with prompts of different kinds and lengths, in model pixels.

        Raises:
            ModelError: a mask prompt of another size than the low-res logits.
        """
        # Positional codes turn to noise in half precision: prompts are always encoded in float32.
        with torch.autocast(embedding_BChw.device.type, enabled=False):
            sparse, dense, bias = encode_together(self.prompt_encoder, groups)
            position = self.prompt_encoder.get_dense_pe()
        index_M = torch.cat([group.image_index_M for group in groups])
        src = embedding_BChw.index_select(0, index_M) + dense
        output = predict_masks(self.mask_decoder, src, position, sparse, bias, self.padded_forward)
        return dataclasses.replace(output, single_mask=kind_facts(self.kind).single_mask)

    def forward(self, x_BCHW: Tensor, prompts: Prompts) -> DecoderOutput:
        """``encode`` and ``decode``."""
        return self.decode(self.encode(x_BCHW), prompts)


def build_sam(
    spec: SamSpec, seed: int = 0, device: torch.device | str = "cpu", *, kind: str = "sam"
) -> SamModel:
    """A SAM with fresh weights that depend on ``spec`` and ``seed`` alone.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SamModel(spec, kind=kind)
    return model.to(device)


def _modeling() -> ModuleType:
    """Upstream's classes; its package imports torchvision, whose build must fit torch."""
    try:
        from segment_anything import modeling
    except (ImportError, RuntimeError, OSError) as err:
        raise ModelError(
            f"expected segment-anything and a torchvision built for torch {torch.__version__}, "
            f"found: {err}: run `pip install segment-anything` and install torch and torchvision "
            "from the same index"
        ) from err
    return modeling  # type: ignore[no-any-return]


def _image_encoder(modeling: Any, spec: SamSpec) -> nn.Module:
    encoder: nn.Module = modeling.ImageEncoderViT(
        img_size=spec.image_size,
        patch_size=spec.patch_size,
        embed_dim=spec.embed_dim,
        depth=spec.depth,
        num_heads=spec.num_heads,
        mlp_ratio=4,
        out_chans=spec.out_chans,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=spec.window_size,
        global_attn_indexes=spec.global_attn_indexes,
    )
    return encoder


def _prompt_encoder(modeling: Any, spec: SamSpec) -> nn.Module:
    encoder: nn.Module = modeling.PromptEncoder(
        embed_dim=spec.out_chans,
        image_embedding_size=(spec.embedding_size, spec.embedding_size),
        input_image_size=(spec.image_size, spec.image_size),
        mask_in_chans=_MASK_CHANNELS,
    )
    return encoder


def _mask_decoder(modeling: Any, spec: SamSpec) -> nn.Module:
    decoder: nn.Module = modeling.MaskDecoder(
        num_multimask_outputs=_ALTERNATIVES,
        transformer=modeling.TwoWayTransformer(
            depth=spec.decoder_depth,
            embedding_dim=spec.out_chans,
            mlp_dim=spec.decoder_mlp_dim,
            num_heads=spec.decoder_heads,
        ),
        transformer_dim=spec.out_chans,
        iou_head_depth=3,
        iou_head_hidden_dim=spec.iou_hidden,
    )
    return decoder
