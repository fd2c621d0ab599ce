"""Commands of this room: ``sammed train``, ``sammed weights`` and ``sammed export-onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sammed_model.cli_export import register as register_export
from sammed_model.cli_weights import register as register_weights

if TYPE_CHECKING:
    from sammed_model.config import TrainConfig
    from sammed_model.train import Trained

_EXAMPLES = """
Train on a corpus: tune adapters, prompt encoder and mask decoder of a SAM.

The plain command takes ./corpus and the small vit_tiny, which trains on a
CPU in minutes; a run leaves ./runs/NNN-METHOD with model.safetensors, which
`sammed bench` finds.

Examples:

  sammed train

  sammed train --method lora --minutes 2 --augment light

  sammed train --method ft-sam --cache-embeddings embeddings/

  sammed train --model vit_b --init sam_vit_b_01ec64.pth --image-size 256

  sammed train --recipe released --mend one-step

  sammed train --control permuted        (the prompt-only control)

  sammed train --resume runs/003-sam-med2d

  torchrun --nproc-per-node 4 -m sammed train --corpus corpus   (4 GPUs)
"""
_START, _LENGTH, _SPEED = "Model", "Length", "Speed and memory"
_DATA, _LEARNING, _KEEPING = "Data", "Learning", "Validation and files"


def register(app: typer.Typer) -> None:
    """Add this room's commands to the root app."""
    app.command("train", help=_EXAMPLES)(train)
    register_export(app)
    register_weights(app)


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def train(
    context: typer.Context,
    corpus: Annotated[Path, _option(_DATA, "Built corpus: --corpus corpus")] = Path("corpus"),
    method: Annotated[
        str | None,
        _option(
            _START,
            "sam-med2d (adapters), lora, ft-sam (decoder alone) or full: --method lora",
            show_default="sam-med2d",
        ),
    ] = None,
    model: Annotated[
        str, _option(_START, "vit_tiny, vit_b, vit_l or vit_h: --model vit_b")
    ] = "vit_tiny",
    init: Annotated[
        str,
        _option(
            _START,
            "Weight file, 'auto' (shipped with the package) or 'random': "
            "--init sam_vit_b_01ec64.pth",
        ),
    ] = "auto",
    image_size: Annotated[
        int | None,
        _option(_START, "Side of the input in px: --image-size 256", show_default="model's"),
    ] = None,
    lora_rank: Annotated[int, _option(_START, "Of --method lora: --lora-rank 4")] = 8,
    lora_alpha: Annotated[
        float | None,
        _option(_START, "Its factor is alpha / rank: --lora-alpha 8", show_default="2 x rank"),
    ] = None,
    recipe: Annotated[
        str, _option(_LEARNING, "mended, or released (as published): --recipe released")
    ] = "mended",
    mend: Annotated[
        list[str] | None,
        _option(
            _LEARNING,
            "Under --recipe released, mend this point alone; repeat for more, 'list' shows all: "
            "--mend one-step --mend clip",
        ),
    ] = None,
    steps: Annotated[int | None, _option(_LENGTH, "Steps to learn: --steps 2000")] = None,
    epochs: Annotated[
        int | None, _option(_LENGTH, "Passes over the corpus instead: --epochs 12")
    ] = None,
    minutes: Annotated[
        float | None, _option(_LENGTH, "Stop (and end the schedule) after: --minutes 30")
    ] = None,
    patience: Annotated[
        int | None,
        _option(_LENGTH, "Stop after so many validations without a better: --patience 4"),
    ] = None,
    batch: Annotated[
        int | None, _option(_SPEED, "Images per batch: --batch 16", show_default="4")
    ] = None,
    accumulate: Annotated[
        int | None,
        _option(_SPEED, "Batches per step, as one large one: --accumulate 4", show_default="1"),
    ] = None,
    fit_memory: Annotated[
        str | None,
        _option(
            _SPEED,
            "Choose batch, accumulation, precision and method for a card: --fit-memory 8GB",
        ),
    ] = None,
    masks_per_image: Annotated[
        int, _option(_DATA, "Masks drawn per image: --masks-per-image 3")
    ] = 5,
    passes: Annotated[
        int | None,
        _option(_LEARNING, "Prompts a batch: --passes 5", show_default="9 (paper), vit_tiny 4"),
    ] = None,
    lr: Annotated[
        float | None,
        _option(_LEARNING, "Learning rate: --lr 2e-4", show_default="5e-4 tiny, 1e-4 else"),
    ] = None,
    schedule: Annotated[
        str | None,
        _option(
            _LEARNING,
            "cosine or step (halved twice): --schedule step",
            show_default="cosine; released step",
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        _option(_LEARNING, "Steps of warm-up: --warmup 200", show_default="20; released 0"),
    ] = None,
    weight_decay: Annotated[
        float, _option(_LEARNING, "Of matrices; not of norms and biases: --weight-decay 0.01")
    ] = 1e-4,
    clip: Annotated[float, _option(_LEARNING, "Largest norm of a gradient: --clip 0.5")] = 1.0,
    group: Annotated[
        list[str] | None,
        _option(
            _LEARNING,
            "Rate factor and decay of encoder, adapters, prompt or decoder: "
            "--group adapters:lr=0.5:decay=0",
        ),
    ] = None,
    balance: Annotated[
        str, _option(_DATA, "Equal shares: none, dataset, modality, structure: --balance dataset")
    ] = "none",
    balance_temperature: Annotated[
        float, _option(_DATA, "0 as the corpus is, 1 equal: --balance-temperature 0.5")
    ] = 1.0,
    augment: Annotated[
        str,
        _option(
            _DATA, "none, light or strong; sided structures are never mirrored: --augment light"
        ),
    ] = "none",
    cache_embeddings: Annotated[
        Path | None,
        _option(_SPEED, "Keep ft-sam's embeddings here: --cache-embeddings embeddings/"),
    ] = None,
    cache_limit: Annotated[str, _option(_SPEED, "Of that folder: --cache-limit 200GB")] = "50GB",
    seed: Annotated[int, _option(_LEARNING, "Of order, draws and fresh weights: --seed 3")] = 0,
    device: Annotated[str, _option(_SPEED, "auto, cpu or cuda: --device cpu")] = "auto",
    precision: Annotated[
        str | None,
        _option(_SPEED, "fp32, or bf16 over fp32 weights: --precision bf16", show_default="fp32"),
    ] = None,
    threads: Annotated[int | None, _option(_SPEED, "CPU threads: --threads 8")] = None,
    workers: Annotated[int, _option(_SPEED, "Loader threads, 0 for none: --workers 4")] = 1,
    control: Annotated[
        str,
        _option(_DATA, "'permuted' gives masks another patient's image: --control permuted"),
    ] = "none",
    fast: Annotated[
        bool,
        _option(_SPEED, "Fast encoder, or upstream's own forward.", "--fast/--no-fast"),
    ] = True,
    compile_model: Annotated[
        bool,
        _option(
            _SPEED, "torch.compile: slow first steps, pays in long runs on a GPU.", "--compile"
        ),
    ] = False,
    validate_every: Annotated[
        int | None,
        _option(_KEEPING, "Steps between: --validate-every 500", show_default="a quarter"),
    ] = None,
    validation_images: Annotated[
        int, _option(_KEEPING, "Held-out images scored: --validation-images 200")
    ] = 48,
    modes: Annotated[
        str, _option(_KEEPING, "Prompts validated: --prompts bbox,1pt", "--prompts", "--modes")
    ] = "bbox,1pt,3pt,5pt",
    best: Annotated[
        str, _option(_KEEPING, "Those whose mean Dice picks the best weights: --best 1pt")
    ] = "bbox,1pt",
    save_every: Annotated[
        int | None,
        _option(
            _KEEPING,
            "Steps between states to resume from: --save-every 100",
            show_default="each validation",
        ),
    ] = None,
    out: Annotated[Path, _option(_KEEPING, "Where run folders go: --out runs")] = Path("runs"),
    resume: Annotated[
        Path | None, _option(_KEEPING, "Unfinished run to continue: --resume runs/003-lora")
    ] = None,
    tensorboard: Annotated[
        bool,
        _option(_KEEPING, "TensorBoard beside log.jsonl (extra 'tensorboard').", "--tensorboard"),
    ] = False,
    profile: Annotated[
        bool, _option(_SPEED, "At the end: speed, stages, memory, FLOP utilisation.", "--profile")
    ] = False,
    dry_run: Annotated[
        bool,
        _option(_KEEPING, "Check corpus, weights and options; train nothing.", "--dry-run"),
    ] = False,
) -> None:
    """See ``_EXAMPLES``."""
    if mend and "list" in mend:
        _show_mends()
        return
    from sammed_data.system import keep_memory
    from sammed_model.config import TrainConfig
    from sammed_model.console import Console, stop_on_signal
    from sammed_model.memory import parse_bytes
    from sammed_model.parallel import rank
    from sammed_model.train import train as run

    leads = rank() == 0

    tiny = model == "vit_tiny"
    options: dict[str, Any] = {
        "method": method or "sam-med2d",
        "model": model,
        "init": init,
        "image_size": image_size,
        "lora_rank": lora_rank,
        "lora_alpha": 2.0 * lora_rank if lora_alpha is None else lora_alpha,
        "recipe": recipe,
        "mends": tuple(mend or ()),
        "steps": steps,
        "epochs": epochs,
        "minutes": minutes,
        "patience": patience,
        "batch_images": 4 if batch is None else batch,
        "accumulate": 1 if accumulate is None else accumulate,
        "masks_per_image": masks_per_image,
        "passes": (4 if tiny else 9) if passes is None else passes,
        "lr": (5e-4 if tiny else 1e-4) if lr is None else lr,
        "schedule": schedule or ("step" if recipe == "released" else "cosine"),
        "warmup": (0 if recipe == "released" else 20) if warmup is None else warmup,
        "weight_decay": weight_decay,
        "clip_norm": clip,
        "groups": tuple(group or ()),
        "balance": balance,
        "balance_temperature": balance_temperature,
        "augment": augment,
        "cache_embeddings": None if cache_embeddings is None else str(cache_embeddings),
        "cache_disk_bytes": parse_bytes(cache_limit, "--cache-limit"),
        "seed": seed,
        "device": device,
        "precision": precision or "fp32",
        "threads": threads,
        "workers": workers,
        "control": control,
        "fast": fast,
        "compile": compile_model,
        "validate_every": validate_every,
        "validation_images": validation_images,
        "modes": tuple(modes.split(",")),
        "best": tuple(best.split(",")),
        "save_every": save_every,
    }
    if tiny and steps is None and epochs is None and minutes is None:
        options["minutes"] = 3.0
    config = TrainConfig(**options)
    if fit_memory is not None:
        from sammed_model.memory import fit

        given = {"method": method, "batch": batch, "accumulate": accumulate, "precision": precision}
        fixed = frozenset(name for name, value in given.items() if value is not None)
        config, why = fit(config, parse_bytes(fit_memory, "--fit-memory"), fixed)
        for line in why if leads else ():
            typer.echo(line)
    if dry_run:
        _rehearse(corpus, config, resume)
        return
    if resume is not None:
        _refuse_other_options(context, resume, config)
    keep_memory()
    with stop_on_signal() as should_stop, Console(quiet=not leads) as console:
        trained = run(
            corpus,
            config,
            runs=out,
            resume=resume,
            report=console,
            should_stop=should_stop,
            profile=profile,
            tensorboard=tensorboard,
        )
    if leads:
        _summary(trained)
    if trained.stopped:
        raise typer.Exit(3)


def _rehearse(corpus: Path, config: TrainConfig, resume: Path | None) -> None:
    """Everything before the first step, in a folder that goes away.

    Raises:
        UsageError: a run that is under way would be touched.
    """
    from dataclasses import asdict
    from tempfile import TemporaryDirectory

    from sammed_data.talk import answer
    from sammed_data.types import UsageError
    from sammed_model.console import Console
    from sammed_model.setup import set_up

    if resume is not None:
        raise UsageError("--dry-run looks at a new run: leave --resume out")
    with TemporaryDirectory() as scratch, Console() as console:
        run = set_up(corpus, config, Path(scratch), None, console)
    length = f"{run.total_steps} steps" if run.total_steps else f"{config.minutes} minutes"
    typer.echo(f"would train {length} of {config.batch_images} images; nothing was written")
    answer({"dry_run": True, "steps": run.total_steps, "config": asdict(run.config)})


# Options that are called otherwise in a configuration.
_FIELDS = {
    "batch": "batch_images",
    "cache_limit": "cache_disk_bytes",
    "clip": "clip_norm",
    "compile_model": "compile",
    "group": "groups",
    "mend": "mends",
}


def _refuse_other_options(context: typer.Context, resume: Path, config: TrainConfig) -> None:
    """A resumed run has options already: the same may be given again, others would be lost.

    Raises:
        UsageError: an option that the run does not have.
    """
    from sammed_data.types import UsageError
    from sammed_model.config import TrainConfig

    before = TrainConfig.load(resume / "config.json")
    others = []
    for name in context.params:
        source = context.get_parameter_source(name)
        field = _FIELDS.get(name, name)
        if source is None or source.name != "COMMANDLINE" or not hasattr(before, field):
            continue
        had, given = getattr(before, field), getattr(config, field)
        found_then = (field, given) == ("init", "auto")
        if had != given and not found_then:
            others.append(f"{field} {given!r} (the run has {had!r})")
    if others:
        raise UsageError(
            f"--resume goes on with the options of {resume}, found others: {', '.join(others)}: "
            "leave them out, or train a new run, with --init and the weights of this one perhaps"
        )


def _show_mends() -> None:
    from sammed_data.talk import answer
    from sammed_model.mends import MENDS

    answer({name: {"mended": m, "released": r} for name, (m, r) in MENDS.items()})
    for name, (mended, released) in MENDS.items():
        typer.echo(f"{name}: {mended}\n    released: {released}")


def _summary(trained: Trained) -> None:
    from dataclasses import asdict

    from sammed_data.talk import answer

    answer(asdict(trained))
    start = ", ".join(f"{mode} {100 * dice:.1f}" for mode, dice in trained.start.items())
    best = ", ".join(f"{mode} {100 * dice:.1f}" for mode, dice in trained.best_dice.items())
    typer.echo(f"validation Dice % before: {start}")
    typer.echo(f"best, after step {trained.best_step} of {trained.steps}: {best}")
    if trained.best_step == 0:
        typer.echo(
            "no validation was better than the start: model.safetensors holds the start's weights; "
            "train longer, or with a lower --lr"
        )
    typer.echo(f"run {trained.folder}: weights in {trained.weights}")
