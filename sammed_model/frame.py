"""Slice pixels to model pixels and back: nobody else multiplies by a scale.

Three conventions, recorded in the weight file: ``default`` (longest side to S, anti-aliased, padded
bottom right, RGB), ``released`` (SAM-Med2D's test code: centred padding of small images, else
stretched by OpenCV's nearest rule, BGR) and ``medsam`` (stretched, min-max of the image).
Coordinates are ``(x, y)`` whose integers are pixel centres; boxes are half-open ``xyxy``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sammed_data.types import ModelError, nearest
from sammed_model.types import PreprocessingName

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
CHANNEL_ORDER: dict[str, Literal["rgb", "bgr"]] = {
    "default": "rgb",
    "released": "bgr",
    "medsam": "rgb",
}
Array = TypeVar("Array", Tensor, NDArray[Any])


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a slice of height x width lies on the model's S x S pixels.

    Attributes:
        height, width: of the slice.
        scale_x, scale_y: model pixels per slice pixel.
        pad_left, pad_top: model pixels before the image.
        inner_height, inner_width: model pixels that the image covers.
        size: S.
        convention: ``center`` maps points as (x + 0.5) s - 0.5, ``corner`` as x s (released code).
    """

    height: int
    width: int
    scale_x: float
    scale_y: float
    pad_left: int
    pad_top: int
    inner_height: int
    inner_width: int
    size: int
    convention: Literal["center", "corner"]

    def to_model(self, xy: Array) -> Array:
        """(..., 2) points of the slice -> model pixels."""
        shift = 0.5 if self.convention == "center" else 0.0
        return _affine(xy, self._scale, shift, [p - shift for p in self._pad])

    def to_slice(self, xy: Array) -> Array:
        """(..., 2) points in model pixels -> the slice; the inverse of ``to_model``."""
        shift = 0.5 if self.convention == "center" else 0.0
        offset = [(shift - p) / s - shift for p, s in zip(self._pad, self._scale, strict=True)]
        return _affine(xy, [1 / s for s in self._scale], 0.0, offset)

    def boxes_to_model(self, boxes_M4: Array) -> Array:
        """Half-open boxes (..., 4) of the slice -> model pixels; edges scale, no half pixel."""
        return _affine(boxes_M4, self._scale * 2, 0.0, self._pad * 2)

    def boxes_to_slice(self, boxes_M4: Array) -> Array:
        """The inverse of ``boxes_to_model``."""
        offset = [-p / s for p, s in zip(self._pad, self._scale, strict=True)]
        return _affine(boxes_M4, [1 / s for s in self._scale] * 2, 0.0, offset * 2)

    @property
    def _scale(self) -> list[float]:
        return [self.scale_x, self.scale_y]

    @property
    def _pad(self) -> list[float]:
        return [float(self.pad_left), float(self.pad_top)]

    def masks_to_model(self, mask_MHW: Tensor | NDArray[Any]) -> Tensor:
        """(M, H, W) masks of the slice -> (M, 1, S, S) bool by the nearest pixel; padding False."""
        masks = torch.as_tensor(mask_MHW)
        if masks.shape[-2:] != (self.height, self.width):
            raise ModelError(
                f"expected masks of {self.height} x {self.width} px as their image, "
                f"found {tuple(masks.shape)}"
            )
        rows = _nearest(self.height, self.inner_height, self.convention).to(masks.device)
        columns = _nearest(self.width, self.inner_width, self.convention).to(masks.device)
        inner = (masks != 0)[:, rows][:, :, columns]
        right = self.size - self.inner_width - self.pad_left
        bottom = self.size - self.inner_height - self.pad_top
        return functional.pad(inner, (self.pad_left, right, self.pad_top, bottom))[:, None]

    def logits_to_model(self, low_res_M1hw: Tensor) -> Tensor:
        """(M, 1, h, w) -> (M, 1, S, S), bilinear."""
        return functional.interpolate(
            low_res_M1hw.float(), (self.size, self.size), mode="bilinear", align_corners=False
        )

    def logits_to_slice(self, low_res_M1hw: Tensor) -> Tensor:
        """(M, 1, h, w) logits -> (M, H, W): to S x S, padding cropped, to the slice (bilinear)."""
        whole = self.logits_to_model(low_res_M1hw)
        top, left = self.pad_top, self.pad_left
        inner = whole[:, :, top : top + self.inner_height, left : left + self.inner_width]
        if inner.shape[-2:] != (self.height, self.width):
            inner = functional.interpolate(
                inner, (self.height, self.width), mode="bilinear", align_corners=False
            )
        return inner[:, 0]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes a tensor; one object serves training, benchmark and prediction.

    Attributes:
        name: convention.
        image_size: S.
        channel_order: order in which the (RGB) channels are handed to the model.
        mean, std: per channel *by position*, in 0..255; unused by ``medsam``.
    """

    name: PreprocessingName
    image_size: int
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    @classmethod
    def named(cls, name: str, image_size: int) -> Preprocessing:
        """One of the three conventions.

        Raises:
            ModelError: unknown name.
        """
        if name not in CHANNEL_ORDER:
            raise ModelError(f"unknown preprocessing {name!r}: {nearest(name, CHANNEL_ORDER)}")
        order = CHANNEL_ORDER[name]
        return cls(name=name, image_size=image_size, channel_order=order)  # type: ignore[arg-type]

    def frame(self, height: int, width: int) -> Frame:
        """The frame of a slice of this size, without its pixels."""
        size = self.image_size
        inner_h = inner_w = size
        pad_top = pad_left = 0
        if self.name == "default":
            scale = size / max(height, width)
            inner_h = max(1, min(size, int(height * scale + 0.5)))
            inner_w = max(1, min(size, int(width * scale + 0.5)))
        elif self.name == "released" and height < size and width < size:
            inner_h, inner_w = height, width
            pad_top, pad_left = (size - height) // 2, (size - width) // 2
        return Frame(
            height=height,
            width=width,
            scale_x=inner_w / width,
            scale_y=inner_h / height,
            pad_left=pad_left,
            pad_top=pad_top,
            inner_height=inner_h,
            inner_width=inner_w,
            size=size,
            convention="corner" if self.name == "released" else "center",
        )

    def prepare(self, image: NDArray[np.uint8]) -> tuple[Tensor, Frame]:
        """An (H, W) or (H, W, 3) RGB uint8 image -> float32 (3, S, S) and its frame.

        Raises:
            ModelError: another shape or type.
        """
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
            raise ModelError(
                "expected an image of uint8, (height, width) or (height, width, 3) RGB, "
                f"found {image.dtype} {image.shape}"
            )
        if image.ndim == 3 and image.shape[2] != 3:
            raise ModelError(
                f"expected 1 or 3 channels, found {image.shape[2]} in {image.shape}: "
                "drop the alpha channel"
            )
        frame = self.frame(*image.shape[:2])
        if image.ndim == 3 and self.channel_order == "bgr":
            image = image[:, :, ::-1]
        inner = self._normalise(self._resize(image, frame))
        tensor_3SS = np.zeros((3, self.image_size, self.image_size), np.float32)
        rows = slice(frame.pad_top, frame.pad_top + frame.inner_height)
        columns = slice(frame.pad_left, frame.pad_left + frame.inner_width)
        tensor_3SS[:, rows, columns] = inner
        return torch.from_numpy(tensor_3SS), frame

    def _resize(self, image: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
        inner = (frame.inner_height, frame.inner_width)
        if image.shape[:2] == inner:
            return image
        if self.name == "released":
            rows = _nearest(frame.height, inner[0], "corner").numpy()
            columns = _nearest(frame.width, inner[1], "corner").numpy()
            taken: NDArray[np.uint8] = image[rows][:, columns]
            return taken
        larger = cv2.INTER_CUBIC if self.name == "medsam" else cv2.INTER_LINEAR
        shrinks = inner[0] < frame.height or inner[1] < frame.width
        method = cv2.INTER_AREA if shrinks else larger
        return np.asarray(cv2.resize(image, inner[::-1], interpolation=method))

    def _normalise(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W) or (H, W, 3) uint8 -> (3, H, W) float32."""
        planes = [image] * 3 if image.ndim == 2 else list(np.moveaxis(image, 2, 0))
        if self.name == "medsam":
            low, high = float(image.min()), float(image.max())
            span = max(high - low, 1e-8)
            return np.stack([((p - low) / span).astype(np.float32) for p in planes])
        levels = np.arange(256, dtype=np.float64)
        tables = [
            ((levels - m) / s).astype(np.float32) for m, s in zip(self.mean, self.std, strict=True)
        ]
        return np.stack([table[plane] for table, plane in zip(tables, planes, strict=True)])

    def placed(self, image_B3hw: Tensor, frame: Frame) -> Tensor:
        """Images of 0..255 that are already resized and in channel order -> (B, 3, S, S)."""
        x_B3hw = image_B3hw.float()
        if self.name == "medsam":
            low, high = x_B3hw.amin((1, 2, 3), True), x_B3hw.amax((1, 2, 3), True)
            x_B3hw = (x_B3hw - low) / (high - low).clamp_min(1e-8)
        else:
            mean, std = (x_B3hw.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
            x_B3hw = (x_B3hw - mean) / std
        right = self.image_size - frame.inner_width - frame.pad_left
        bottom = self.image_size - frame.inner_height - frame.pad_top
        return functional.pad(x_B3hw, (frame.pad_left, right, frame.pad_top, bottom))

    def prepare_batch(self, images: list[NDArray[np.uint8]]) -> tuple[Tensor, list[Frame]]:
        """Several images of any sizes -> (B, 3, S, S) and their frames."""
        made = [self.prepare(image) for image in images]
        return torch.stack([x for x, _ in made]), [f for _, f in made]

    def to_dict(self) -> dict[str, str]:
        """Strings for a weight file's metadata."""
        return {key: json.dumps(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, raw: Mapping[str, str]) -> Preprocessing:
        """What ``to_dict`` wrote.

        Raises:
            ModelError: not that.
        """
        try:
            values = {key: json.loads(value) for key, value in raw.items()}
            values |= {key: tuple(values[key]) for key in ("mean", "std")}
            made = cls(**values)
        except (TypeError, ValueError, KeyError) as err:
            raise ModelError(f"expected the preprocessing of a weight file, found {raw}") from err
        if made.name not in CHANNEL_ORDER:
            raise ModelError(
                f"unknown preprocessing {made.name!r}: {nearest(str(made.name), CHANNEL_ORDER)}"
            )
        return made


def _affine(xy: Array, scale: list[float], shift: float, offset: list[float]) -> Array:
    """(xy + shift) * scale + offset, in at least float32."""
    if isinstance(xy, Tensor):
        values = xy if xy.is_floating_point() else xy.float()
        factor, moved = values.new_tensor(scale), values.new_tensor(offset)
        return (values + shift) * factor + moved
    array = np.asarray(xy)
    array = array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
    placed: NDArray[Any] = (array + shift) * np.array(scale, array.dtype)
    placed += np.array(offset, array.dtype)
    return placed


def _nearest(source: int, target: int, convention: str) -> Tensor:
    """(target,) int64 source index of every target pixel.

    ``corner`` is OpenCV's rule floor(i * (1 / (target / source))) in float64: floor(i * source /
    target) differs at some sizes. ``center`` takes the pixel that holds the target's centre.
    """
    index = np.arange(target, dtype=np.float64)
    if convention == "corner":
        position = index * (1.0 / (target / source))
    else:
        position = (index + 0.5) * source / target
    return torch.from_numpy(np.minimum(np.floor(position), source - 1).astype(np.int64))
