"""The model: sizes, determinism, and decoding a batch as upstream decodes each image."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from sammed_data.types import ModelError
from sammed_model.checkpoint import weight_digest
from sammed_model.predictor import SammedPredictor
from sammed_model.sam import SPECS, SamModel, build_sam, spec_for
from sammed_model.types import DecoderOutput, Prompts, SamSpec

SIZE, LOW = 128, 64


@pytest.fixture(scope="module")
def model():
    """Tiny, with every weight that starts at zero moved away from it."""
    made = build_sam(spec_for("vit_tiny"), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture(scope="module")
def embedding(model):
    x = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return model.encode(x)


def random_prompts(kinds, m=5):
    g = torch.Generator().manual_seed(len(kinds))
    boxes = torch.rand(m, 4, generator=g) * 60
    given = {
        "points": {
            "points_MN2": torch.rand(m, 4, 2, generator=g) * SIZE,
            "point_labels_MN": torch.randint(-1, 2, (m, 4), generator=g),
        },
        "boxes": {"boxes_M4": boxes + torch.tensor([0.0, 0, 60, 60])},
        "mask": {"mask_M1hw": torch.randn(m, 1, LOW, LOW, generator=g)},
    }
    index = torch.tensor([2, 0, 0, 1, 2])[:m]
    fields = {k: v for kind in kinds for k, v in given[kind].items()}
    return Prompts(image_index_M=index, **fields)


def upstream(model, embedding, prompts):
    """Every mask on its own through upstream's prompt encoder and decoder."""
    low, iou = [], []
    for m, image in enumerate(prompts.image_index_M.tolist()):
        one = slice(m, m + 1)
        points = None
        if prompts.points_MN2 is not None:
            points = (prompts.points_MN2[one], prompts.point_labels_MN[one])
        sparse, dense = model.prompt_encoder(
            points=points,
            boxes=None if prompts.boxes_M4 is None else prompts.boxes_M4[one],
            masks=None if prompts.mask_M1hw is None else prompts.mask_M1hw[one],
        )
        masks, quality = model.mask_decoder.predict_masks(
            image_embeddings=embedding[image : image + 1],
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        low.append(masks)
        iou.append(quality)
    return torch.cat(low), torch.cat(iou)


COMBINATIONS = [
    (),
    ("points",),
    ("boxes",),
    ("mask",),
    ("points", "boxes"),
    ("points", "mask"),
    ("boxes", "mask"),
    ("points", "boxes", "mask"),
]


@pytest.mark.parametrize("kinds", COMBINATIONS, ids=lambda k: "+".join(k) or "none")
def test_a_batch_of_images_decodes_as_upstream_decodes_each(model, embedding, kinds):
    prompts = random_prompts(kinds)
    with torch.inference_mode():
        got = model.decode(embedding, prompts)
        low, iou = upstream(model, embedding, prompts)
    assert float((got.low_res_MKhw - low).norm() / low.norm()) < 1.5e-6
    assert float((got.iou_MK - iou).norm() / iou.norm()) < 1.5e-6
    assert got.low_res_MKhw.shape == (5, 4, LOW, LOW)


def test_gradients_are_upstreams_and_every_prompt_embedding_learns(model, embedding):
    prompts = random_prompts(("points",), m=4)
    parts = (model.prompt_encoder, model.mask_decoder)
    parameters = {n: p for part in parts for n, p in part.named_parameters()}
    moved = []
    for decode in (
        lambda: model.decode(embedding.clone(), prompts).low_res_MKhw,
        lambda: upstream(model, embedding.clone(), prompts)[0],
    ):
        model.zero_grad(set_to_none=True)
        decode().square().mean().backward()
        moved.append({n: p.grad for n, p in parameters.items() if p.grad is not None})
    assert moved[0].keys() == moved[1].keys()
    largest = max(g.abs().max() for g in moved[1].values())
    for name, gradient in moved[0].items():
        assert (gradient - moved[1][name]).abs().max() < 1e-5 * largest, name
    for name in ("point_embeddings.0", "point_embeddings.1", "not_a_point_embed"):
        assert moved[0][f"{name}.weight"].abs().max() > 0


def test_prompts_are_encoded_in_float32_under_autocast(model, embedding):
    prompts = random_prompts(("points", "boxes"))
    with torch.inference_mode():
        full = model.decode(embedding, prompts)
        with torch.autocast("cpu", torch.bfloat16):
            half = model.decode(embedding, prompts)
    difference = (half.low_res_MKhw.float() - full.low_res_MKhw).norm()
    assert float(difference / full.low_res_MKhw.norm()) < 3e-2


def test_best_takes_the_highest_iou_of_the_alternatives_never_the_single_mask():
    low = torch.arange(2 * 4, dtype=torch.float32).reshape(2, 4, 1, 1).expand(2, 4, 3, 5)
    iou = torch.tensor([[9.0, 0.1, 0.7, 0.3], [9.0, -1, -3, -2]])
    chosen, quality = DecoderOutput(low_res_MKhw=low, iou_MK=iou).best()
    assert chosen.shape == (2, 1, 3, 5)
    assert chosen[:, 0, 0, 0].tolist() == [2, 5]
    assert quality.tolist() == pytest.approx([0.7, -1])
    single = DecoderOutput(low_res_MKhw=low, iou_MK=iou, single_mask=True).best()
    assert single[0][:, 0, 0, 0].tolist() == [0, 4]


def test_kind_decides_what_the_mask_prompt_holds(model):
    low = torch.tensor([[[[-40.0, 0, 3]]]])
    assert torch.equal(model.feedback(low), low)
    trained = build_sam(spec_for("vit_tiny"), kind="sam-med2d")
    assert torch.equal(trained.feedback(low), low.sigmoid())


def test_weights_depend_on_the_seed_alone_and_leave_the_global_stream():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = build_sam(spec_for("vit_tiny", adapters="sam-med2d"), seed=7)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    b = build_sam(spec_for("vit_tiny", adapters="sam-med2d"), seed=7)
    c = build_sam(spec_for("vit_tiny", adapters="sam-med2d"), seed=8)
    assert weight_digest(a) == weight_digest(b) != weight_digest(c)


@pytest.mark.parametrize(
    ("name", "size", "adapters", "count"),
    [
        ("vit_b", 1024, "none", 93_735_472),
        ("vit_b", 256, "none", 90_737_200),
        ("vit_b", 256, "sam-med2d", 271_241_776),
    ],
)
def test_published_parameter_counts(name, size, adapters, count):
    with torch.device("meta"):
        model = SamModel(spec_for(name, image_size=size, adapters=adapters))
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_spec_builds_and_the_tiny_one_is_tiny(name):
    with torch.device("meta"):
        model = SamModel(spec_for(name))
    count = sum(p.numel() for p in model.parameters())
    assert (1.3e6 < count < 1.7e6) if name == "vit_tiny" else count > 9e7
    assert model.spec.low_res_size == 4 * model.spec.embedding_size


def test_other_image_sizes_run():
    model = build_sam(spec_for("vit_tiny", image_size=96))
    with torch.inference_mode():
        embedding = model.encode(torch.zeros(1, 3, 96, 96))
        output = model.decode(embedding, Prompts(image_index_M=torch.zeros(2, dtype=torch.int64)))
    assert embedding.shape == (1, 64, 12, 12)
    assert output.low_res_MKhw.shape == (2, 4, 48, 48)


def test_refusals_say_what_was_expected(model, embedding):
    with pytest.raises(ModelError, match="multiple of its patch of 16"):
        spec_for("vit_b", image_size=250)
    with pytest.raises(ModelError, match="did you mean"):
        spec_for("vit_bb")
    with pytest.raises(ModelError, match="3 x 128 x 128, found"):
        model.encode(torch.zeros(1, 3, 96, 128))
    index = torch.zeros(2, dtype=torch.int64)
    large = Prompts(image_index_M=index, mask_M1hw=torch.zeros(2, 1, SIZE, SIZE))
    with pytest.raises(ModelError, match="mask prompt of 64 x 64"):
        model.decode(embedding, large)
    with pytest.raises(ModelError, match="boxes_M4 of 2 masks must be 2 x 4"):
        Prompts(image_index_M=index, boxes_M4=torch.zeros(3, 4))
    with pytest.raises(ModelError, match="coordinates and labels"):
        Prompts(image_index_M=index, points_MN2=torch.zeros(2, 1, 2))
    with pytest.raises(ModelError, match="unknown kind"):
        SamModel(spec_for("vit_tiny"), kind="sam2")


def test_a_torchvision_that_does_not_fit_is_one_sentence(monkeypatch):
    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == "segment_anything":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ModelError, match="install torch and torchvision"):
        build_sam(spec_for("vit_tiny"))


