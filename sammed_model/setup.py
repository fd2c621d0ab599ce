"""What a training run needs before its first step: rows, model, loader, folder or resumed state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from sammed_data.corpus import VIEWS, Corpus
from sammed_data.types import ModelError, UsageError, counted, nearest
from sammed_model.adapters import add_adapters, drop_adapters, leave_prompts, train_only
from sammed_model.advice import advice_on_size
from sammed_model.balance import Balance
from sammed_model.cards import SHIPPED, find_place, located
from sammed_model.checkpoint import load_model, weight_digest
from sammed_model.compiled import compile_model
from sammed_model.config import TrainConfig
from sammed_model.control import permute_images
from sammed_model.dataset import Draw, Samples
from sammed_model.device import choose_device
from sammed_model.embeddings import Embedder, EmbeddingFolder
from sammed_model.feed import Loader, TrainingSet
from sammed_model.frame import Preprocessing
from sammed_model.lora import add_lora
from sammed_model.meter import Meter
from sammed_model.optim import load_training_state, make_optimiser, trainable
from sammed_model.parallel import ALONE, World
from sammed_model.runs import Progress, RunFolder, create_run
from sammed_model.sam import SamModel, build_sam, spec_for
from sammed_model.selection import Selection, choose_rows, rows_of
from sammed_model.step import StepResult
from sammed_model.types import KINDS
from sammed_model.validate import Validation


class Reporter(Protocol):
    """Who is told how a run goes."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def step(self, result: StepResult, progress: Progress, done: float) -> None:
        """A batch was learned from; ``done`` is the finished fraction of the run."""

    def validated(self, validation: Validation, progress: Progress) -> None:
        """Dice on held-out patients; at step 0 that of the start."""


class Silent:
    """Tells nobody."""

    def note(self, text: str) -> None:
        """Ignore."""

    def step(self, result: StepResult, progress: Progress, done: float) -> None:
        """Ignore."""

    def validated(self, validation: Validation, progress: Progress) -> None:
        """Ignore."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is ready to go.

    Attributes:
        config: with the start resolved.
        held_out: what validation scores.
        total_steps: length of the schedule, None where the clock alone limits it.
        base: where the weights came from (``init``, ``path``, ``digest``), and ``corpus``.
        embedder, held_embedder: of training and of validation, which is always float32.
        meter: of the time of stages.
        world: of the processes that learn together.
    """

    config: TrainConfig
    folder: RunFolder
    model: SamModel
    optimiser: torch.optim.Optimizer
    loader: Loader
    held_out: Samples
    progress: Progress
    total_steps: int | None
    report: Reporter
    base: dict[str, str]
    embedder: Embedder
    held_embedder: Embedder
    meter: Meter
    world: World


def set_up(
    root: Path,
    config: TrainConfig,
    runs: Path,
    resume: Path | None,
    report: Reporter,
    *,
    profile: bool = False,
    world: World = ALONE,
) -> Run:
    """Open the corpus, make the model, and the run's folder or its state.

    Raises:
        UsageError: what was asked for cannot be done.
        CorpusError: nothing to train on.
        ModelError: the weights do not fit.
    """
    if resume is not None:
        config = TrainConfig.load(resume / "config.json")
        if (resume / "run.json").exists():
            raise UsageError(f"expected an unfinished run to resume, {resume} is finished")
    if config.threads:
        torch.set_num_threads(config.threads)
    corpus = Corpus(root)
    world.same("corpus", corpus.content_hash)
    world.same("configuration", repr(config))
    with world.leader_first():  # it makes the index
        chosen = Selection.of(corpus, report.note)
    held_out = _held_out(corpus, chosen, config)
    model, base = _model(config, report)
    loader = _loader(corpus, chosen, config, model, world)
    optimiser = make_optimiser(model, config)
    keeps = config.augment == "none"  # an augmented image is never seen again
    room = config.cache_bytes if keeps else 0
    embedder = _embedder(config, model, config.precision, room, world)
    config = replace(config, init=base["init"])
    path = resume or (create_run(runs, config.method) if world.leads else runs)
    folder = RunFolder(Path(world.text(str(path))), writes=world.leads)
    progress = None
    if resume is not None:
        progress = _resume(folder, model, optimiser, base["digest"], corpus, world)
    if progress is None:
        if world.leads:
            config.save(folder.config)
        progress = Progress(
            base_sha256=base["digest"],
            corpus_sha256=corpus.content_hash,
            processes=world.size,
        )
    world.start_equal(model)
    _describe(loader.rows, held_out, model, report)
    for advice in advice_on_size(loader.rows.n_patients, model, config.method):
        report.note(advice)
    return Run(
        config=config,
        folder=folder,
        model=model,
        optimiser=optimiser,
        loader=loader,
        held_out=held_out,
        progress=progress,
        total_steps=_total_steps(config, loader),
        report=report,
        base=base | {"corpus": corpus.content_hash},
        embedder=embedder,
        held_embedder=_embedder(config, model, "fp32", config.cache_bytes, world),
        meter=Meter(model.device, on=profile),
        world=world,
    )


