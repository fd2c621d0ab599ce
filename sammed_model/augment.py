"""Augmentation on the device: one affine map and one intensity map an image, drawn by hashes.

The image, its masks and its valid region go through the same map. An image with a mask of a sided
structure is never mirrored. All draws are functions of (sample, epoch, visit, seed): the same for
any batch, rank or resumption. A map that would push a mask out of the picture is not applied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from sammed_model.config import Augmentation
from sammed_model.dataset import Batch
from sammed_model.prompts import derive_seeds, uniform

_MIRRORED = 0.5
# Of a mask's area (times the map's own scale) that must stay in the picture.
_KEPT = 0.6
_DRAWS = 8
_NOISE_STREAM = 7
_FLOOR = 1e-6


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How far: angles in degrees, scale and gamma as factors (1.25 = 0.8 .. 1.25), others as parts.

    Attributes:
        shift: of the side.
        noise: standard deviation, of the image's own.
    """

    rotate: float
    scale: float
    shift: float
    gamma: float
    contrast: float
    noise: float


STRENGTHS: dict[Augmentation, Strength] = {
    "light": Strength(rotate=10, scale=1.15, shift=0.04, gamma=1.2, contrast=1.15, noise=0.05),
    "strong": Strength(rotate=30, scale=1.4, shift=0.1, gamma=1.6, contrast=1.4, noise=0.15),
}


def augment(batch: Batch, level: Augmentation) -> Batch:
    """A batch as another scanner, position and posture might have given it.

    Args:
        batch: on any device, with ``visit_seeds_B`` and ``sided_B`` (see ``feed.Loader``).
        level: ``none`` returns the batch.
    """
    if level == "none" or batch.visit_seeds_B is None or batch.sided_B is None:
        return batch
    how, device = STRENGTHS[level], batch.images_B3SS.device
    seeds_B = batch.visit_seeds_B
    draw_B8 = uniform(seeds_B, _DRAWS).float().to(device, non_blocking=True)
    images = _intensity(batch.images_B3SS, how, draw_B8, derive_seeds(seeds_B, _NOISE_STREAM))
    map_B23, area_B = _map(how, draw_B8, batch.sided_B.to(device, non_blocking=True))
    return _moved(replace(batch, images_B3SS=images), map_B23, area_B)


def _signed(draw: Tensor) -> Tensor:
    return 2 * draw - 1


def _map(how: Strength, draw_B8: Tensor, sided_B: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2, 3) from places of the result to places of the source, and the factor on areas."""
    angle = torch.deg2rad(how.rotate * _signed(draw_B8[:, 0]))
    scale = torch.pow(how.scale, _signed(draw_B8[:, 1]))
    mirror = torch.where((draw_B8[:, 2] < _MIRRORED) & ~sided_B, -1.0, 1.0)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    shift = 2 * how.shift * _signed(draw_B8[:, 3:5])
    rows = torch.stack([mirror * cos, -mirror * sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1)
    return rows.view(-1, 2, 3), scale**2


def _moved(batch: Batch, map_B23: Tensor, area_B: Tensor) -> Batch:
    """The batch under a map; an image of which a mask would be lost stays where it is."""
    index = batch.image_index_M
    size = list(batch.images_B3SS.shape)
    grid_BSS2 = functional.affine_grid(map_B23, size, align_corners=False)
    masks = _nearest(batch.masks_M1SS, grid_BSS2[index])
    before, after = (m.flatten(1).sum(dim=1).float() for m in (batch.masks_M1SS, masks))
    lost_M = after < (_KEPT * before * area_B[index].clamp(max=1.0)).clamp(min=1.0)
    stays_B = torch.zeros(size[0], device=index.device).index_add_(0, index, lost_M.float()) > 0
    stays = stays_B[:, None, None, None]
    images = functional.grid_sample(batch.images_B3SS, grid_BSS2, align_corners=False)
    return replace(
        batch,
        images_B3SS=torch.where(stays, batch.images_B3SS, images),
        masks_M1SS=torch.where(stays[index], batch.masks_M1SS, masks),
        valid_B1SS=torch.where(stays, batch.valid_B1SS, _nearest(batch.valid_B1SS, grid_BSS2)),
    )


def _nearest(planes_N1SS: Tensor, grid_NSS2: Tensor) -> Tensor:
    found = functional.grid_sample(
        planes_N1SS.float(), grid_NSS2, mode="nearest", align_corners=False
    )
    return found > 0.5


def _intensity(x_B3SS: Tensor, how: Strength, draw_B8: Tensor, noise_seeds_B: Tensor) -> Tensor:
    """Gamma, contrast and noise; padding, which is exactly zero in all channels, stays zero."""
    inside = (x_B3SS != 0).any(dim=1, keepdim=True)
    low = x_B3SS.amin(dim=(1, 2, 3), keepdim=True)
    span = (x_B3SS.amax(dim=(1, 2, 3), keepdim=True) - low).clamp(min=_FLOOR)
    gamma, contrast = (
        torch.pow(limit, _signed(draw_B8[:, n]))[:, None, None, None]
        for n, limit in ((5, how.gamma), (6, how.contrast))
    )
    bent = low + span * ((x_B3SS - low) / span).clamp(min=_FLOOR) ** gamma
    share = inside.float().mean(dim=(1, 2, 3), keepdim=True).clamp(min=_FLOOR)
    mean = (bent * inside).mean(dim=(1, 2, 3), keepdim=True) / share
    spread = (((bent - mean) * inside) ** 2).mean(dim=(1, 2, 3), keepdim=True) / share
    side = x_B3SS.shape[-1]
    seeds = noise_seeds_B.to(x_B3SS.device, non_blocking=True)
    noise = _signed(uniform(seeds, side * side).float()).view(-1, 1, side, side) * 3**0.5
    amount = how.noise * draw_B8[:, 7][:, None, None, None] * spread.sqrt()
    return (mean + contrast * (bent - mean) + amount * noise) * inside
