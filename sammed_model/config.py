"""What a training run is asked to do: parsed once, checked as a whole, kept beside the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sammed_data.types import UsageError, nearest
from sammed_model.mends import MENDS, Choices, Recipe

Method = Literal["sam-med2d", "ft-sam", "lora", "full"]
Schedule = Literal["cosine", "step"]
Control = Literal["none", "permuted"]
Precision = Literal["fp32", "bf16"]
Balanced = Literal["none", "dataset", "modality", "structure"]
Augmentation = Literal["none", "light", "strong"]
ValidationMode = Literal["bbox", "1pt", "3pt", "5pt"]

MODELS = ("vit_tiny", "vit_b", "vit_l", "vit_h")
GROUPS = ("encoder", "adapters", "prompt", "decoder")
CLICKS = {"1pt": 1, "3pt": 3, "5pt": 5}
_CHOICES: dict[str, tuple[str, ...]] = {
    "method": get_args(Method),
    "recipe": get_args(Recipe),
    "model": MODELS,
    "schedule": get_args(Schedule),
    "control": get_args(Control),
    "precision": get_args(Precision),
    "balance": get_args(Balanced),
    "augment": get_args(Augmentation),
}
_AT_LEAST: dict[str, float] = {
    "batch_images": 1,
    "masks_per_image": 1,
    "passes": 1,
    "image_size": 16,
    "steps": 1,
    "epochs": 1,
    "warmup": 0,
    "weight_decay": 0,
    "seed": 0,
    "threads": 1,
    "workers": 0,
    "validate_every": 1,
    "validation_images": 1,
    "cache_bytes": 0,
    "cache_disk_bytes": 0,
    "accumulate": 1,
    "lora_rank": 1,
    "patience": 1,
    "save_every": 1,
}
_ABOVE_ZERO = ("lr", "minutes", "clip_norm", "lora_alpha")
_FINITE = ("lr", "minutes", "lora_alpha", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class GroupSetting:
    """How one group of parameters learns: factor on the rate, and decay (None = the run's)."""

    lr: float = 1.0
    decay: float | None = None

    @classmethod
    def parse(cls, text: str) -> tuple[str, GroupSetting]:
        """``adapters:lr=0.5:decay=0`` -> name and setting.

        Raises:
            ValueError: not of that form; a sentence.
        """
        name, *settings = text.split(":")
        if name not in GROUPS:
            raise ValueError(f"unknown parameter group {name!r}: {nearest(name, GROUPS)}")
        values: dict[str, float] = {}
        for setting in settings:
            key, _, number = setting.partition("=")
            try:
                values[key] = float(number)
            except ValueError:
                values = {}
            if not values or not values.keys() <= {"lr", "decay"} or not 0 <= values[key] < 1e9:
                break
        else:
            if settings:
                return name, cls(**values)
        raise ValueError(f"--group wants NAME:lr=FACTOR:decay=NUMBER, found {text!r}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Numbers of the paper: 50 images, 5 masks, 1 + 8 passes, lr 1e-4, 12 epochs.

    Attributes:
        method: ``sam-med2d`` tunes adapters, prompt encoder and decoder; ``ft-sam`` the last two
            on a frozen encoder; ``lora`` these and low-rank parts of q and v; ``full`` everything.
        recipe: ``mended`` or ``released``; they differ in the points of ``mends.MENDS``.
        mends: of these, the ones that a released run has mended.
        model: family member; ``image_size`` None = its own.
        init: weight file to start from; ``auto`` = shipped with the package, ``random``.
        steps: optimiser batches; else ``epochs``; ``minutes`` ends a run early and then drives the
            schedule by the clock, which makes it unrepeatable.
        batch_images, accumulate: a step learns from so many batches of so many images, as it would
            from one large batch.
        masks_per_image: drawn without replacement (released: with).
        passes: first pass and decoder passes together.
        warmup: steps of linear warm-up.
        control: ``permuted`` gives every sample the image of another patient.
        compile: compile encoder blocks and the decoder's transformer.
        fast: encode by the fast path (same numbers to rounding), not by upstream's forward.
        modes: prompts validated; ``best`` = those whose mean Dice picks the checkpoint.
        workers: loader threads; 0 reads in the training thread.
        cache_bytes: decoded samples (and ft-sam's embeddings) kept in memory up to this each.
        cache_embeddings: folder of a frozen encoder's embeddings, filled up to cache_disk_bytes.
        groups: ``NAME:lr=FACTOR:decay=NUMBER`` of ``encoder, adapters, prompt, decoder``.
        balance: equal shares for datasets, modalities or structures, as far as
            ``balance_temperature`` says: 0 is the corpus as it is, 1 is equal.
        patience: validations without a better one after which a run ends.
        save_every: steps between states that a killed run continues from, besides validations.
    """

    method: Method = "sam-med2d"
    recipe: Recipe = "mended"
    model: str = "vit_tiny"
    image_size: int | None = None
    init: str = "auto"
    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    batch_images: int = 4
    masks_per_image: int = 5
    passes: int = 9
    lr: float = 1e-4
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    warmup: int = 20
    clip_norm: float = 1.0
    seed: int = 0
    device: str = "auto"
    precision: Precision = "fp32"
    threads: int | None = None
    workers: int = 1
    control: Control = "none"
    fast: bool = True
    compile: bool = False
    modes: tuple[ValidationMode, ...] = ("bbox", "1pt", "3pt", "5pt")
    best: tuple[ValidationMode, ...] = ("bbox", "1pt")
    validate_every: int | None = None
    validation_images: int = 48
    cache_bytes: int = 1 << 30
    mends: tuple[str, ...] = ()
    accumulate: int = 1
    lora_rank: int = 8
    lora_alpha: float = 16.0
    groups: tuple[str, ...] = ()
    balance: Balanced = "none"
    balance_temperature: float = 1.0
    augment: Augmentation = "none"
    cache_embeddings: str | None = None
    cache_disk_bytes: int = 50 << 30
    patience: int | None = None
    save_every: int | None = None

    @property
    def choices(self) -> Choices:
        """Which of the released recipe's faults are mended."""
        return Choices.of(self.recipe, self.mends)

    @property
    def recipe_name(self) -> str:
        """For tables: ``mended recipe``, ``released recipe``, or that with the mends it has."""
        return " + ".join([f"{self.recipe} recipe", *self.mends])

    def group(self, name: str) -> GroupSetting:
        """How a parameter group learns."""
        return dict(GroupSetting.parse(text) for text in self.groups).get(name, GroupSetting())

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise UsageError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                yield f"unknown {name} {value!r}: {nearest(str(value), choices)}"
        yield from self._numbers()
        for mode in (*self.modes, *self.best):
            if mode not in get_args(ValidationMode):
                yield f"unknown prompt mode {mode!r}: {nearest(mode, get_args(ValidationMode))}"
        if not self.best or not set(self.best) <= set(self.modes):
            yield (
                f"the best weights are chosen by --best {','.join(self.best)}, which must be among "
                f"--prompts {','.join(self.modes)}"
            )
        if self.steps is not None and self.epochs is not None:
            yield "give --steps or --epochs, not both"
        yield from self._combinations()

    def _numbers(self) -> Iterator[str]:
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                yield f"{_option(name)} must be at least {low:g}, found {value}"
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not value > 0:
                yield f"{_option(name)} must be above 0, found {value}"
        for name in _FINITE:
            if getattr(self, name) == math.inf:
                yield f"{_option(name)} must be finite, found inf"

    def _combinations(self) -> Iterator[str]:
        for name in self.mends:
            if name not in MENDS:
                yield f"unknown mend {name!r}: {nearest(name, MENDS)}"
        if self.mends and self.recipe == "mended":
            yield "--mend mends points of --recipe released; the recipe mended has all of them"
        elif self.accumulate > 1 and "one-step" not in self.choices:
            yield (
                "--accumulate needs one step a batch, --recipe released takes one a pass: "
                "add --mend one-step, or train by the mended recipe"
            )
        if not 0 <= self.balance_temperature <= 1:
            yield f"--balance-temperature must be from 0 to 1, found {self.balance_temperature}"
        if self.cache_embeddings is not None and self.method != "ft-sam":
            yield f"--cache-embeddings needs a frozen encoder (--method ft-sam), not {self.method}"
        if self.cache_embeddings is not None and self.augment != "none":
            yield "--cache-embeddings and --augment exclude each other: images would differ"
        for text in self.groups:
            try:
                GroupSetting.parse(text)
            except ValueError as err:
                yield str(err)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read what ``save`` wrote.

        Raises:
            UsageError: not there, not JSON, unknown keys, or values of another type.
        """
        try:
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except OSError as err:
            raise _no_config(path, err.strerror or str(err)) from err
        except ValueError as err:  # no text, or no JSON
            raise _no_config(path, str(err)) from err
        if not isinstance(raw, dict):
            raise _no_config(path, f"a {type(raw).__name__}")
        known = [f.name for f in fields(cls)]
        unknown = [f"{key!r} ({nearest(key, known)})" for key in raw if key not in known]
        if unknown:
            raise UsageError(f"{path} has unknown keys {', '.join(unknown)}")
        hints = get_type_hints(cls)
        wrong = [
            f"{key} {value!r}" for key, value in raw.items() if not _of_type(value, hints[key])
        ]
        if wrong:
            raise UsageError(f"{path} has values of the wrong type: {', '.join(wrong)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return cls(**values)


def _no_config(path: Path, found: str) -> UsageError:
    return UsageError(
        f"expected the configuration of a training run at {path}, found {found}: "
        "give --resume a folder that `sammed train` wrote"
    )


def _of_type(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is one of an attribute's type."""
    kind = get_origin(hint) or hint
    if kind is UnionType:
        return any(_of_type(value, part) for part in get_args(hint))
    if kind is tuple:
        return isinstance(value, list) and all(isinstance(part, str) for part in value)
    if kind is Literal:
        kind = str
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _option(name: str) -> str:
    return {"batch_images": "--batch"}.get(name, "--" + name.replace("_", "-"))