def _embedder(
    config: TrainConfig, model: SamModel, precision: str, room: int, world: World
) -> Embedder:
    folder = None
    if config.cache_embeddings is not None:
        root = Path(config.cache_embeddings)
        folder = EmbeddingFolder(root, model, precision, config.cache_disk_bytes, world.size)
    return Embedder(model, room, folder)


def _held_out(corpus: Corpus, chosen: Selection, config: TrainConfig) -> Samples:
    """What validation scores, with other images where the run is a control."""
    usable = chosen.held_out_E if len(chosen.held_out_E) else chosen.training_E
    scored = choose_rows(chosen.index, usable, config.validation_images)
    rows = rows_of(corpus, chosen.index, scored)
    images = {}
    if _permuted(config):
        others_N = permute_images(chosen.index, usable, config.seed)
        others = rows_of(corpus, chosen.index, others_N[scored])
        images = {row.sample_id: other for row, other in zip(rows, others, strict=True)}
    return Samples(corpus, rows, images=images, cache_bytes=config.cache_bytes)


def _permuted(config: TrainConfig) -> bool:
    return config.control == "permuted"


def _model(config: TrainConfig, report: Reporter) -> tuple[SamModel, dict[str, str]]:
    """The model on its device with its trainable parts chosen, and where it came from."""
    device = choose_device(config.device)
    init = _starting_weights(config, report)
    path, kind = _path_and_kind(init)
    if init == "random":
        report.note(f"{config.model} starts from random numbers")
        model = build_sam(spec_for(config.model, image_size=config.image_size), config.seed)
    else:
        path = located(path)
        model = load_model(path, image_size=config.image_size, kind=kind)
        _refuse_other_size(config, path, model)
    digest = weight_digest(model)
    adapted = model.spec.adapters != "none"
    if config.method == "sam-med2d" and not adapted:
        add_adapters(model, zero_init="quiet-adapters" in config.choices, seed=config.seed)
    if config.method == "lora":
        add_lora(model, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)
    if config.method == "ft-sam" and adapted:
        report.note("the start has adapters: ft-sam drops them")
        drop_adapters(model)
    if "aspect" not in config.choices:
        model.preprocessing = Preprocessing.named("released", model.spec.image_size)
    train_only(model, config.method)
    if "prompt-encoder" not in config.choices:
        leave_prompts(model)
    model.fast = config.fast
    model.to(device)
    if config.compile:
        compile_model(model)
    return model, {"init": init, "path": str(path), "digest": digest}


def _refuse_other_size(config: TrainConfig, path: Path, model: SamModel) -> None:
    if model.spec.name != config.model:
        raise ModelError(
            f"expected weights of {config.model} (--model) in {path}, found {model.spec.name}: "
            f"give --model {model.spec.name} or another --init"
        )


