"""ONNX files answer as the model does; skipped where the extra ``onnx`` is not installed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sammed_data.types import ModelError
from sammed_model.predictor import MaskPrompt, SammedPredictor
from sammed_model.sam import build_sam, spec_for

for _name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install sammed[onnx]")
IMAGE = np.random.default_rng(3).integers(0, 255, (90, 71, 3), dtype=np.uint8)
BOX, POINTS, LABELS = np.array([10, 8, 50, 70]), np.array([[30, 40], [5, 9]]), np.array([1, 0])
LOW = np.random.default_rng(1).normal(size=(1, 64, 64)).astype(np.float32) * 4


@pytest.fixture(scope="module", params=["sam-med2d", pytest.param("sam", marks=pytest.mark.slow)])
def both(request, tmp_path_factory):
    from sammed_model.onnx_model import export_onnx, load_onnx

    adapters = "sam-med2d" if request.param == "sam-med2d" else "none"
    # Two blocks, a windowed and a global one: exporting takes seconds a block.
    spec = replace(spec_for("vit_tiny", adapters=adapters), depth=2, global_attn_indexes=(1,))
    model = build_sam(spec, seed=3, kind=request.param)
    folder = tmp_path_factory.mktemp("onnx")
    facts = export_onnx(model, folder)
    return model, load_onnx(folder), facts, folder


def test_onnxruntime_gives_the_same_masks(both):
    model, exported, _, _ = both
    prompts = [
        MaskPrompt(image=0, box_xyxy=BOX),
        MaskPrompt(image=1, box_xyxy=BOX / 2),
        MaskPrompt(image=0, points_N2=POINTS, labels_N=LABELS),
        MaskPrompt(image=1, points_N2=POINTS[:1], labels_N=LABELS[:1]),
        MaskPrompt(image=0, points_N2=POINTS, labels_N=LABELS, box_xyxy=BOX),
        MaskPrompt(image=0, box_xyxy=BOX, mask_1hw=LOW),
        MaskPrompt(image=1, points_N2=np.tile(POINTS, (4, 1)), labels_N=np.tile(LABELS, 4)),
    ]
    answers = []
    for one in (model, exported):
        predictor = SammedPredictor(one)
        predictor.set_images([IMAGE, IMAGE[:60, :50].copy()])
        answers.append(predictor.predict_batch(prompts, return_logits=True))
    for mine, theirs in zip(*answers, strict=True):
        assert np.allclose(mine.masks_CHW, theirs.masks_CHW, atol=2e-4)
        assert np.allclose(mine.iou_C, theirs.iou_C, atol=1e-4)
        assert ((mine.masks_CHW > 0) != (theirs.masks_CHW > 0)).mean() < 1e-3
    # What the decoder calls its answer is that.
    predictor = SammedPredictor(model)
    predictor.set_image(IMAGE)
    box = predictor._frames[0].boxes_to_model(torch.tensor(BOX[None], dtype=torch.float32))
    _, _, answer = exported._decoder.run(
        None,
        {
            "embedding": predictor.get_image_embedding().numpy(),
            "point_coords": box.reshape(1, 2, 2).numpy(),
            "point_labels": np.array([[2, 3]]),
            "mask_input": np.zeros((1, 1, 64, 64), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        },
    )
    low = torch.tensor(predictor.predict_batch([prompts[0]])[0].low_res_Chw)[None]
    assert np.allclose(answer, predictor._frames[0].logits_to_model(low), atol=2e-4)


def test_files_say_what_they_are(both):
    import onnx

    from sammed_model.checkpoint import weight_digest
    from sammed_model.onnx_model import load_onnx

    model, exported, facts, folder = both
    assert exported.kind == model.kind
    assert exported.preprocessing == model.preprocessing
    assert facts["weights_sha256"] == weight_digest(model)
    for name in ("encoder.onnx", "decoder.onnx"):
        made = onnx.load(str(folder / name))
        onnx.checker.check_model(made)
        found = {p.key: p.value for p in made.metadata_props}
        assert found["image_size"] == "128"
        assert found["mask_feedback"] == model.mask_feedback
    with pytest.raises(ModelError, match="sammed export-onnx"):
        load_onnx(folder / "nowhere")
