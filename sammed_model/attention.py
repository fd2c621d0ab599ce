"""The fast encoder path: upstream's numbers from upstream's modules, with fewer operations.

Three savings, each exact but for rounding, in values and in gradients:

* Upstream pads the grid to whole windows (16 to 28 at 256 px: 784 tokens for 256 real ones) and
  computes on the padding. Here only real tokens are projected and asked. The padded keys of a
  window all have the same key and value (the qkv bias) and differ in their position bias alone, so
  they count as one key whose bias is the logarithm of their summed exponentials.
* Where the map of logits is large the attention is fused.
* Adapter convolutions are matrix products on the channels-last tensor. Their weights lie in memory
  as these products read them (``adapters.order_weights``): nothing is re-ordered per call, so there
  is no cache that could go stale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sammed_model.adapters import Adapter, MlpWithAdapter

# Below, two matrix products beat the fused kernel on a CPU; in bf16 they always do (measured).
_FUSED_TOKENS_CPU = 1024


BlockForward = Callable[[Any, Tensor], Tensor]


def encode_fast(
    image_encoder: Any, x_BCHW: Tensor, block_forward: BlockForward | None = None
) -> Tensor:
    """What ``image_encoder(x)`` returns, (B, 3, S, S) -> (B, C, h, w).

    Args:
        image_encoder: upstream's.
        x_BCHW: prepared images.
        block_forward: ``block_fast``, or that compiled.
    """
    forward = block_forward or block_fast
    x_BHWC: Tensor = image_encoder.patch_embed(x_BCHW) + image_encoder.pos_embed
    for block in image_encoder.blocks:
        x_BHWC = forward(block, x_BHWC)
    out: Tensor = image_encoder.neck(x_BHWC.permute(0, 3, 1, 2))
    return out


def block_fast(block: Any, x_BHWC: Tensor) -> Tensor:
    """What ``block(x)`` returns."""
    x_BHWC = x_BHWC + attention_fast(block.attn, block.norm1(x_BHWC), block.window_size)
    n_BHWC = block.norm2(x_BHWC)
    if isinstance(block.mlp, MlpWithAdapter):
        adapted = block.mlp.mlp(n_BHWC) + adapter_fast(block.mlp.adapter, n_BHWC)
        return x_BHWC + adapted
    out: Tensor = x_BHWC + block.mlp(n_BHWC)
    return out


def attention_fast(attn: Any, n_BHWC: Tensor, window: int) -> Tensor:
    """Windowed attention (``window`` 0: over the whole grid) with relative positions."""
    _, height, width, _ = n_BHWC.shape
    window_hw = (window, window) if window else (height, width)
    qkv_BHWC = attn.qkv(n_BHWC)
    padding = _qkv_of_padding(attn, n_BHWC).to(qkv_BHWC.dtype)
    rows = []
    for y, tall in _spans(height, window_hw[0]):
        tiles = [
            _attend(attn, qkv_BHWC[:, y, x], (tall, wide), window_hw, padding)
            for x, wide in _spans(width, window_hw[1])
        ]
        rows.append(_joined(tiles, 2))
    out: Tensor = attn.proj(_joined(rows, 1))
    return out


def _spans(size: int, window: int) -> list[tuple[slice, int]]:
    """The part of an axis in whole windows and the rest, each with its windows' real tokens."""
    whole = size - size % window
    parts = [(slice(0, whole), window), (slice(whole, size), size - whole)]
    return [(part, real) for part, real in parts if part.stop > part.start]


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def _qkv_of_padding(attn: Any, n_BHWC: Tensor) -> Tensor:
    """(3 C,) query, key and value of a padded token, which is zero: the bias."""
    if type(attn.qkv) is nn.Linear:
        bias: Tensor = attn.qkv.bias
        return bias
    # A wrapped projection is asked.
    asked: Tensor = attn.qkv(n_BHWC.new_zeros(n_BHWC.shape[-1]))
    return asked


def _attend(
    attn: Any,
    qkv_BhwC: Tensor,
    real_hw: tuple[int, int],
    window_hw: tuple[int, int],
    padding_C: Tensor,
) -> Tensor:
    """Attention in windows that have equally many real tokens; (B, h, w, 3 C) -> (B, h, w, C).

    Args:
        attn: upstream's attention.
        qkv_BhwC: a tile made of such windows.
        real_hw: real tokens of each window.
        window_hw: its size with the padding.
        padding_C: query, key and value of a padded token.
    """
    batch, height, width, _ = qkv_BhwC.shape
    (tall, wide), heads = real_hw, attn.num_heads
    down, across = height // tall, width // wide
    split = qkv_BhwC.reshape(batch, down, tall, across, wide, 3, heads, -1)
    # N counts batch x windows x heads, T tokens of a window.
    q_NTd, k_NTd, v_NTd = split.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(
        3, batch * down * across * heads, tall * wide, -1
    )
    bias_h, bias_w = _position_bias(attn, q_NTd, real_hw, window_hw)
    near_h, near_w = bias_h[..., :tall], bias_w[..., :wide]
    bias_NTK = (near_h[..., :, None] + near_w[..., None, :]).flatten(-2).flatten(1, 2)
    if real_hw != window_hw:
        far = _bias_of_padding(bias_h, bias_w, real_hw).flatten(1)[..., None]
        bias_NTK = torch.cat((bias_NTK, far.to(bias_NTK.dtype)), -1)
        _, key, value = padding_C.view(3, heads, 1, -1).repeat(1, batch * down * across, 1, 1)
        k_NTd, v_NTd = torch.cat((k_NTd, key), 1), torch.cat((v_NTd, value), 1)
    out = _weighted(q_NTd, k_NTd, v_NTd, bias_NTK.to(q_NTd.dtype), attn.scale)
    merged = out.view(batch, down, across, heads, tall, wide, -1).permute(0, 1, 4, 2, 5, 3, 6)
    return merged.reshape(batch, height, width, -1)


