"""Models of the benchmark: weight files of this family, the oracle, and anybody's factory."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sammed_bench.editions import AS_RELEASED, NATIVE, RELEASED
from sammed_bench.observers import SecondObserver
from sammed_bench.types import (
    OBSERVER,
    PROMPT_KINDS,
    ImagePrompts,
    KnowsSamples,
    KnowsTruth,
    Model,
    ModelFacts,
    Prediction,
)
from sammed_data.types import ModelError, nearest
from sammed_model.adapters import drop_adapters
from sammed_model.checkpoint import load_model, weight_digest
from sammed_model.frame import Frame
from sammed_model.sam import SamModel
from sammed_model.types import KINDS, Prompts

# A coarse mask becomes logits for models that are fed logits; certainty is cut at this share.
_CERTAIN = 1e-3
# A file of SAM-Med2D used without its adapters: the paper's SAM-Med2D*.
STAR = "sam-med2d-star"
# Kinds of the package's own rules and people, which no factory may claim.
_OURS = ("trivial", OBSERVER)


@dataclass(frozen=True, kw_only=True)
class _State:
    embedding_BChw: Tensor
    frames: list[Frame]


class SamBench:
    """A SAM of any kind behind the two methods; all masks of a batch are decoded together.

    Args:
        model: on its device.
        name: label; the other facts come from the weights' own metadata.
        source: where it came from.
        edition: ``native`` or ``as-released``; the latter wants a model of 256 px.

    Raises:
        ModelError: ``as-released`` with a model of another size.
    """

    def __init__(
        self, model: SamModel, name: str, source: str = "", *, edition: str = NATIVE
    ) -> None:
        self.model = model.eval()
        self._released = edition == AS_RELEASED
        if self._released and model.spec.image_size != RELEASED.image_size:
            raise ModelError(
                f"expected {name!r} at {RELEASED.image_size} px for --edition {AS_RELEASED}, found "
                f"{model.spec.image_size} px: load it with image_size={RELEASED.image_size}"
            )
        self._preprocessing = RELEASED if self._released else model.preprocessing
        self._feedback = "sigmoid" if self._released else model.mask_feedback
        self.facts = ModelFacts(
            name=name,
            kind=model.kind,
            recipe=model.metadata.get("recipe", "released weights"),
            weights_sha256=weight_digest(model),
            accepts=frozenset(KINDS[model.kind].prompts),
            source=source,
            image_px=self._preprocessing.image_size,
        )

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> _State:
        """One pass of the encoder."""
        prepared = [self._preprocessing.prepare(image) for image in images]
        x_B3SS = torch.stack([tensor for tensor, _ in prepared]).to(self.model.device)
        return _State(
            embedding_BChw=self.model.encode(x_B3SS), frames=[frame for _, frame in prepared]
        )

    @torch.inference_mode()
    def predict(self, state: _State, prompts: Sequence[ImagePrompts]) -> list[Prediction]:
        """One pass of the decoder for all masks of all images."""
        counts = [len(p) for p in prompts]
        asked = [self._asked(p, frame) for p, frame in zip(prompts, state.frames, strict=True)]
        index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        together = {
            key: torch.cat([part[key] for part in asked])
            for key in asked[0]
            if asked[0][key] is not None
        }
        output = self.model.decode(
            state.embedding_BChw, Prompts(image_index_M=index.to(self.model.device), **together)
        )
        if self._released:
            output = replace(output, single_mask=False)
        low_res_M1hw = output.best()[0].float()
        return [
            Prediction(logits_MHW=frame.logits_to_slice(low), memory=low)
            for low, frame in zip(torch.split(low_res_M1hw, counts), state.frames, strict=True)
        ]

    def _asked(self, prompts: ImagePrompts, frame: Frame) -> dict[str, Any]:
        """The prompts of one image in model pixels."""
        points, boxes = prompts.points_MN2, prompts.boxes_M4
        mask = None
        if prompts.masks_MHW is not None:
            mask = self._mask_prompt(frame.masks_to_model(prompts.masks_MHW))
        elif prompts.memory is not None:
            memory = prompts.memory.float()
            mask = memory.sigmoid() if self._feedback == "sigmoid" else memory
        return {
            "points_MN2": None if points is None else frame.to_model(points),
            "point_labels_MN": prompts.point_labels_MN,
            "boxes_M4": None if boxes is None else frame.boxes_to_model(boxes),
            "mask_M1hw": mask,
        }

    def _mask_prompt(self, mask_M1SS: Tensor) -> Tensor:
        """A mask as the probabilities or logits that these weights are used to."""
        size = self.model.spec.low_res_size
        share = functional.adaptive_avg_pool2d(mask_M1SS.float(), size)
        if self._feedback == "sigmoid":
            return share
        return torch.logit(share, eps=_CERTAIN)


class Oracle:
    """Answers the truth: scores 1 wherever the harness is right."""

    KIND = "oracle"

    def __init__(self) -> None:
        self.facts = ModelFacts(
            name="oracle", kind=self.KIND, recipe="oracle", weights_sha256="oracle"
        )
        self._truths: Sequence[Tensor] = ()

    def reveal(self, truths: Sequence[Tensor]) -> None:
        """Remember the truth of the batch."""
        self._truths = truths

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """The truth of the batch."""
        return self._truths

    def predict(self, state: Any, prompts: Sequence[ImagePrompts]) -> list[Prediction]:
        """The truth, whatever is asked."""
        return [Prediction(logits_MHW=truth.float() * 2 - 1) for truth in state]


def sam_from_file(
    name: str,
    path: Path,
    *,
    kind: str | None = None,
    device: torch.device | str = "cpu",
    edition: str = NATIVE,
) -> SamBench:
    """A weight file as a model of the benchmark.

    Args:
        name: label.
        path: safetensors of this toolkit or a published checkpoint.
        kind: what the weights are, where the file does not say; STAR leaves adapters out.
        device: where to run.
        edition: how it is fed.

    Raises:
        ModelError: not there, not a checkpoint, or of an unknown layout.
    """
    if not path.is_file():
        raise ModelError(
            f"expected the weights of {name!r} at {path}, found no file: "
            f"train one with `sammed train`, give --model {name}=PATH, or get published weights by "
            f"`sammed weights fetch NAME` and give --model {name}=NAME"
        )
    size = RELEASED.image_size if edition == AS_RELEASED else None
    known = "sam-med2d" if kind == STAR else kind
    model = load_model(path, device=device, kind=known, image_size=size)
    if kind == STAR:
        model = _without_adapters(model, path)
    return SamBench(model.to(device), name, source=str(path), edition=edition)


def _without_adapters(model: SamModel, path: Path) -> SamModel:
    if model.spec.adapters == "none":
        raise ModelError(
            f"expected adapters to leave out in {path} (kind {STAR}), found none: give it as "
            "sam-med2d"
        )
    recipe = model.metadata.get("recipe", "released weights")
    model.metadata = model.metadata | {"recipe": f"{recipe}, adapters left out"}
    return drop_adapters(model)


def from_factory(name: str, target: str) -> Model:
    """``package.module:factory`` -> what ``factory()`` returns, under the label ``name``.

    Raises:
        ModelError: it cannot be imported or is no model.
    """
    module_name, _, attribute = target.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as err:
        raise ModelError(
            f"expected a factory at {target!r} for model {name!r}, found: {err}: "
            "write package.module:function"
        ) from err
    try:
        model = factory()
    except TypeError as err:
        raise ModelError(
            f"expected a function without arguments at {target!r} for model {name!r}, found: "
            f"{err}: wrap it in one"
        ) from err
    except Exception as err:
        raise ModelError(
            f"expected a model of {target} for {name!r}, found that it raised "
            f"{type(err).__name__}: {err}; `-v` shows where"
        ) from err
    missing = [part for part in ("facts", "encode", "predict") if not hasattr(model, part)]
    if missing:
        raise ModelError(
            f"{target} returned a {type(model).__name__} without {', '.join(missing)}: a model has "
            "facts, encode(images) and predict(state, prompts), see sammed_bench.types.Model"
        )
    _fair(model, target)
    return renamed(model, name)


def _fair(model: Model, target: str) -> None:
    """Raise where a table would show a model of somebody's as what it is not."""
    kind = model.facts.kind
    if kind in _OURS:
        raise ModelError(
            f"{target} says that its kind is {kind!r}, which tables leave out of ranks and of the "
            "check of training data: say 'other', or a kind of your own"
        )
    if isinstance(model, (KnowsTruth, KnowsSamples)) and kind != Oracle.KIND:
        raise ModelError(
            f"{target} has a method reveal or introduce, by which it would be shown the true "
            f"masks, and its kind is {kind!r}: name the method otherwise, or say kind "
            f"{Oracle.KIND!r}, which is not ranked"
        )


def renamed(model: Any, name: str) -> Model:
    """The same model under another label."""
    model.facts = replace(model.facts, name=name)
    found: Model = model
    return found


# Models without a file. Weight files are given as LABEL=PATH and need no line here.
MODELS: Mapping[str, Callable[[], Model]] = {"oracle": Oracle, "second-observer": SecondObserver}
WEIGHT_NAMES = ("sam", "ft-sam", "sam-med2d", "medsam")


def known_kind(kind: str) -> str:
    """A kind of weights by name.

    Raises:
        ModelError: unknown.
    """
    if kind not in KINDS:
        raise ModelError(f"unknown kind of model {kind!r}: {nearest(kind, KINDS)}")
    return kind


__all__ = [
    "MODELS",
    "PROMPT_KINDS",
    "STAR",
    "WEIGHT_NAMES",
    "Oracle",
    "SamBench",
    "from_factory",
    "known_kind",
    "renamed",
    "sam_from_file",
]
