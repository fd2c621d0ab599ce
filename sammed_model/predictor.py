"""Set an image once, then prompt it in its own pixels: what users of SamPredictor know, batched."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sammed_data.types import ModelError
from sammed_model.frame import Frame
from sammed_model.sam import SamModel
from sammed_model.types import DecoderOutput, Prompts

Floats = NDArray[np.float32]


class SammedPredictor:
    """Interactive prediction on one image.

    Args:
        model: on any device; its preprocessing decides how the image is read.
    """

    def __init__(self, model: SamModel) -> None:
        self.model = model.eval()
        self.reset_image()

    def reset_image(self) -> None:
        """Forget the image."""
        self._frame: Frame | None = None
        self._embedding: Tensor | None = None

    @property
    def is_image_set(self) -> bool:
        """Whether ``predict`` can be called."""
        return self._frame is not None

    @torch.inference_mode()
    def set_image(self, image_HWC: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image.

        Args:
            image_HWC: uint8, (H, W) grey or (H, W, 3).
            image_format: ``RGB`` or ``BGR``: the order of *this* image; the model's own order is
                seen to.

        Raises:
            ModelError: another type, shape or format.
        """
        if image_format not in ("RGB", "BGR"):
            raise ModelError(f"expected image_format RGB or BGR, found {image_format!r}")
        if image_format == "BGR" and image_HWC.ndim == 3:
            image_HWC = image_HWC[:, :, ::-1]
        tensor_3SS, self._frame = self.model.preprocessing.prepare(image_HWC)
        self._embedding = self.model.encode(tensor_3SS[None].to(self.model.device))

    def get_image_embedding(self) -> Tensor:
        """(1, C, h, w) embedding of the image.

        Raises:
            ModelError: no image is set.
        """
        return self._state()[1]

    @torch.inference_mode()
    def predict(
        self,
        point_coords: NDArray[Any] | None = None,
        point_labels: NDArray[Any] | None = None,
        box: NDArray[Any] | None = None,
        mask_input: NDArray[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[Any], Floats, Floats]:
        """Masks for one prompt, or for B prompts in one pass.

        Args:
            point_coords: (N, 2) or (B, N, 2) ``(x, y)`` in pixels of the image.
            point_labels: (N,) or (B, N); 1 object, 0 background, -1 void.
            box: (4,) or (B, 4) half-open ``xyxy``.
            mask_input: (1, h, w) or (B, 1, h, w) low-res logits of a call before.
            multimask_output: True = the three alternatives; False = the model's answer alone (the
                alternative of the highest predicted IoU; token 0 for MedSAM).
            return_logits: logits in place of bool masks.

        Returns:
            Masks (C, H, W) of the image's size, predicted IoU (C,), low-res logits (C, h, w); with
            a leading B if any prompt came with one.

        Raises:
            ModelError: no image is set, or prompts of different numbers.
        """
        frame, embedding = self._state()
        given = {
            "point_coords": _batched(point_coords, 3),
            "point_labels": _batched(point_labels, 2),
            "box": _batched(box, 2),
            "mask_input": _batched(mask_input, 4),
        }
        sizes = {name: len(value) for name, value in given.items() if value is not None}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{name} {n}" for name, n in sizes.items())
            raise ModelError(f"expected as many prompts of each type, found {shown}")
        prompts = self._prompts(frame, given, next(iter(sizes.values()), 1))
        output = self.model.decode(embedding, prompts)
        low_MKhw, iou_MK = _tokens(output, multimask_output)
        m, k, h, w = low_MKhw.shape
        logits = frame.logits_to_slice(low_MKhw.reshape(m * k, 1, h, w)).reshape(
            m, k, frame.height, frame.width
        )
        found = (logits if return_logits else logits > 0, iou_MK, low_MKhw)
        masks, iou, low = (value.cpu().numpy() for value in found)
        inputs = (point_coords, box, mask_input)
        alone = not any(
            value is not None and np.ndim(value) == ndim
            for value, ndim in zip(inputs, (3, 2, 4), strict=True)
        )
        return (masks[0], iou[0], low[0]) if alone else (masks, iou, low)

    def _state(self) -> tuple[Frame, Tensor]:
        if self._frame is None or self._embedding is None:
            raise ModelError("expected an image before prompts, found none: call set_image first")
        return self._frame, self._embedding

    def _prompts(self, frame: Frame, given: dict[str, Tensor | None], count: int) -> Prompts:
        device = self.model.device
        points, labels = given["point_coords"], given["point_labels"]
        boxes, mask = given["box"], given["mask_input"]
        return Prompts(
            image_index_M=torch.zeros(count, dtype=torch.int64, device=device),
            points_MN2=None if points is None else frame.to_model(points).to(device),
            point_labels_MN=None if labels is None else labels.long().to(device),
            boxes_M4=None if boxes is None else frame.boxes_to_model(boxes).to(device),
            mask_M1hw=None if mask is None else self.model.feedback(mask.to(device)),
        )


def _batched(value: NDArray[Any] | None, ndim: int) -> Tensor | None:
    """As float32 with a leading axis of prompts."""
    if value is None:
        return None
    tensor = torch.as_tensor(np.asarray(value, dtype=np.float32))
    return tensor[None] if tensor.ndim == ndim - 1 else tensor


def _tokens(output: DecoderOutput, multimask: bool) -> tuple[Tensor, Tensor]:
    if multimask:
        return output.low_res_MKhw[:, 1:], output.iou_MK[:, 1:]
    low, iou = output.best()
    return low, iou[:, None]
