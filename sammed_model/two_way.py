"""Upstream's two-way transformer for prompts of different lengths, padded to the longest.

Upstream's attention takes no mask. Here its own modules are called in its own order, and no token
and no pixel ever looks at a padded token: its weight is zero exactly, in values and in gradients.
What a padded token itself becomes is read by nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional

TwoWay = Callable[[Any, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def two_way(
    transformer: Any,
    src_MChw: Tensor,
    pe_1Chw: Tensor,
    tokens_MTC: Tensor,
    bias_MT: Tensor,
) -> tuple[Tensor, Tensor]:
    """What ``transformer(src, pe, tokens)`` returns for each mask without the tokens that pad.

    Args:
        transformer: upstream's.
        src_MChw: embedding with the dense prompt.
        pe_1Chw: positional code of the image.
        tokens_MTC: the decoder's own tokens, then those of the prompts.
        bias_MT: added to the logit of each token: 0, or -inf if it pads; never a whole row.

    Returns:
        Tokens (M, T, C), meaningless where they pad, and the image side (M, h w, C).
    """
    image_MPC, pe_1PC = src_MChw.flatten(2).transpose(1, 2), pe_1Chw.flatten(2).transpose(1, 2)
    bias_M11T = bias_MT[:, None, None]
    x_MTC = tokens_MTC
    for layer in transformer.layers:
        x_MTC, image_MPC = _layer(layer, x_MTC, image_MPC, tokens_MTC, pe_1PC, bias_M11T)
    asked = x_MTC + tokens_MTC
    found = _attend(
        transformer.final_attn_token_to_image, asked, image_MPC + pe_1PC, image_MPC, None
    )
    return transformer.norm_final_attn(x_MTC + found), image_MPC


def _layer(
    layer: Any,
    x_MTC: Tensor,
    image_MPC: Tensor,
    tokens_MTC: Tensor,
    pe_1PC: Tensor,
    bias_M11T: Tensor,
) -> tuple[Tensor, Tensor]:
    """Tokens among themselves, tokens at the image, each for itself, the image at the tokens."""
    if layer.skip_first_layer_pe:
        x_MTC = _attend(layer.self_attn, x_MTC, x_MTC, x_MTC, bias_M11T)
    else:
        placed = x_MTC + tokens_MTC
        x_MTC = x_MTC + _attend(layer.self_attn, placed, placed, x_MTC, bias_M11T)
    x_MTC = layer.norm1(x_MTC)
    where = image_MPC + pe_1PC
    placed = x_MTC + tokens_MTC
    x_MTC = x_MTC + _attend(layer.cross_attn_token_to_image, placed, where, image_MPC, None)
    x_MTC = layer.norm2(x_MTC)
    x_MTC = layer.norm3(x_MTC + layer.mlp(x_MTC))
    placed = x_MTC + tokens_MTC
    seen = _attend(layer.cross_attn_image_to_token, where, placed, x_MTC, bias_M11T)
    return x_MTC, layer.norm4(image_MPC + seen)


def _attend(
    attn: Any, q_MTC: Tensor, k_MKC: Tensor, v_MKC: Tensor, bias_M11K: Tensor | None
) -> Tensor:
    """What ``attn(q, k, v)`` returns, with a bias for each key."""
    given = ((attn.q_proj, q_MTC), (attn.k_proj, k_MKC), (attn.v_proj, v_MKC))
    q, k, v = (
        projection(x).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for projection, x in given
    )
    bias = None if bias_M11K is None else bias_M11K.to(q.dtype)
    out = functional.scaled_dot_product_attention(q, k, v, bias)
    found: Tensor = attn.out_proj(out.transpose(1, 2).flatten(2))
    return found