def _starting_weights(config: TrainConfig, report: Reporter) -> str:
    """``random`` or the weight file to start from."""
    if config.init != "auto":
        return config.init
    shipped = sorted(SHIPPED.glob(f"{config.model}_*.safetensors"))
    if shipped:
        report.note(f"starting from the shipped weights {shipped[0].name}")
        return str(shipped[0])
    if config.model != "vit_tiny":
        published = f"sam_{config.model}"
        if find_place(published):
            report.note(f"starting from the weights {published}")
            return published
        raise UsageError(
            f"{config.model} needs weights to start from, none are given: `sammed weights fetch "
            f"{published}`, --init PATH or --init random"
        )
    report.note("the package has no weights for vit_tiny")
    return "random"


def _path_and_kind(init: str) -> tuple[Path, str | None]:
    """``PATH``, a name, or ``PATH:KIND``, for published files that no card knows."""
    path, colon, kind = init.rpartition(":")
    if colon and kind in KINDS:
        return Path(path), kind
    if colon and Path(path).is_file() and not Path(init).exists():
        raise UsageError(f"unknown kind of weights {kind!r} in --init: {nearest(kind, KINDS)}")
    return Path(init), None


def _loader(
    corpus: Corpus, chosen: Selection, config: TrainConfig, model: SamModel, world: World
) -> Loader:
    images_N = None
    if _permuted(config):
        images_N = permute_images(chosen.index, chosen.training_E, config.seed)
    draw = Draw(
        masks_per_image=config.masks_per_image,
        seed=config.seed,
        replacement="distinct-masks" not in config.choices,
    )
    balance = None
    if config.balance != "none":
        balance = Balance.of(
            chosen.index,
            chosen.training_E,
            config.balance,
            temperature=config.balance_temperature,
            view=VIEWS["sam-med2d"],
            seed=config.seed,
        )
    rows = TrainingSet(
        corpus,
        chosen.training_E,
        images_N=images_N,
        seed=config.seed,
        rank=world.rank,
        world=world.size,
        balance=balance,
    )
    return Loader(
        rows,
        model.preprocessing,
        batch_images=config.batch_images,
        draw=draw,
        workers=config.workers,
        pin=model.device.type == "cuda",
        keep_empty=world.size > 1,
    )


def _resume(
    folder: RunFolder,
    model: SamModel,
    optimiser: torch.optim.Optimizer,
    digest: str,
    corpus: Corpus,
    world: World,
) -> Progress | None:
    state = folder.load_state()
    if state is None:
        return None
    progress, tensors = state
    if progress.base_sha256 != digest:
        raise ModelError(
            f"expected the run {folder.path} to continue from weights {progress.base_sha256[:12]}, "
            f"found {digest[:12]}: the --init file of the run has changed, put it back"
        )
    if progress.corpus_sha256 not in ("", corpus.content_hash):
        raise UsageError(
            f"expected the run {folder.path} to continue on its corpus "
            f"{progress.corpus_sha256[:12]}, found {corpus.content_hash[:12]} at {corpus.root}: "
            "give the same --corpus, or train anew with --init"
        )
    if progress.processes != world.size:
        raise UsageError(
            f"expected the run {folder.path} to continue with its {progress.processes} processes, "
            f"found {world.size}: start it by torchrun with --nproc-per-node x --nnodes = "
            f"{progress.processes} (plain `sammed train` is one)"
        )
    load_training_state(model, optimiser, tensors)
    return progress


def _total_steps(config: TrainConfig, loader: Loader) -> int | None:
    if config.steps is not None:
        return config.steps
    if config.epochs is None and config.minutes is not None:
        return None
    return -(-(config.epochs or 12) * loader.batches_per_epoch // config.accumulate)


def _describe(training: TrainingSet, held_out: Samples, model: SamModel, report: Reporter) -> None:
    if model.spec.name == "vit_tiny":
        report.note("vit_tiny is a small model for CPU and demonstration, not SAM ViT-B")
    learning = sum(p.numel() for p in trainable(model).values())
    total = sum(p.numel() for p in model.parameters())
    report.note(
        f"{counted(training.n_images, 'training image')} with {counted(training.n_masks, 'mask')}, "
        f"{counted(len(held_out), 'validation image')}; "
        f"{learning / 1e6:.2f} of {total / 1e6:.2f} M parameters learn"
    )
