"""Prompts of a whole batch of images through upstream's own decoder modules, without repeats.

Upstream decodes one image at a time (it repeats one embedding for every prompt). Here each mask
gathers the embedding of its image, so all masks of a batch go through in one pass; the numbers of
each image are upstream's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sammed_data.types import ModelError
from sammed_model.types import DecoderOutput, Prompts


def encode_prompts(prompt_encoder: Any, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Sparse (M, T, C) and dense (M or 1, C, h, w) embeddings, by upstream's rules.

    Points without a box get a void point appended; with a box the corners follow the points.
    Labels are chosen by a table instead of upstream's boolean indexing, which makes a GPU wait.
    """
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
    if prompts.mask_M1hw is None:
        dense = prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return torch.cat(parts, dim=1), dense
    expected = prompt_encoder.mask_input_size
    if tuple(prompts.mask_M1hw.shape[-2:]) != tuple(expected):
        raise ModelError(
            f"expected a mask prompt of {expected[0]} x {expected[1]} (four times the embedding "
            f"grid), found {tuple(prompts.mask_M1hw.shape)}: feed low-res outputs, not full masks"
        )
    return torch.cat(parts, dim=1), prompt_encoder.mask_downscaling(prompts.mask_M1hw.float())


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
    mask_decoder: Any, src_MChw: Tensor, pe_1Chw: Tensor, sparse_MTC: Tensor
) -> DecoderOutput:
    """All four mask tokens for M sources (embedding + dense prompt)."""
    m, c, h, w = src_MChw.shape
    own = torch.cat([mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(m, -1, -1), sparse_MTC], dim=1)
    # The positional code stays (1, C, h, w): the transformer only adds it.
    hidden, image = mask_decoder.transformer(src_MChw, pe_1Chw, tokens)
    upscaled = mask_decoder.output_upscaling(image.transpose(1, 2).reshape(m, c, h, w))
    k = mask_decoder.num_mask_tokens
    hyper = torch.stack(
        [mlp(hidden[:, 1 + i]) for i, mlp in enumerate(mask_decoder.output_hypernetworks_mlps)],
        dim=1,
    )
    low = (hyper @ upscaled.flatten(2)).reshape(m, k, *upscaled.shape[-2:])
    return DecoderOutput(low_res_MKhw=low, iou_MK=mask_decoder.iou_prediction_head(hidden[:, 0]))
