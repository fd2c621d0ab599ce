"""Operations of a SAM, counted from its sizes (a multiply-add is two), for shares of a machine."""

from __future__ import annotations

from dataclasses import dataclass

from sammed_model.config import Method
from sammed_model.types import SamSpec

# Tokens of a prompt: iou token, four mask tokens, and a box's corners or a click with its void.
_PROMPT_TOKENS = 7
_MASK_TOKENS = 4
_EXPANSION = 4


@dataclass(frozen=True, kw_only=True)
class EncoderFlops:
    """Of one image, forward: the pretrained encoder, and what the adapters add."""

    plain: float
    adapters: float


def encoder_flops(spec: SamSpec, *, fast: bool = True) -> EncoderFlops:
    """Forward operations of the encoder on one image.

    Args:
        spec: sizes.
        fast: without the tokens that pad windows.
    """
    side, width = spec.embedding_size, spec.embed_dim
    tokens = side * side
    total = 2.0 * 3 * spec.patch_size**2 * width * tokens  # patches
    total += 2 * width * spec.out_chans * tokens + 18 * spec.out_chans**2 * tokens  # neck
    for block in range(spec.depth):
        window = 0 if block in spec.global_attn_indexes else spec.window_size
        total += 4 * _EXPANSION * width**2 * tokens + _attention(side, window, width, fast)
    halves = ((side + 1) // 2) ** 2
    added = spec.depth * (2.0 * 9 + 2 * 16) * width**2 * halves
    return EncoderFlops(plain=total, adapters=added if spec.adapters != "none" else 0.0)


def _attention(side: int, window: int, width: int, fast: bool) -> float:
    """qkv, logits with relative positions, weighting and projection of one block."""
    tokens = side * side
    if not window:
        return 8.0 * width**2 * tokens + 4 * tokens**2 * width + 4 * tokens * side * width
    if not fast:
        across = -(-side // window)
        padded = (across * window) ** 2
        return (
            8.0 * width**2 * padded + 4 * padded * window**2 * width + 4 * padded * window * width
        )
    spans = [(window, side // window), (side % window, 1)]
    total = 8.0 * width**2 * tokens
    for tall, down in spans:
        for wide, across in spans:
            own, count = tall * wide, down * across
            keys = own + (own < window**2)
            total += count * (4.0 * own * keys * width + 4 * own * window * width)
    return total


def decoder_flops(spec: SamSpec, *, tokens: int = _PROMPT_TOKENS) -> float:
    """Forward operations of the decoder for one prompt with so many tokens."""
    width, places = spec.out_chans, spec.embedding_size**2
    half = width // 2
    image_side = 2 * 2 * places * width * half  # two projections of the image side
    token_side = 2 * 2 * tokens * width * half
    cross = image_side + token_side + 4 * tokens * places * half
    own = 4 * 2 * tokens * width**2 + 4 * tokens**2 * width
    layers = spec.decoder_depth * (own + 2 * cross + 4 * tokens * width * spec.decoder_mlp_dim)
    upscaling = 2 * places * width**2 + places * width**2
    heads = _MASK_TOKENS * (2 * (2 * width**2 + width * width // 8) + 2 * 16 * places * width // 8)
    return float(layers + cross + upscaling + heads)


def step_flops(
    spec: SamSpec,
    method: Method,
    *,
    images: int,
    masks: int,
    passes: int,
    encoded: int | None = None,
    fast: bool = True,
) -> float:
    """Operations of a step: encoder once, decoder in every pass, forward and backward.

    Backward costs a forward for gradients of activations and one for those of weights that learn.

    Args:
        spec: sizes, with or without adapters.
        method: what learns.
        images: of the step.
        masks: of the step.
        passes: of the decoder.
        encoded: images that went through the encoder; default all.
        fast: encoder without padded tokens.
    """
    encoder = encoder_flops(spec, fast=fast)
    backward = {
        "ft-sam": 0.0,
        "lora": encoder.plain + encoder.adapters,
        "sam-med2d": encoder.plain + 2 * encoder.adapters,
        "full": 2 * (encoder.plain + encoder.adapters),
    }[method]
    seen = images if encoded is None else encoded
    each = encoder.plain + encoder.adapters + backward
    return seen * each + masks * passes * 3 * decoder_flops(spec)
