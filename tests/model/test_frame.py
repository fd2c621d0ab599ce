"""Slice pixels to model pixels and back, in each convention; never square, never the same scale."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from golden_fill import MEAN, STD

from sammed_data.types import ModelError
from sammed_model.frame import Preprocessing

NAMES = ("default", "released", "medsam")
SIZES = [(50, 77), (301, 190), (128, 40), (129, 128), (512, 700)]


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def disc(height, width):
    y, x = np.mgrid[:height, :width]
    return ((y - height * 0.6) ** 2 + (x - width * 0.4) ** 2) <= (min(height, width) / 4) ** 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_points_and_boxes_come_back(name, size):
    frame = Preprocessing.named(name, 128).frame(*size)
    xy = np.random.default_rng(1).random((5, 3, 2)) * size[::-1]
    assert np.allclose(frame.to_slice(frame.to_model(xy)), xy)
    moved = frame.to_model(torch.from_numpy(xy).float())
    assert moved.dtype == torch.float32
    assert torch.allclose(frame.to_slice(moved), torch.from_numpy(xy).float(), atol=1e-3)
    boxes = np.array([[0, 0, size[1], size[0]], [3, 4, 10, 20]])
    assert np.allclose(frame.boxes_to_slice(frame.boxes_to_model(boxes)), boxes)
    whole = frame.boxes_to_model(boxes)[0]
    left, top = frame.pad_left, frame.pad_top
    inner = [left, top, left + frame.inner_width, top + frame.inner_height]
    assert np.allclose(whole, inner)


def test_default_maps_pixel_centres_and_released_scales_coordinates():
    default = Preprocessing.named("default", 128).frame(64, 32)
    assert default.to_model(np.array([0.0, 0])).tolist() == [0.5, 0.5]
    released = Preprocessing.named("released", 128).frame(256, 512)
    assert released.to_model(np.array([100, 100])).tolist() == [25, 50]
    padded = Preprocessing.named("released", 128).frame(61, 90)
    assert padded.to_model(np.array([0, 0])).tolist() == [19, 33]
    assert (padded.scale_x, padded.scale_y) == (1, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_lies_where_its_points_lie(name, size):
    """The centre of mass maps as a point does, and the padding holds nothing."""
    frame = Preprocessing.named(name, 128).frame(*size)
    mask = disc(*size)
    on_model = frame.masks_to_model(mask[None])
    assert on_model.shape == (1, 1, 128, 128)
    assert on_model.dtype == torch.bool
    y, x = np.nonzero(mask)
    ym, xm = np.nonzero(on_model[0, 0].numpy())
    # The corner convention is off by half a pixel of the coarser grid, as published.
    slack = 0.35 if name != "released" else 0.65 * max(1, frame.scale_x, frame.scale_y)
    centre = frame.to_model(np.array([x.mean(), y.mean()]))
    assert np.abs(centre - [xm.mean(), ym.mean()]).max() < slack
    assert frame.masks_to_model(np.ones((1, *size), bool)).sum() == (
        frame.inner_height * frame.inner_width
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_logits_come_back_onto_the_slice(name, size):
    frame = Preprocessing.named(name, 128).frame(*size)
    mask = disc(*size)
    on_model = frame.masks_to_model(mask[None]).float() * 8 - 4
    low = torch.nn.functional.avg_pool2d(on_model, 2)
    back = frame.logits_to_slice(low)
    assert back.shape == (1, *size)
    found = back[0].numpy() > 0
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.95


def test_released_resize_is_opencvs_nearest_rule_at_every_size():
    for size in range(129, 1100, 7):
        frame = Preprocessing.named("released", 128).frame(size, 300)
        column = (np.arange(size) % 251).astype(np.uint8)[:, None].repeat(300, 1)
        want = cv2.resize(column, (128, 128), interpolation=cv2.INTER_NEAREST)
        tensor, _ = Preprocessing.named("released", 128).prepare(column)
        got = np.rint(tensor[0].numpy() * STD[0] + MEAN[0])
        assert np.array_equal(got, want), size
        assert torch.equal(
            frame.masks_to_model((column > 100)[None])[0, 0], torch.from_numpy(want > 100)
        )


@pytest.mark.parametrize("size", [(200, 310), (90, 61)])
def test_released_tensor_is_normalise_first_then_resize_or_pad_in_bgr(size):
    image = noise(*size)
    x = (image[:, :, ::-1].astype(np.float64) - MEAN) / STD
    if max(size) > 128:
        want = cv2.resize(x, (128, 128), interpolation=cv2.INTER_NEAREST)
    else:
        want = np.zeros((128, 128, 3))
        top, left = (128 - size[0]) // 2, (128 - size[1]) // 2
        want[top : top + size[0], left : left + size[1]] = x
    got, _ = Preprocessing.named("released", 128).prepare(image)
    assert np.array_equal(got.numpy(), want.transpose(2, 0, 1).astype(np.float32))


def test_default_keeps_the_aspect_and_pads_with_zeros_after_normalising():
    tensor, frame = Preprocessing.named("default", 128).prepare(
        np.full((100, 200, 3), 255, np.uint8)
    )
    assert (frame.inner_height, frame.inner_width) == (64, 128)
    white = torch.tensor([(255 - m) / s for m, s in zip(MEAN, STD, strict=True)]).float()
    assert torch.allclose(tensor[:, :64], white[:, None, None].expand(3, 64, 128))
    assert not tensor[:, 64:].any()


def test_default_averages_when_it_shrinks():
    """A pattern of single pixels becomes its mean, not an alias."""
    board = (np.indices((256, 384)).sum(0) % 2 * 255).astype(np.uint8)
    tensor, _ = Preprocessing.named("default", 128).prepare(board)
    inner = tensor[0, :85] * STD[0] + MEAN[0]
    assert (inner - 127.5).abs().max() < 30


def test_grey_equals_grey_rgb_and_colour_order_matters():
    grey = noise(60, 45, channels=0)
    for name in NAMES:
        pre = Preprocessing.named(name, 128)
        assert torch.equal(pre.prepare(grey)[0], pre.prepare(np.stack([grey] * 3, 2))[0])
    red = np.zeros((20, 30, 3), np.uint8)
    red[:, :, 0] = 255
    assert Preprocessing.named("default", 128).prepare(red)[0][0].max() > 2
    assert Preprocessing.named("released", 128).prepare(red)[0][2].max() > 2


def test_medsam_stretches_and_scales_by_the_image_itself():
    image = noise(40, 90) // 4 + 30
    tensor, frame = Preprocessing.named("medsam", 128).prepare(image)
    assert (frame.inner_height, frame.inner_width) == (128, 128)
    assert (float(tensor.min()), float(tensor.max())) == (0, 1)
    flat, _ = Preprocessing.named("medsam", 128).prepare(np.full((9, 5), 77, np.uint8))
    assert not flat.any()


@pytest.mark.parametrize("name", NAMES)
def test_description_comes_back(name):
    pre = Preprocessing.named(name, 96)
    raw = pre.to_dict()
    assert all(isinstance(v, str) for v in raw.values())
    assert Preprocessing.from_dict(raw) == pre
    with pytest.raises(ModelError, match="expected the preprocessing"):
        Preprocessing.from_dict({**raw, "gamma": "2"})
    with pytest.raises(ModelError, match="unknown preprocessing"):
        Preprocessing.from_dict({**raw, "name": '"other"'})


def test_batches_and_tiny_images():
    pre = Preprocessing.named("default", 128)
    tensor, frames = pre.prepare_batch([noise(30, 40), noise(1, 300, channels=0)])
    assert tensor.shape == (2, 3, 128, 128)
    assert frames[1].inner_height == 1
    low = torch.randn(2, 1, 64, 64)
    assert frames[1].logits_to_slice(low).shape == (2, 1, 300)


def test_refusals():
    pre = Preprocessing.named("default", 128)
    with pytest.raises(ModelError, match="uint8"):
        pre.prepare(noise(20, 30).astype(np.float32))
    with pytest.raises(ModelError, match="drop the alpha"):
        pre.prepare(noise(20, 30, channels=4))
    with pytest.raises(ModelError, match="20 x 30 px as their image"):
        pre.frame(20, 30).masks_to_model(np.zeros((1, 30, 20), bool))
    with pytest.raises(ModelError, match="did you mean"):
        Preprocessing.named("relased", 128)
