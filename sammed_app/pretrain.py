"""Pre-training of the small SAM on procedural scenes: what made the weights we ship.

Run it as ``python -m sammed_app.pretrain --out FILE``; ``sammed demo --from-scratch`` does too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from sammed_app.scenes import Scene, make_scene, scene_batches
from sammed_data.corpus import MaskRow, Row
from sammed_model.adapters import train_only
from sammed_model.checkpoint import load_model, save_model
from sammed_model.config import TrainConfig, ValidationMode
from sammed_model.dataset import Samples
from sammed_model.losses import FOCAL_WEIGHT, dice_per_mask, focal_per_mask
from sammed_model.optim import learning_rate, make_optimiser, set_rate, trainable
from sammed_model.prompts import prompt_seed, uniform
from sammed_model.sam import SamModel, build_sam, spec_for
from sammed_model.step import train_on_batches
from sammed_model.types import Prompts, SamSpec
from sammed_model.validate import Validation, validate

MODES: tuple[ValidationMode, ...] = ("bbox", "1pt", "5pt")
_LOG_EVERY = 50
_BOXES = 64
_BOX_LR = 2e-3
_VALIDATIONS = 4


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training with a schedule of its own.

    Attributes:
        image_size: side of the pictures in px.
        passes: prompts in a row for each mask.
    """

    image_size: int
    steps: int
    batch_images: int
    passes: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How long and how: the defaults are those of the shipped weights.

    The decoder alone first learns what a box is (``box_steps``, no pictures): from random numbers
    the whole model answers 'nothing' for a long time. Small pictures follow, at a quarter of the
    cost of large ones.
    """

    box_steps: int = 400
    stages: tuple[Stage, ...] = (
        Stage(image_size=64, steps=900, batch_images=16, passes=1, lr=1e-3),
        Stage(image_size=128, steps=250, batch_images=8, passes=3, lr=4e-4),
    )
    masks_per_image: int = 4
    validation_scenes: int = 64
    seed: int = 0

    def shortened(self, steps: int) -> Pretraining:
        """The same with at most so many steps in each stage, to see that it runs."""
        stages = tuple(replace(s, steps=min(steps, s.steps)) for s in self.stages)
        return replace(
            self, stages=stages, box_steps=min(steps, self.box_steps), validation_scenes=4
        )


class SceneSamples(Samples):
    """Scenes in the place of a corpus, for validation."""

    def __init__(self, scenes: list[Scene]) -> None:
        self.rows = [_row(scene) for scene in scenes]
        self.masks = {row.sample_id: row.masks for row in self.rows}

    def pixels(self, row: Row) -> tuple[Row, object, str]:  # type: ignore[override]
        """The row, which has its pixels already."""
        return row, row.image, row.sample_id


def pretrain(
    out: Path, plan: Pretraining | None = None, *, tell: Callable[[str], None] = lambda line: None
) -> SamModel:
    """Train every weight of a fresh ``vit_tiny`` on scenes and write it.

    Args:
        out: ``.safetensors``; ``<out>.log.jsonl`` gets the losses and the Dice on other scenes.
        plan: how long.
        tell: gets each line of the log.
    """
    plan = plan or Pretraining()
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_suffix(".log.jsonl")
    log.unlink(missing_ok=True)

    def note(**values: object) -> None:
        line = json.dumps(values)
        with log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        tell(line)

    model = build_sam(spec_for("vit_tiny", image_size=plan.stages[0].image_size), plan.seed)
    _learn_boxes(model, plan, note)
    for number, stage in enumerate(plan.stages):
        if number:
            model = load_model(out, image_size=stage.image_size)
        note(stage=number, **vars(stage), masks_per_image=plan.masks_per_image, seed=plan.seed)
        _stage(model, plan, number, note)
        save_model(model, out, recipe="tiny", extra={"source": "procedural scenes"})
    return model


def _learn_boxes(model: SamModel, plan: Pretraining, note: Callable[..., None]) -> None:
    """Prompt encoder and decoder learn, without pictures, to fill the ellipse of a box."""
    train_only(model, "ft-sam")
    config = TrainConfig(method="ft-sam", steps=max(1, plan.box_steps), lr=_BOX_LR, warmup=50)
    optimiser = make_optimiser(model, config)
    embedding = torch.zeros(1, model.spec.out_chans, *[model.spec.embedding_size] * 2)
    for step in range(plan.box_steps):
        set_rate(optimiser, learning_rate(config, step, step / plan.box_steps))
        boxes_M4, truth_MP = _ellipses(model.spec, plan.seed, step)
        index_M = torch.zeros(len(boxes_M4), dtype=torch.int64)
        output = model.decode(embedding, Prompts(image_index_M=index_M, boxes_M4=boxes_M4))
        tokens = output.low_res_MKhw.flatten(2).unbind(1)  # all of them: none may be left behind
        losses = [
            FOCAL_WEIGHT * focal_per_mask(logits, truth_MP) + dice_per_mask(logits, truth_MP)
            for logits in tokens
        ]
        loss = torch.stack(losses).mean()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trainable(model).values(), config.clip_norm)
        optimiser.step()
        if (step + 1) % _LOG_EVERY == 0:
            note(box_step=step + 1, loss=round(float(loss.detach()), 4))
    model.kind = "sam"


def _ellipses(spec: SamSpec, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Random boxes (M, 4) in model pixels, and the ellipse of each at low-res size, (M, pixels)."""
    unit_M4 = uniform(torch.tensor([prompt_seed("box", 0, "scenes", step, seed)]), 4 * _BOXES)
    draw = unit_M4.reshape(_BOXES, 4).float() * spec.image_size
    centre, half = 0.15 * spec.image_size + 0.7 * draw[:, :2], 0.03 * spec.image_size
    half_M2 = half + 0.3 * draw[:, 2:]
    boxes = torch.cat([centre - half_M2, centre + half_M2], dim=1).clamp(0, spec.image_size)
    middle, radius = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    pixel = spec.image_size / spec.low_res_size
    place = (torch.arange(spec.low_res_size) + 0.5) * pixel
    u, v = ((place - m[:, None]) / r[:, None] for m, r in zip(middle.T, radius.T, strict=True))
    inside = u[:, None, :] ** 2 + v[:, :, None] ** 2 <= 1
    return boxes, inside.float().flatten(1)