def test_spec_is_hashable_and_frozen():
    assert isinstance(hash(SPECS["vit_b"]), int)
    with pytest.raises(AttributeError):
        SPECS["vit_b"].depth = 3
    assert isinstance(SPECS["vit_b"], SamSpec)


# ---------------------------------------------------------------- predictor


@pytest.fixture
def predictor(model):
    made = SammedPredictor(model)
    made.set_image(np.random.default_rng(0).integers(0, 255, (70, 110, 3), dtype=np.uint8))
    return made


def test_predictor_answers_in_pixels_of_the_image(predictor):
    masks, iou, low = predictor.predict(
        point_coords=np.array([[50, 30], [5, 8]]), point_labels=np.array([1, 0])
    )
    assert masks.shape == (3, 70, 110)
    assert masks.dtype == bool
    assert iou.shape == (3,)
    assert low.shape == (3, LOW, LOW)


def test_many_boxes_in_one_call_are_each_box_alone(predictor):
    boxes = np.array([[10, 5, 60, 40], [0, 0, 110, 70], [70, 30, 100, 66]])
    together = predictor.predict(box=boxes, return_logits=True)
    assert together[0].shape == (3, 3, 70, 110)
    for i, box in enumerate(boxes):
        alone = predictor.predict(box=box, return_logits=True)
        assert np.allclose(together[0][i], alone[0], atol=1e-4)
        assert np.allclose(together[1][i], alone[1], atol=1e-5)
    again = predictor.predict(box=boxes, mask_input=together[2][:, :1])
    assert again[0].shape == (3, 3, 70, 110)


def test_predictor_reads_bgr_and_refuses_what_does_not_fit(predictor, model):
    image = np.random.default_rng(1).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    predictor.set_image(image)
    rgb = predictor.get_image_embedding()
    predictor.set_image(image[:, :, ::-1], image_format="BGR")
    assert torch.equal(rgb, predictor.get_image_embedding())
    with pytest.raises(ModelError, match="point_coords 2, .*box 3"):
        predictor.predict(
            point_coords=np.zeros((2, 1, 2)), point_labels=np.ones((2, 1)), box=np.zeros((3, 4))
        )
    with pytest.raises(ModelError, match="call set_image first"):
        SammedPredictor(model).predict(box=np.array([0, 0, 5, 5]))
    with pytest.raises(ModelError, match="RGB or BGR"):
        predictor.set_image(image, image_format="HSV")
