"""Prompts of a whole batch of images through upstream's own decoder modules, without repeats.

Upstream decodes one image at a time (it repeats one embedding for every prompt). Here each mask
gathers the embedding of its image, so all masks of a batch go through in one pass; the numbers of
each image are upstream's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sammed_data.types import ModelError
from sammed_model.two_way import TwoWay, two_way
from sammed_model.types import DecoderOutput, Prompts


def encode_prompts(prompt_encoder: Any, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Sparse (M, T, C) and dense (M or 1, C, h, w) embeddings, by upstream's rules.

    Points without a box get a void point appended; with a box the corners follow the points.
    Labels are chosen by a table instead of upstream's boolean indexing, which makes a GPU wait.
    """
    return _sparse(prompt_encoder, prompts), _dense(prompt_encoder, prompts.mask_M1hw)


def encode_together(
    prompt_encoder: Any, groups: Sequence[Prompts]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``encode_prompts`` of several groups, one after another, as one.

    Returns:
        Sparse (M, T, C), shorter ones padded with zeros; dense (M or 1, C, h, w); and (M, T) what
        attention adds to the logit of each token, -inf if it pads, or None if none does.
    """
    parts = [_sparse(prompt_encoder, group) for group in groups]
    lengths = [part.shape[1] for part in parts]
    longest = max(lengths)
    sparse = torch.cat([functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts])
    masks = [group.mask_M1hw for group in groups if group.mask_M1hw is not None]
    if masks and len(masks) < len(groups):
        size = prompt_encoder.image_embedding_size
        some = [_dense(prompt_encoder, g.mask_M1hw).expand(len(g), -1, *size) for g in groups]
        dense = torch.cat(some)
    else:
        dense = _dense(prompt_encoder, torch.cat(masks) if masks else None)
    if min(lengths) == longest:
        return sparse, dense, None
    bias_MT = sparse.new_zeros(sparse.shape[:2])
    rows = torch.split(bias_MT, [len(group) for group in groups])
    for row, length in zip(rows, lengths, strict=True):
        row[:, length:] = float("-inf")
    return sparse, dense, bias_MT


def _sparse(prompt_encoder: Any, prompts: Prompts) -> Tensor:
    m, width = len(prompts), prompt_encoder.embed_dim
    parts = [torch.zeros((m, 0, width), device=prompts.image_index_M.device)]
    if prompts.points_MN2 is not None and prompts.point_labels_MN is not None:
        parts.append(_points(prompt_encoder, prompts.points_MN2, prompts.point_labels_MN))
        if prompts.boxes_M4 is None:
            void = prompt_encoder.not_a_point_embed.weight
            parts.append(void.expand(m, 1, width))
    if prompts.boxes_M4 is not None:
        corners = prompts.boxes_M4.float().reshape(m, 2, 2) + 0.5
        learnt = torch.cat([e.weight for e in prompt_encoder.point_embeddings[2:]])
        parts.append(_positions(prompt_encoder, corners) + learnt)
    return torch.cat(parts, dim=1)


def _dense(prompt_encoder: Any, mask_M1hw: Tensor | None) -> Tensor:
    if mask_M1hw is None:
        void: Tensor = prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return void
    expected = prompt_encoder.mask_input_size
    if tuple(mask_M1hw.shape[-2:]) != tuple(expected):
        raise ModelError(
            f"expected a mask prompt of {expected[0]} x {expected[1]} (four times the embedding "
            f"grid), found {tuple(mask_M1hw.shape)}: feed low-res outputs, not full masks"
        )
    dense: Tensor = prompt_encoder.mask_downscaling(mask_M1hw.float())
    return dense


def _positions(prompt_encoder: Any, xy_MN2: Tensor) -> Tensor:
    """Positional codes of model pixels whose half-pixel shift has been added."""
    codes: Tensor = prompt_encoder.pe_layer.forward_with_coords(
        xy_MN2, prompt_encoder.input_image_size
    )
    return codes


def _points(prompt_encoder: Any, xy_MN2: Tensor, labels_MN: Tensor) -> Tensor:
    codes = _positions(prompt_encoder, xy_MN2.float() + 0.5)
    negative, positive = (e.weight for e in prompt_encoder.point_embeddings[:2])
    table = torch.cat([prompt_encoder.not_a_point_embed.weight, negative, positive])
    labels = labels_MN.long()
    return codes * (labels >= 0)[:, :, None] + table[labels + 1]


def predict_masks(
    mask_decoder: Any,
    src_MChw: Tensor,
    pe_1Chw: Tensor,
    sparse_MTC: Tensor,
    bias_MT: Tensor | None = None,
    padded_forward: TwoWay | None = None,
) -> DecoderOutput:
    """All four mask tokens for M sources.

    Args:
        mask_decoder: upstream's.
        src_MChw: embedding + dense prompt.
        pe_1Chw: positional code of the image.
        sparse_MTC: prompt tokens.
        bias_MT: added to their logits, if some of them pad.
        padded_forward: ``two_way``, or that compiled.
    """
    m, c, h, w = src_MChw.shape
    own = torch.cat([mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(m, -1, -1), sparse_MTC], dim=1)
    # The positional code stays (1, C, h, w): the transformer only adds it.
    if bias_MT is None:
        hidden, image = mask_decoder.transformer(src_MChw, pe_1Chw, tokens)
    else:
        bias_MT = functional.pad(bias_MT, (len(own), 0))
        forward = padded_forward or two_way
        hidden, image = forward(mask_decoder.transformer, src_MChw, pe_1Chw, tokens, bias_MT)
    upscaled = mask_decoder.output_upscaling(image.transpose(1, 2).reshape(m, c, h, w))
    k = mask_decoder.num_mask_tokens
    hyper = torch.stack(
        [mlp(hidden[:, 1 + i]) for i, mlp in enumerate(mask_decoder.output_hypernetworks_mlps)],
        dim=1,
    )
    low = (hyper @ upscaled.flatten(2)).reshape(m, k, *upscaled.shape[-2:])
    return DecoderOutput(low_res_MKhw=low, iou_MK=mask_decoder.iou_prediction_head(hidden[:, 0]))
