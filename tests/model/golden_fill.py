"""Weights and inputs of the golden numbers, made from names by integer arithmetic.

The numbers of tests/golden were produced by the published code on these weights. A counter hash
rather than a seeded generator: it is the same in every build of every library.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
_TOKENS = ("iou_token", "mask_tokens", "point_embeddings", "not_a_point_embed", "no_mask_embed")
_TRANSPOSED = ("output_upscaling.0.", "output_upscaling.3.", "Adapter.spatial.2.")


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def uniform(key: str, n: int) -> np.ndarray:
    """n float64 in (-0.5, 0.5): SplitMix64 of a counter that starts at the key's CRC."""
    start = np.uint64((zlib.crc32(key.encode()) << 32) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        s = start + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        s = (s ^ (s >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        s = (s ^ (s >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    s ^= s >> np.uint64(31)
    return ((s >> np.uint64(40)).astype(np.float64) + 0.5) / 16777216.0 - 0.5


def _rule(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """(centre, scale): unit gain, so that every path leaves a trace in the outputs."""
    if key.endswith("positional_encoding_gaussian_matrix"):
        return 0.0, 1.0
    if any(t in key for t in _TOKENS):
        return 0.0, 0.5
    if key.endswith("pos_embed"):
        return 0.0, 0.2
    if key.endswith(("rel_pos_h", "rel_pos_w")):
        return 0.0, 0.1
    if len(shape) == 1:
        return (1.0, 0.1) if key.endswith("weight") else (0.0, 0.1)
    if any(t in key for t in _TRANSPOSED):
        return 0.0, 1.0 / math.sqrt(shape[0] * shape[2] * shape[3] / 4)
    return 0.0, 1.0 / math.sqrt(math.prod(shape[1:]))


def values(key: str, shape: tuple[int, ...]) -> np.ndarray:
    centre, scale = _rule(key, tuple(shape))
    v = centre + (scale * math.sqrt(12.0)) * uniform(key, math.prod(shape))
    return v.astype(np.float32).reshape(tuple(shape))


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Published name -> tensor."""
    return {key: torch.from_numpy(values(key, shape)) for key, shape in shapes.items()}


def image_u8(size: int, name: str = "image") -> np.ndarray:
    """(size, size, 3) uint8: flat blocks plus noise, channels differ."""
    blocks = ((uniform(name + "/blocks", 768) + 0.5) * 192).astype(np.int64).reshape(16, 16, 3)
    coarse = blocks.repeat(size // 16, 0).repeat(size // 16, 1)
    fine = ((uniform(name + "/fine", size * size * 3) + 0.5) * 64).astype(np.int64)
    return (coarse + fine.reshape(size, size, 3)).astype(np.uint8)


def image_tensor(size: int) -> torch.Tensor:
    """(1, 3, size, size) float32, normalised by position of the channel."""
    x = (image_u8(size).astype(np.float64) - MEAN) / STD
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)[None]).astype(np.float32))


def disc(size: int, cx: float, cy: float, r: float) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size]
    return (((x - cx) ** 2 + (y - cy) ** 2) <= r * r).astype(np.float32)


def mask_prompt(size: int) -> torch.Tensor:
    """(1, 1, size, size) float32 in (0, 1]: a soft blob."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    c = size / 64.0
    d2 = ((x - 28 * c) / (11 * c)) ** 2 + ((y - 37 * c) / (8 * c)) ** 2
    return torch.from_numpy((1.0 / (1.0 + d2 * d2)).astype(np.float32))[None, None]


PROMPTS_256 = {
    "box": {"boxes_M4": torch.tensor([[48.0, 60, 180, 200]])},
    "point1": {
        "points_MN2": torch.tensor([[[120.0, 130]]]),
        "point_labels_MN": torch.tensor([[1]]),
    },
    "mask": {"mask_M1hw": mask_prompt(64)},
}


def loss_case(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(logits, target, predicted IoU) float32 of shapes (3, 1, 16, 16) twice and (3, 1)."""
    x = uniform(f"loss/{name}/logits", 768).reshape(3, 1, 16, 16) * 8.0
    t = np.stack([disc(16, 7, 7, 5), disc(16, 3, 11, 2), disc(16, 9, 5, 6)])[:, None]
    q = uniform(f"loss/{name}/iou", 3).reshape(3, 1) + 0.5
    if name == "empty":
        t = t * 0
    return tuple(torch.from_numpy(a.astype(np.float32)) for a in (x, t, q))
