"""A model that answers "the bright pixels in and near the box": an oracle of the test volumes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from sammed_model.predictor import MaskAnswer

SHAPE_IJK = (19, 26, 14)


class BrightPixels:
    """Takes the place of ``SammedPredictor``."""

    def __init__(self):
        self.model = SimpleNamespace(kind="oracle")
        self.encoded = []

    def set_images(self, images):
        self.images = images
        self.encoded += images

    def predict_batch(self, prompts):
        return [self._answer(p) for p in prompts]

    def _answer(self, prompt):
        image = self.images[prompt.image]
        image = image if image.ndim == 2 else image[..., 0]
        mask = np.zeros(image.shape, bool)
        if prompt.box_xyxy is not None:
            x0, y0, x1, y1 = (int(v) for v in prompt.box_xyxy)
            near = (slice(max(0, y0 - 3), y1 + 3), slice(max(0, x0 - 3), x1 + 3))
            mask[near] = image[near] > 128
        else:
            (x, y) = prompt.points_N2[0].astype(int)
            mask = (image > 128) & (image[y, x] > 128)
        low = np.zeros((1, 8, 8), np.float32)
        return MaskAnswer(masks_CHW=mask[None], iou_C=np.ones(1, np.float32), low_res_Chw=low)


def ball_ijk():
    """(I, J, K) bool: an ellipsoid that touches no border, not centred."""
    i, j, k = np.indices(SHAPE_IJK)
    return ((i - 7) / 4.0) ** 2 + ((j - 15) / 7.0) ** 2 + ((k - 6) / 4.0) ** 2 <= 1


def image_of(truth):
    """uint8: bright where true, dark noise elsewhere."""
    noise = np.random.default_rng(0).integers(0, 90, truth.shape)
    return np.where(truth, 200, noise).astype(np.uint8)


def oblique_flipped():
    """RAS affine: axes permuted, two of them flipped, 12 degrees oblique, spacing 1.5 x 0.8 x 3."""
    angle = np.deg2rad(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, 1]])  # fmt: skip
    axes = turn @ np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]])
    affine = np.eye(4)
    affine[:3, :3] = axes * (1.5, 0.8, 3.0)
    affine[:3, 3] = (-31.5, 12.25, 87.0)
    return affine
