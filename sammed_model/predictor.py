"""Set images once, then prompt them in their pixels: what users of SamPredictor know, batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class MaskPrompt:
    """What is asked about one mask of one of several images, in pixels of that image.

    Attributes:
        image: index into the images of ``set_images``.
        points_N2, labels_N: clicks ``(x, y)``; 1 object, 0 background.
        box_xyxy: half-open.
        mask_1hw: low-res logits of an answer before.
    """

    image: int = 0
    points_N2: NDArray[Any] | None = None
    labels_N: NDArray[Any] | None = None
    box_xyxy: NDArray[Any] | None = None
    mask_1hw: Floats | None = None

    @property
    def form(self) -> tuple[int, bool, bool]:
        """Prompts of one form are decoded together."""
        n = 0 if self.points_N2 is None else len(self.points_N2)
        return n, self.box_xyxy is not None, self.mask_1hw is not None


@dataclass(frozen=True, kw_only=True)
class MaskAnswer:
    """The answer to a ``MaskPrompt``.

    Attributes:
        masks_CHW: bool at the size of the image; logits where these were asked for.
        iou_C: predicted IoU.
        low_res_Chw: logits for the next ``mask_1hw``.
    """

    masks_CHW: NDArray[Any]
    iou_C: Floats
    low_res_Chw: Floats


class SammedPredictor:
    """Interactive prediction on one image, or on several at once.

    Args:
        model: on any device; its preprocessing decides how the image is read.
        precision: ``bf16`` encodes the image in half precision; prompts are decoded in float32.

    Raises:
        ModelError: unknown precision.
    """

    def __init__(self, model: SamModel, *, precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise ModelError(f"expected precision fp32 or bf16, found {precision!r}")
        self.model = model.eval()
        self._half = precision == "bf16"
        self.reset_image()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def reset_image(self) -> None:
        """Forget the images."""
        self._frames: list[Frame] = []
        self._embedding: Tensor | None = None

    @property
    def is_image_set(self) -> bool:
        """Whether ``predict`` can be called."""
        return bool(self._frames)

    def set_image(self, image_HWC: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image.

        Args:
            image_HWC: uint8, (H, W) grey or (H, W, 3).
            image_format: ``RGB`` or ``BGR``: the order of *this* image; the model's own order is
                seen to.

        Raises:
            ModelError: another type, shape or format.
        """
        self.set_images([image_HWC], image_format)

    @torch.inference_mode()
    def set_images(self, images: Sequence[NDArray[np.uint8]], image_format: str = "RGB") -> None:
        """Encode several images of any sizes in one pass; ``predict_batch`` asks about them.

        Raises:
            ModelError: no image, or as ``set_image``.
        """
        if image_format not in ("RGB", "BGR"):
            raise ModelError(f"expected image_format RGB or BGR, found {image_format!r}")
        if not images:
            raise ModelError("expected at least one image, found none")
        if image_format == "BGR":
            images = [im[:, :, ::-1] if im.ndim == 3 else im for im in images]
        x_B3SS, frames = self.model.preprocessing.prepare_batch(list(images))
        self._encode(x_B3SS, frames)

    @torch.inference_mode()
    def set_torch_image(self, image_13HW: Tensor, original_image_size: tuple[int, int]) -> None:
        """Encode an image that was resized by the caller, as SamPredictor's method of that name.

        Args:
            image_13HW: values 0..255 in the model's channel order, (1, 3, H, W), as large as the
                image is on the model's pixels (longest side S by the default preprocessing).
            original_image_size: (height, width) that masks are returned in.

        Raises:
            ModelError: another shape.
        """
        frame = self.model.preprocessing.frame(*original_image_size)
        wanted = (1, 3, frame.inner_height, frame.inner_width)
        if tuple(image_13HW.shape) != wanted:
            raise ModelError(
                f"expected an image of {' x '.join(map(str, wanted))} for an original of "
                f"{frame.height} x {frame.width} px, found {tuple(image_13HW.shape)}"
            )
        self._encode(self.model.preprocessing.placed(image_13HW, frame), [frame])

    def _encode(self, x_B3SS: Tensor, frames: list[Frame]) -> None:
        device = self.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._half):
            embedding_BChw = self.model.encode(x_B3SS.to(device))
        self._frames, self._embedding = frames, embedding_BChw.float()

    def get_image_embedding(self) -> Tensor:
        """(1, C, h, w) embedding of the image, float32; (B, C, h, w) of several.

        Raises:
            ModelError: no image is set.
        """
        return self._state()[1]

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
            multimask_output: True = the three alternatives; False = one answer: token 0 for
                weights of kind ``sam`` and ``medsam`` as upstream, else the alternative of the
                highest predicted IoU.
            return_logits: logits in place of bool masks.

        Returns:
            Masks (C, H, W) of the image's size, predicted IoU (C,), low-res logits (C, h, w); with
            a leading B if any prompt came with one.

        Raises:
            ModelError: no image or several are set, or prompts of different numbers.
        """
        frame, _ = self._only()
        given = {
            "point_coords": _batched(point_coords, 3),
            "point_labels": _batched(point_labels, 2),
            "box": _batched(box, 2),
            "mask_input": _batched(mask_input, 4),
        }
        points, boxes = given["point_coords"], given["box"]
        found = self.predict_torch(
            None if points is None else frame.to_model(points),
            given["point_labels"],
            None if boxes is None else frame.boxes_to_model(boxes),
            given["mask_input"],
            multimask_output,
            return_logits,
        )
        masks, iou, low = (value.cpu().numpy() for value in found)
        inputs = (point_coords, box, mask_input)
        alone = not any(
            value is not None and np.ndim(value) == ndim
            for value, ndim in zip(inputs, (3, 2, 4), strict=True)
        )
        return (masks[0], iou[0], low[0]) if alone else (masks, iou, low)

    @torch.inference_mode()
    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``predict`` for B prompts, on the model's device, coordinates in *model* pixels.

        Returns:
            Masks (B, C, H, W), predicted IoU (B, C), low-res logits (B, C, h, w).

        Raises:
            ModelError: no image or several are set, or prompts of different numbers.
        """
        frame, embedding = self._only()
        given = {
            "point_coords": point_coords,
            "point_labels": point_labels,
            "box": boxes,
            "mask_input": mask_input,
        }
        sizes = {name: len(value) for name, value in given.items() if value is not None}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{name} {n}" for name, n in sizes.items())
            raise ModelError(f"expected as many prompts of each type, found {shown}")
        device = self.model.device
        index = torch.zeros(next(iter(sizes.values()), 1), dtype=torch.int64, device=device)
        prompts = Prompts(
            image_index_M=index,
            points_MN2=None if point_coords is None else point_coords.to(device),
            point_labels_MN=None if point_labels is None else point_labels.long().to(device),
            boxes_M4=None if boxes is None else boxes.to(device),
            mask_M1hw=None if mask_input is None else self.model.feedback(mask_input.to(device)),
        )
        token = None if self.model.kind != "sam" else 0
        output = self.model.decode(embedding, prompts)
        low_MKhw, iou_MK = _tokens(output, multimask_output, token)
        return _at_size(frame, low_MKhw, return_logits), iou_MK, low_MKhw

    @torch.inference_mode()
    def predict_batch(
        self,
        prompts: Sequence[MaskPrompt],
        *,
        multimask_output: bool = False,
        return_logits: bool = False,
    ) -> list[MaskAnswer]:
        """Answers to prompts about any of the images that are set; one pass for each form.

        Args:
            prompts: in pixels of their images.
            multimask_output: the three alternatives; else the answer that the benchmark scores
                (highest predicted IoU; token 0 for MedSAM).
            return_logits: logits in place of bool masks.

        Raises:
            ModelError: no image is set, an unknown image, or a damaged prompt.
        """
        frames, embedding_BChw = self._state()
        wrong = sorted({p.image for p in prompts if not 0 <= p.image < len(frames)})
        if wrong:
            raise ModelError(f"expected prompts about images 0..{len(frames) - 1}, found {wrong}")
        forms: dict[tuple[int, bool, bool], list[int]] = {}
        for number, prompt in enumerate(prompts):
            forms.setdefault(prompt.form, []).append(number)
        answers: dict[int, MaskAnswer] = {}
        for numbers in forms.values():
            asked = self._joined([prompts[n] for n in numbers])
            low_MKhw, iou_MK = _tokens(self.model.decode(embedding_BChw, asked), multimask_output)
            for row, n in enumerate(numbers):
                low_1Khw = low_MKhw[row : row + 1]
                masks = _at_size(frames[prompts[n].image], low_1Khw, return_logits)
                answers[n] = MaskAnswer(
                    masks_CHW=masks[0].cpu().numpy(),
                    iou_C=iou_MK[row].float().cpu().numpy(),
                    low_res_Chw=low_1Khw[0].float().cpu().numpy(),
                )
        return [answers[n] for n in range(len(prompts))]

    def _joined(self, prompts: Sequence[MaskPrompt]) -> Prompts:
        """Prompts of one form, in model pixels."""
        device = self.model.device
        frames = [self._frames[p.image] for p in prompts]
        n_points, has_box, has_mask = prompts[0].form

        def together(rows: list[Tensor]) -> Tensor:
            return torch.stack(rows).to(device)

        points = [
            f.to_model(_floats(p.points_N2)) for f, p in zip(frames, prompts, strict=True)
            if n_points
        ]  # fmt: skip
        boxes = [
            f.boxes_to_model(_floats(p.box_xyxy)) for f, p in zip(frames, prompts, strict=True)
            if has_box
        ]  # fmt: skip
        labels = [_floats(p.labels_N).long() for p in prompts if n_points]
        masks = [_floats(p.mask_1hw) for p in prompts if has_mask]
        return Prompts(
            image_index_M=torch.tensor([p.image for p in prompts], device=device),
            points_MN2=together(points) if points else None,
            point_labels_MN=together(labels) if labels else None,
            boxes_M4=together(boxes) if boxes else None,
            mask_M1hw=self.model.feedback(together(masks)) if masks else None,
        )

    def _state(self) -> tuple[list[Frame], Tensor]:
        if self._embedding is None:
            raise ModelError("expected an image before prompts, found none: call set_image first")
        return self._frames, self._embedding

    def _only(self) -> tuple[Frame, Tensor]:
        frames, embedding = self._state()
        if len(frames) != 1:
            raise ModelError(
                f"expected one image for predict, found {len(frames)}: use predict_batch"
            )
        return frames[0], embedding


def _floats(value: NDArray[Any] | None) -> Tensor:
    return torch.as_tensor(np.asarray(value, dtype=np.float32))


def _batched(value: NDArray[Any] | None, ndim: int) -> Tensor | None:
    """A float tensor with a leading axis of prompts."""
    if value is None:
        return None
    tensor = _floats(value)
    return tensor[None] if tensor.ndim == ndim - 1 else tensor


def _tokens(
    output: DecoderOutput, multimask: bool, token: int | None = None
) -> tuple[Tensor, Tensor]:
    """The three alternatives, or one answer: of a token, or the model's own choice."""
    if multimask:
        return output.low_res_MKhw[:, 1:], output.iou_MK[:, 1:]
    if token is not None:
        return output.low_res_MKhw[:, token, None], output.iou_MK[:, token, None]
    low, iou = output.best()
    return low, iou[:, None]


def _at_size(frame: Frame, low_MKhw: Tensor, return_logits: bool) -> Tensor:
    m, k, h, w = low_MKhw.shape
    logits = frame.logits_to_slice(low_MKhw.reshape(m * k, 1, h, w)).reshape(
        m, k, frame.height, frame.width
    )
    return logits if return_logits else logits > 0