def _weighted(q_NTd: Tensor, k_NKd: Tensor, v_NKd: Tensor, bias: Tensor, scale: float) -> Tensor:
    if _fuse(q_NTd):
        heads = (q_NTd[None], k_NKd[None], v_NKd[None])
        return functional.scaled_dot_product_attention(*heads, bias[None], scale=scale)[0]
    # In place: the bias is read by nothing else, and its sum kept no copy of it.
    logits = bias.baddbmm_(q_NTd, k_NKd.transpose(1, 2), alpha=scale)
    return logits.softmax(-1) @ v_NKd


def _fuse(q_NTd: Tensor) -> bool:
    if q_NTd.device.type != "cpu":
        return True
    return q_NTd.dtype == torch.float32 and q_NTd.shape[1] >= _FUSED_TOKENS_CPU


def _position_bias(
    attn: Any, q_NTd: Tensor, real_hw: tuple[int, int], window_hw: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """(N, h, w, rows of the window) and (N, h, w, columns): of the query before scaling."""
    q_Nhwd = q_NTd.reshape(-1, *real_hw, q_NTd.shape[-1])
    table_h = _offsets(attn.rel_pos_h, window_hw[0])[: real_hw[0]]
    table_w = _offsets(attn.rel_pos_w, window_hw[1])[: real_hw[1]]
    return (
        torch.einsum("nhwd,hdk->nhwk", q_Nhwd, table_h),
        torch.einsum("nhwd,wdk->nhwk", q_Nhwd, table_w),
    )


def _offsets(table_Ld: Tensor, size: int) -> Tensor:
    """(size, d, size): entry [q, :, k] is row q - k + size - 1 of the table; no index is copied."""
    return table_Ld.flip(0).unfold(0, size, 1).flip(0)


def _bias_of_padding(bias_h: Tensor, bias_w: Tensor, real_hw: tuple[int, int]) -> Tensor:
    """(N, h, w): log of the summed exponentials over the padded keys; half precision is widened.

    Padding is what lies to the right, over all rows, and what lies below the real columns; a bias
    is a sum over both axes, so each of the two parts factors.
    """
    (tall, wide), bias_h, bias_w = real_hw, bias_h.float(), bias_w.float()
    parts = []
    if bias_w.shape[-1] > wide:
        parts.append(bias_h.logsumexp(-1) + bias_w[..., wide:].logsumexp(-1))
    if bias_h.shape[-1] > tall:
        parts.append(bias_h[..., tall:].logsumexp(-1) + bias_w[..., :wide].logsumexp(-1))
    return parts[0] if len(parts) == 1 else torch.logaddexp(*parts)


def adapter_fast(adapter: Adapter, n_BHWC: Tensor) -> Tensor:
    """What ``adapter(n)`` returns."""
    _, height, width, _ = n_BHWC.shape
    convolutions: Any = adapter.spatial
    gate_BC = adapter.channel(n_BHWC.mean(dim=(1, 2)))
    half = _halved(n_BHWC * gate_BC[:, None, None], convolutions[0].weight).relu()
    spatial = _doubled(half, convolutions[2].weight).relu()[:, :height, :width]
    out: Tensor = adapter.norm(n_BHWC + spatial)
    return out


def _halved(x_BHWC: Tensor, weight_OI33: Tensor) -> Tensor:
    """3 x 3 convolution with stride 2 and padding 1: its nine taps side by side, one product."""
    height, width = ((size + 1) // 2 for size in x_BHWC.shape[1:3])
    padded = functional.pad(x_BHWC, (0, 0, 1, 1, 1, 1))
    taps = [
        padded[:, y : y + 2 * height - 1 : 2, x : x + 2 * width - 1 : 2]
        for y in range(3)
        for x in range(3)
    ]
    return functional.linear(torch.cat(taps, -1), weight_OI33.permute(0, 2, 3, 1).flatten(1))


def _doubled(x_BhwC: Tensor, weight_IO44: Tensor) -> Tensor:
    """4 x 4 transposed convolution with stride 2 and padding 1: one product, then four sums.

    Output pixel 2 i + t - 1 takes tap t of input i. With t = 2 a + p, that is phase p of cell
    i + a on a grid of cells of two pixels, so each (a, b) adds a whole map, shifted by (a, b).
    """
    batch, height, width, _ = x_BhwC.shape
    taps = x_BhwC @ weight_IO44.permute(0, 2, 3, 1).flatten(1)
    taps = taps.view(batch, height, width, 2, 2, 2, 2, -1)
    cells = taps.new_zeros(batch, height + 1, width + 1, 2, 2, taps.shape[-1])
    for a in range(2):
        for b in range(2):
            part = taps[:, :, :, a, :, b]
            if torch.compiler.is_compiling():
                # Sums into slices would be compiled as conditions within conditions: minutes.
                cells = cells + functional.pad(part, (0, 0) * 3 + (b, 1 - b, a, 1 - a))
            else:
                cells[:, a : a + height, b : b + width] += part
    pixels = cells.transpose(2, 3).reshape(batch, 2 * height + 2, 2 * width + 2, -1)
    return pixels[:, 1:-1, 1:-1]
