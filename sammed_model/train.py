"""A training run: setup -> fit -> finish, read top to bottom."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sammed_data.types import InterruptedRun
from sammed_model.ahead import on_device
from sammed_model.checkpoint import save_model, save_trained
from sammed_model.config import TrainConfig
from sammed_model.lora import merge_lora
from sammed_model.manifest import manifest
from sammed_model.model_card import write_model_card
from sammed_model.optim import trainable, training_state
from sammed_model.parallel import World, joined
from sammed_model.profiling import profile_lines
from sammed_model.runs import write_json
from sammed_model.setup import Reporter, Run, Silent, set_up
from sammed_model.step import StepResult, done_fraction, train_on_batches
from sammed_model.tensorboard import TensorBoard, require_tensorboard
from sammed_model.validate import Validation, validate

_VALIDATIONS = 4


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a finished run left.

    Attributes:
        folder: of the run.
        weights: self-contained model file of the best checkpoint.
        start: validation Dice by mode before training.
        best: mean Dice of the best checkpoint over the declared modes.
        best_dice: its Dice by mode.
        best_step: after how many of the ``steps`` it was.
        seconds: of training, without validation.
        stopped: why a run ended before its time, '' where it did not.
    """

    folder: Path
    weights: Path
    start: dict[str, float]
    best: float
    best_dice: dict[str, float]
    best_step: int
    steps: int
    seconds: float
    stopped: str = ""


def train(
    corpus_root: Path,
    config: TrainConfig,
    *,
    runs: Path = Path("runs"),
    resume: Path | None = None,
    report: Reporter | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    profile: bool = False,
    tensorboard: bool = False,
) -> Trained:
    """Train on a corpus and leave a numbered run folder.

    Args:
        corpus_root: built corpus.
        config: what to do; a resumed run uses its own.
        runs: parent of the run folders.
        resume: folder of an unfinished run to continue.
        report: who is told.
        should_stop: asked after each step; True saves the state and raises.
        profile: measure the time of stages, and report them at the end.
        tensorboard: write scalars beside the log.

    Under ``torchrun`` all processes call this alike; process 0 alone reports and writes.

    Raises:
        InterruptedRun: asked to stop; ``resume`` continues bit for bit on CPU.
        CorpusError: nothing to train on.
    """
    if tensorboard:
        require_tensorboard()
    with joined(config.device) as world:
        told = (report or Silent()) if world.leads else Silent()
        run = set_up(corpus_root, config, runs, resume, told, profile=profile, world=world)
        if tensorboard and world.leads:
            run = replace(run, report=TensorBoard(run.folder.path, run.progress.step, run.report))
        before = replace(run.progress)
        stopped = _fit(run, should_stop)
        if profile:
            for line in profile_lines(run, before):
                run.report.note(line)
        return _finish(run, stopped)


# ---------------------------------------------------------------- fit


def _fit(run: Run, should_stop: Callable[[], bool]) -> str:
    """Train until the run is done, validating on the way; why it stopped, if before its time."""
    if not run.progress.start:
        run.progress.start = _validate(run).dice
    batches = on_device(run.loader.batches(run.progress.next_position), run.model.device)
    try:
        steps = train_on_batches(
            run.model,
            batches,
            run.config,
            total_steps=run.total_steps,
            progress=run.progress,
            optimiser=run.optimiser,
            embedder=run.embedder,
            meter=run.meter,
            world=run.world,
        )
        before = done_fraction(run.config, run.progress, run.total_steps)
        for result in steps:
            done = done_fraction(run.config, run.progress, run.total_steps)
            run.progress.images += result.images
            run.progress.masks += result.masks
            run.report.step(result, run.progress, done)
            run.folder.log(step=run.progress.step, **_rounded(result))
            if stopped := _diverged(run, result):
                run.report.note(stopped)
                return stopped
            validated = _due(run, before, done)
            if validated:
                _validate(run)
            if validated or _due_to_save(run):
                _save_state(run)
            if _patience_is_over(run):
                break
            if done < 1 and run.world.any(should_stop()):
                _save_state(run)
                _wait_for_all(run.world)  # one that ended would have the others killed
                raise InterruptedRun(
                    f"stopped after step {run.progress.step}; "
                    f"continue with `sammed train --resume {run.folder.path}`"
                )
            before = done
    finally:
        batches.close()
    return ""


