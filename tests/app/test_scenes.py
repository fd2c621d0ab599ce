"""Scenes for pre-training: the same for a name, several objects, nothing medical needed."""

from __future__ import annotations

import numpy as np
import torch

from sammed_app.pretrain import Pretraining, SceneSamples, Stage, pretrain
from sammed_app.scenes import collate, make_scene, scene_batches
from sammed_model.checkpoint import load_model
from sammed_model.frame import Preprocessing
from sammed_model.validate import validate


def test_a_scene_depends_on_its_name():
    one, again, other = make_scene("a"), make_scene("a"), make_scene("b")
    assert np.array_equal(one.image_HW3, again.image_HW3)
    assert np.array_equal(one.masks_MHW, again.masks_MHW)
    assert one.image_HW3.shape != other.image_HW3.shape or (one.image_HW3 != other.image_HW3).any()


def test_objects_are_visible_and_apart():
    shapes = set()
    for n in range(40):
        scene = make_scene(f"s{n}", 96)
        shapes.add(scene.image_HW3.shape)
        assert max(scene.image_HW3.shape[:2]) == 96
        assert scene.masks_MHW.shape[1:] == scene.image_HW3.shape[:2]
        assert scene.masks_MHW.sum(axis=0).max() <= 1
        assert (scene.masks_MHW.sum(axis=(1, 2)) >= 0.003 * scene.masks_MHW[0].size).all()
    assert len(shapes) > 20  # not one size, not square


def test_batches_are_repeatable_and_differ():
    preprocessing = Preprocessing.named("default", 64)

    def first_two():
        made = scene_batches(preprocessing, name="t", seed=1, batch_images=3, masks_per_image=2)
        return [next(made), next(made)]

    a, b = first_two()
    c, _ = first_two()
    assert torch.equal(a.images_B3SS, c.images_B3SS)
    assert torch.equal(a.seeds_M, c.seeds_M)
    assert a.images_B3SS.shape == (3, 3, 64, 64)
    assert not torch.equal(a.images_B3SS, b.images_B3SS)
    assert b.position == (0, 1)
    assert a.masks_M1SS.flatten(1).any(dim=1).all()


def test_padding_is_not_valid():
    scene = make_scene("p", 64)
    batch = collate(Preprocessing.named("default", 64), [scene], 4, 0)
    height, width = scene.masks_MHW.shape[1:]
    assert batch.valid_B1SS[0, 0].sum() == height * width


def test_pretraining_runs_through_its_stages(tmp_path):
    """Two sizes, one file, a log of losses and Dice."""
    plan = Pretraining(
        stages=(
            Stage(image_size=64, steps=2, batch_images=2, passes=1, lr=1e-3),
            Stage(image_size=128, steps=1, batch_images=1, passes=2, lr=1e-3),
        ),
        box_steps=2,
        validation_scenes=2,
    )
    lines: list[str] = []
    out = tmp_path / "w" / "tiny.safetensors"
    pretrain(out, plan, tell=lines.append)
    model = load_model(out)
    assert (model.kind, model.spec.name, model.spec.image_size) == ("sam", "vit_tiny", 128)
    assert model.metadata["recipe"] == "tiny"
    assert out.with_suffix(".log.jsonl").read_text().splitlines() == lines
    samples = SceneSamples([make_scene("v1"), make_scene("v2")])
    found = validate(model, samples, ("bbox", "1pt"), masks_per_image=2)
    assert found.n_masks >= 2
