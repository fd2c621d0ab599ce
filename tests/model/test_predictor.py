"""SammedPredictor against upstream's SamPredictor on the same weights, and its batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sammed_data.types import ModelError
from sammed_model.frame import Preprocessing
from sammed_model.predictor import MaskPrompt, SammedPredictor
from sammed_model.sam import build_sam, spec_for

SIZE = 128
IMAGE = np.random.default_rng(3).integers(0, 255, (96, SIZE, 3), dtype=np.uint8)
BOX = np.array([20, 15, 90, 80])
POINTS, LABELS = np.array([[50, 40], [100, 20]]), np.array([1, 0])
TOLERANCE = 2e-5  # logits reach 20; the fast encoder adds in another order


@pytest.fixture(scope="module")
def model():
    return build_sam(spec_for("vit_tiny"), seed=1, kind="sam").eval()


@pytest.fixture(scope="module")
def upstream(model):
    from segment_anything import SamPredictor
    from segment_anything.modeling import Sam

    sam = Sam(model.image_encoder, model.prompt_encoder, model.mask_decoder).eval()
    return SamPredictor(sam)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize(
    "asked",
    [
        {"box": BOX},
        {"point_coords": POINTS, "point_labels": LABELS},
        {"point_coords": POINTS, "point_labels": LABELS, "box": BOX},
    ],
    ids=["box", "points", "points-box"],
)
def test_same_names_shapes_types_and_numbers_as_upstream(model, upstream, asked, logits, multimask):
    """The longest side is the model's, where upstream's mapping of points is ours."""
    ours = SammedPredictor(model)
    for predictor in (ours, upstream):
        predictor.set_image(IMAGE)
    assert ours.is_image_set
    assert torch.allclose(ours.get_image_embedding(), upstream.get_image_embedding(), atol=1e-5)
    asked = {**asked, "multimask_output": multimask, "return_logits": logits}
    for _ in range(2):  # the second time with the mask prompt of the first
        found, wanted = ours.predict(**asked), upstream.predict(**asked)
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine.shape == theirs.shape
            assert mine.dtype == theirs.dtype
            if mine.dtype == bool:
                assert (mine != theirs).mean() < 1e-3
            else:
                assert np.allclose(mine, theirs, atol=TOLERANCE)
        asked["mask_input"] = found[2][:1]
    ours.reset_image()
    assert not ours.is_image_set


def test_torch_door_equals_upstream_at_another_size(model, upstream):
    """``set_torch_image`` and ``predict_torch`` take model pixels, so no mapping is between."""
    original = (150, 111)
    scale = SIZE / 150
    resized = torch.randint(0, 255, (1, 3, SIZE, round(111 * scale)), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 12.0, 70.0, 90.0], [30.0, 5.0, 60.0, 44.0]])
    answers = []
    for predictor in (SammedPredictor(model), upstream):
        predictor.set_torch_image(resized, original)
        answers.append(predictor.predict_torch(None, None, boxes, return_logits=True))
    for mine, theirs in zip(*answers, strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(mine, theirs, atol=TOLERANCE)
    with pytest.raises(ModelError, match="1 x 3 x 128 x 95"):
        SammedPredictor(model).set_torch_image(resized[:, :, :-1], original)


@pytest.mark.parametrize("name", ["default", "released", "medsam"])
def test_torch_door_normalises_as_prepare_does(name):
    preprocessing = Preprocessing.named(name, SIZE)
    image = IMAGE[:, :60]
    x_3SS, frame = preprocessing.prepare(image)
    scaled = preprocessing._resize(image, frame)
    scaled = scaled[:, :, ::-1].copy() if preprocessing.channel_order == "bgr" else scaled
    tensor = torch.as_tensor(scaled).permute(2, 0, 1)[None]
    assert torch.allclose(preprocessing.placed(tensor, frame)[0], x_3SS, atol=1e-5)


@pytest.mark.parametrize("kind", ["sam", "sam-med2d", "medsam"])
def test_a_batch_of_images_and_prompts_is_each_alone(kind):
    model = build_sam(spec_for("vit_tiny"), seed=2, kind=kind)
    images = [IMAGE, IMAGE[:70, :50, 0].copy(), IMAGE[::-1, 10:].copy()]
    low = np.random.default_rng(1).normal(size=(1, 64, 64)).astype(np.float32)
    prompts = [
        MaskPrompt(image=2, box_xyxy=BOX),
        MaskPrompt(image=0, points_N2=POINTS, labels_N=LABELS),
        MaskPrompt(image=1, box_xyxy=np.array([3, 4, 40, 60])),
        MaskPrompt(image=0, box_xyxy=BOX, mask_1hw=low),
        MaskPrompt(image=2, points_N2=POINTS[:1], labels_N=LABELS[:1], box_xyxy=BOX),
    ]
    together = SammedPredictor(model)
    together.set_images(images)
    answers = together.predict_batch(prompts, return_logits=True)
    alone = SammedPredictor(model)
    for prompt, answer in zip(prompts, answers, strict=True):
        alone.set_image(images[prompt.image])
        single = alone.predict(
            prompt.points_N2,
            prompt.labels_N,
            prompt.box_xyxy,
            prompt.mask_1hw,
            multimask_output=kind != "medsam",
            return_logits=True,
        )
        if kind == "sam-med2d":  # its one answer is the alternative of the highest predicted IoU
            asked = (prompt.points_N2, prompt.labels_N, prompt.box_xyxy, prompt.mask_1hw)
            assert np.array_equal(alone.predict(*asked, False)[1], single[1].max(keepdims=True))
        pick = single[1].argmax()
        assert answer.masks_CHW.shape == (1, *images[prompt.image].shape[:2])
        assert np.allclose(answer.masks_CHW[0], single[0][pick], atol=1e-4)
        assert np.allclose(answer.iou_C[0], single[1][pick], atol=1e-5)
        assert answer.low_res_Chw.dtype == np.float32
    assert together.predict_batch(prompts[:1], multimask_output=True)[0].masks_CHW.shape[0] == 3
    with pytest.raises(ModelError, match="images 0..2"):
        together.predict_batch([MaskPrompt(image=3, box_xyxy=BOX)])
    with pytest.raises(ModelError, match="use predict_batch"):
        together.predict(box=BOX)


@pytest.mark.parametrize("adapters", ["none", "sam-med2d"])
def test_half_precision_holds_the_tolerance(adapters):
    """conventions.md: 1.5e-2 on embeddings, 3e-2 on low-res logits (relative, as measured)."""
    kind = "sam-med2d" if adapters != "none" else "sam"
    model = build_sam(spec_for("vit_tiny", adapters=adapters), seed=4, kind=kind)
    full, half = SammedPredictor(model), SammedPredictor(model, precision="bf16")
    answers = []
    for predictor in (full, half):
        predictor.set_image(IMAGE)
        answers.append(predictor.predict(box=BOX, return_logits=True))
    assert half.get_image_embedding().dtype == torch.float32
    assert not torch.equal(full.get_image_embedding(), half.get_image_embedding())
    assert _off(half.get_image_embedding(), full.get_image_embedding()) < 1.5e-2
    assert _off(torch.tensor(answers[1][2]), torch.tensor(answers[0][2])) < 3e-2
    with pytest.raises(ModelError, match="fp32 or bf16"):
        SammedPredictor(model, precision="fp16")


def _off(found, wanted):
    return float((found - wanted).norm() / wanted.norm())