def _diverged(run: Run, result: StepResult) -> str:
    """What is wrong where the weights cannot recover from a step; '' where nothing is.

    Loss and gradient are those of all processes, so all of them stop.
    """
    if math.isfinite(result.loss) and math.isfinite(result.gradient):
        return ""
    return (
        f"stopped: loss {result.loss:g}, gradient {result.gradient:g} at step {run.progress.step} "
        f"(rate {result.rate:.3g}), which no later step mends; the weights kept are those of step "
        f"{run.progress.best_step}: try a lower --lr, --clip 0.5 or --precision fp32"
    )


def _due(run: Run, before: float, done: float) -> bool:
    """Whether to validate now: at the end, and every so many steps or quarter of the run."""
    every = run.config.validate_every
    if done >= 1:
        return True
    if every:
        return run.progress.step % every == 0
    return int(before * _VALIDATIONS) < int(done * _VALIDATIONS)


def _due_to_save(run: Run) -> bool:
    every = run.config.save_every
    return every is not None and run.progress.step % every == 0


def _patience_is_over(run: Run) -> bool:
    """Whether so many validations were no better that the run ends; says so."""
    patience = run.config.patience
    if patience is None or run.progress.stale < patience:
        return False
    run.report.note(
        f"stopped early: {patience} validations without a better mean of "
        f"{', '.join(run.config.best)} than after step {run.progress.best_step}"
    )
    return True


def _validate(run: Run) -> Validation:
    """Score the held-out patients and keep the weights if they are the best so far."""
    found = validate(
        run.model,
        run.held_out,
        run.config.modes,
        masks_per_image=run.config.masks_per_image,
        embed=None if run.embedder.learns else run.held_embedder.embed,
        world=run.world,
    )
    dice = {mode: round(value, 6) for mode, value in found.dice.items()}
    run.folder.log(step=run.progress.step, validation=dice, masks=found.n_masks)
    mean = found.mean(run.config.best)
    run.progress.stale += 1
    if mean > run.progress.best:
        run.progress.stale = 0
        run.progress.best, run.progress.best_dice = mean, dice
        run.progress.best_step = run.progress.step
        run.folder.save_best(trainable(run.model))
    run.report.validated(found, run.progress)
    return found


def _wait_for_all(world: World) -> None:
    world.sums([0])


def _save_state(run: Run) -> None:
    run.folder.save_state(run.progress, training_state(run.model, run.optimiser))


def _rounded(result: StepResult) -> dict[str, float]:
    return {
        "loss": result.loss,
        "first": result.first,
        "last": result.last,
        "rate": result.rate,
        "gradient": result.gradient,
        "images_per_s": round(result.images / max(result.seconds, 1e-9), 2),
    }


# ---------------------------------------------------------------- finish


def _finish(run: Run, stopped: str) -> Trained:
    """Say what came out, when process 0 has written it."""
    if run.world.leads:
        _write_model(run, stopped)
    _wait_for_all(run.world)
    return Trained(
        folder=run.folder.path,
        weights=run.folder.model,
        start=run.progress.start,
        best=run.progress.best,
        best_dice=run.progress.best_dice,
        best_step=run.progress.best_step,
        steps=run.progress.step,
        seconds=run.progress.seconds,
        stopped=stopped,
    )


def _write_model(run: Run, stopped: str) -> None:
    """The best checkpoint as a self-contained model, and the record of the run."""
    best = run.folder.load_best()
    with torch.no_grad():
        for name, parameter in trainable(run.model).items():
            parameter.copy_(best[name])
    recipe = "tiny" if run.model.spec.name == "vit_tiny" else run.config.recipe_name
    # `sammed predict` windows images as the corpus did.
    options = run.loader.rows.corpus.manifest.get("options", {})
    run.model.metadata["intensity_policy"] = options.get("intensity", "auto")
    if run.base["init"] != "random":
        low_rank = {"rank": run.config.lora_rank, "alpha": run.config.lora_alpha}
        save_trained(
            run.model,
            run.folder.trained,
            run.base["digest"],
            base_path=Path(run.base["path"]).resolve(),
            recipe=recipe,
            extra={"lora": json.dumps(low_rank)} if run.config.method == "lora" else None,
        )
    merge_lora(run.model)
    save_model(run.model, run.folder.model, recipe=recipe)
    write_json(run.folder.record, manifest(run, recipe) | {"stopped": stopped})
    write_model_card(run.folder.model, run.folder.path)
    run.folder.drop_state()