def _stage(model: SamModel, plan: Pretraining, number: int, note: Callable[..., None]) -> None:
    stage = plan.stages[number]
    train_only(model, "full")
    model.train()
    names = [f"validation/{n}" for n in range(plan.validation_scenes)]
    held_out = SceneSamples([make_scene(name, stage.image_size) for name in names])
    for step, loss in _steps(model, plan, number):
        if step % _LOG_EVERY == 0:
            note(step=step, loss=round(loss, 4), cpu_seconds=round(time.process_time()))
        if step % max(1, stage.steps // _VALIDATIONS) == 0:
            note(step=step, dice=_rounded(_score(model, held_out)))


def _steps(model: SamModel, plan: Pretraining, number: int) -> Iterator[tuple[int, float]]:
    """``(step, running mean of the loss)`` after each batch of a stage."""
    stage = plan.stages[number]
    config = TrainConfig(
        method="full",
        steps=stage.steps,
        batch_images=stage.batch_images,
        masks_per_image=plan.masks_per_image,
        passes=stage.passes,
        lr=stage.lr,
        warmup=min(100, 1 + stage.steps // 5),
        weight_decay=0.02,
        seed=plan.seed,
    )
    batches = scene_batches(
        model.preprocessing,
        name=f"{plan.seed}/{number}",
        seed=plan.seed,
        batch_images=stage.batch_images,
        masks_per_image=plan.masks_per_image,
    )
    mean: float | None = None
    results = train_on_batches(model, batches, config, total_steps=stage.steps)
    for step, result in enumerate(results, 1):
        mean = result.loss if mean is None else mean + 0.05 * (result.loss - mean)
        yield step, mean


def _score(model: SamModel, samples: SceneSamples) -> Validation:
    model.eval()
    found = validate(model, samples, MODES, masks_per_image=4)
    model.train()
    return found


def _rounded(found: Validation) -> dict[str, float]:
    return {mode: round(value, 4) for mode, value in found.dice.items()}


def _row(scene: Scene) -> Row:
    """A scene as a row of a corpus; what does not exist for it is empty."""
    masks = []
    for index, mask_HW in enumerate(scene.masks_MHW):
        y, x = mask_HW.nonzero()
        masks.append(
            MaskRow(
                index=index,
                label="object",
                structure="object",
                organ="",
                group="",
                kind="",
                side="",
                instance=index,
                annotator=1,
                n_components=1,
                area_px=len(y),
                box_xyxy=(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1),
                touches_border=False,
                mask_HW=mask_HW,
            )
        )
    height, width = scene.masks_MHW.shape[1:]
    return Row(
        sample_id=scene.name,
        dataset="scenes",
        modality="photograph",
        split="validation",
        height=height,
        width=width,
        masks=tuple(masks),
        meta={},
        image=scene.image_HW3,
    )


def main(
    out: Annotated[Path, typer.Option(help="Weight file to write.")],
    steps: Annotated[int | None, typer.Option(help="At most so many in each stage.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and prompts.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Pre-train vit_tiny on procedural scenes."""
    from sammed_data.system import keep_memory

    keep_memory()
    torch.set_num_threads(threads)
    plan = Pretraining(seed=seed)
    pretrain(out, plan if steps is None else plan.shortened(steps), tell=typer.echo)


if __name__ == "__main__":
    typer.run(main)
