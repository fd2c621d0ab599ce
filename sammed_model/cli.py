"""Commands of this room: ``sammed train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sammed_model.train import Trained

_EXAMPLES = """
Train on a corpus: tune adapters, prompt encoder and mask decoder of a SAM.

The plain command takes ./corpus and the small vit_tiny, which trains on a
CPU in minutes; a run leaves ./runs/NNN-METHOD with model.safetensors, which
`sammed bench` finds.

Examples:

  sammed train

  sammed train --method ft-sam --minutes 2

  sammed train --model vit_b --init sam_vit_b_01ec64.pth --image-size 256

  sammed train --control permuted        (the prompt-only control)

  sammed train --resume runs/003-sam-med2d
"""


def register(app: typer.Typer) -> None:
    """Add this room's commands to the root app."""
    app.command("train", help=_EXAMPLES)(train)


def train(
    corpus: Annotated[Path, typer.Option(help="Built corpus.")] = Path("corpus"),
    method: Annotated[str, typer.Option(help="sam-med2d (adapters) or ft-sam.")] = "sam-med2d",
    model: Annotated[str, typer.Option(help="vit_tiny, vit_b, vit_l or vit_h.")] = "vit_tiny",
    init: Annotated[
        str, typer.Option(help="Weight file, 'auto' (shipped with the package) or 'random'.")
    ] = "auto",
    image_size: Annotated[
        int | None, typer.Option(help="Side of the model's input in px.", show_default="model's")
    ] = None,
    recipe: Annotated[str, typer.Option(help="mended or released.")] = "mended",
    steps: Annotated[int | None, typer.Option(help="Batches to learn from.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the corpus instead.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop (and end the schedule) after this time.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images per batch.")] = 4,
    masks_per_image: Annotated[int, typer.Option(help="Masks drawn per image.")] = 5,
    passes: Annotated[
        int | None, typer.Option(help="Prompts a batch.", show_default="9 (paper), vit_tiny 4")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate.", show_default="5e-4 tiny, 1e-4 else")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="cosine or step (halved twice).", show_default="cosine; released step"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of order, draws and fresh weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    workers: Annotated[int, typer.Option(help="Loader threads, 0 for none.")] = 1,
    control: Annotated[
        str, typer.Option(help="'permuted' pairs masks with another patient's image.")
    ] = "none",
    fast: Annotated[
        bool, typer.Option("--fast/--no-fast", help="Fast encoder, or upstream's own forward.")
    ] = True,
    validate_every: Annotated[
        int | None, typer.Option(help="Steps between validations.", show_default="a quarter")
    ] = None,
    validation_images: Annotated[int, typer.Option(help="Held-out images scored.")] = 48,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="Unfinished run to continue.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the last lines.")] = False,
) -> None:
    """See ``_EXAMPLES``."""
    from sammed_model.config import TrainConfig
    from sammed_model.console import Console, keep_memory, stop_on_signal
    from sammed_model.train import train as run

    tiny = model == "vit_tiny"
    options: dict[str, Any] = {
        "method": method,
        "model": model,
        "init": init,
        "image_size": image_size,
        "recipe": recipe,
        "steps": steps,
        "epochs": epochs,
        "minutes": minutes,
        "batch_images": batch,
        "masks_per_image": masks_per_image,
        "passes": (4 if tiny else 9) if passes is None else passes,
        "lr": (5e-4 if tiny else 1e-4) if lr is None else lr,
        "schedule": schedule or ("step" if recipe == "released" else "cosine"),
        "warmup": 0 if recipe == "released" else 20,
        "seed": seed,
        "device": device,
        "precision": precision,
        "threads": threads,
        "workers": workers,
        "control": control,
        "fast": fast,
        "validate_every": validate_every,
        "validation_images": validation_images,
    }
    if tiny and steps is None and epochs is None and minutes is None:
        options["minutes"] = 3.0
    config = TrainConfig(**options)
    keep_memory()
    with stop_on_signal() as should_stop, Console(quiet=quiet) as console:
        trained = run(
            corpus, config, runs=out, resume=resume, report=console, should_stop=should_stop
        )
    _summary(trained)


def _summary(trained: Trained) -> None:
    start = ", ".join(f"{mode} {100 * dice:.1f}" for mode, dice in trained.start.items())
    best = ", ".join(f"{mode} {100 * dice:.1f}" for mode, dice in trained.best_dice.items())
    typer.echo(f"validation Dice % before: {start}")
    typer.echo(f"best, after step {trained.best_step} of {trained.steps}: {best}")
    typer.echo(f"run {trained.folder}: weights in {trained.weights}")
