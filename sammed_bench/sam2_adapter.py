"""SAM 2 and 2.1 behind the two methods: ``--model sam2=sam2:CHECKPOINT`` (extra ``sam2``).

Thin: all goes through ``SAM2ImagePredictor``'s public batch methods, so its own preparation holds.
Where one click is all there is three masks are asked for and the best by predicted IoU is taken, as
its documentation advises; else one. Its low-res logits are fed back.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sammed_bench.types import ImagePrompts, ModelFacts, Prediction
from sammed_data.types import ModelError

KIND = "sam2"
_LOW_RES = 256
# A coarse mask becomes logits; certainty is cut at this share.
_CERTAIN = 1e-3
# Words in a published file's name -> the end of its configuration's name.
_SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


class Sam2Bench:
    """A ``SAM2ImagePredictor`` as a model of the benchmark.

    Args:
        predictor: on its device.
        name: label.
        digest: of the weights.
        source: where they came from.
    """

    def __init__(self, predictor: Any, name: str, *, digest: str, source: str = "") -> None:
        self._predictor = predictor
        self._seen: object = None
        self.facts = ModelFacts(
            name=name,
            kind=KIND,
            recipe="released weights",
            weights_sha256=digest,
            source=source,
            image_px=getattr(predictor.model, "image_size", None),
        )

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> object:
        """One pass of the encoder; the predictor remembers the newest batch alone."""
        rgb = [i if i.ndim == 3 else np.repeat(i[:, :, None], 3, axis=2) for i in images]
        self._predictor.set_image_batch(rgb)
        self._seen = object()
        return self._seen

    @torch.inference_mode()
    def predict(self, state: object, prompts: Sequence[ImagePrompts]) -> list[Prediction]:
        """Logits of the masks of each image.

        Raises:
            ModelError: another batch was encoded since.
        """
        if state is not self._seen:
            raise ModelError("expected prompts for the newest batch of images: encode it again")
        several = _one_click(prompts[0])
        masks, shares, low = self._predictor.predict_batch(
            point_coords_batch=_arrays([p.points_MN2 for p in prompts]),
            point_labels_batch=_arrays([p.point_labels_MN for p in prompts]),
            box_batch=_arrays([p.boxes_M4 for p in prompts]),
            mask_input_batch=_arrays([_low_res(p) for p in prompts]),
            multimask_output=several,
            return_logits=True,
        )
        made = zip(masks, shares, low, prompts, strict=True)
        return [_best(m, s, rough, len(p)) for m, s, rough, p in made]


def _one_click(prompts: ImagePrompts) -> bool:
    points = prompts.points_MN2
    alone = prompts.boxes_M4 is None and prompts.masks_MHW is None
    return alone and points is not None and points.shape[1] == 1


def _arrays(values: Sequence[Tensor | None]) -> list[NDArray[Any]] | None:
    found = [value.cpu().numpy() for value in values if value is not None]
    return found or None


def _low_res(prompts: ImagePrompts) -> Tensor | None:
    """Logits of the round before, or of a coarse mask, (M, 1, 256, 256)."""
    if prompts.memory is not None:
        memory: Tensor = prompts.memory
        return memory
    if prompts.masks_MHW is None:
        return None
    share = functional.adaptive_avg_pool2d(prompts.masks_MHW[:, None].float(), _LOW_RES)
    return torch.logit(share, eps=_CERTAIN)


def _best(masks: NDArray[Any], shares: NDArray[Any], low: NDArray[Any], count: int) -> Prediction:
    """The mask of the highest predicted IoU; the predictor drops the axis of a single object."""
    logits_MKHW = torch.as_tensor(masks).reshape(count, -1, *masks.shape[-2:])
    low_MKhw = torch.as_tensor(low).reshape(count, -1, *low.shape[-2:])
    best_M = torch.as_tensor(shares).reshape(count, -1).argmax(dim=1)
    which = torch.arange(count)
    return Prediction(
        logits_MHW=logits_MKHW[which, best_M], memory=low_MKhw[which, best_M][:, None]
    )


def config_of(path: Path) -> str:
    """The configuration of a published checkpoint, by its name.

    Raises:
        ModelError: a name that says no size.
    """
    stem = path.stem
    family = "sam2.1" if stem.startswith("sam2.1") else "sam2"
    for word, short in _SIZES.items():
        if stem == f"{family}_hiera_{word}":
            return f"configs/{family}/{family}_hiera_{short}.yaml"
    raise ModelError(
        f"expected a checkpoint with its published name (sam2.1_hiera_{'|'.join(_SIZES)}.pt, or "
        f"sam2_hiera_...), found {path.name}: rename it, or write a package:factory that returns "
        "sammed_bench.sam2_adapter.Sam2Bench"
    )


def sam2_from_file(name: str, path: Path, *, device: torch.device | str = "cpu") -> Sam2Bench:
    """A published checkpoint as a model.

    Raises:
        ModelError: no file, no package ``sam2``, or a name that says no size.
    """
    if not path.is_file():
        raise ModelError(f"expected a checkpoint of SAM 2 for {name!r} at {path}, found no file")
    config = config_of(path)
    try:
        build = importlib.import_module("sam2.build_sam").build_sam2
        predictor = importlib.import_module("sam2.sam2_image_predictor").SAM2ImagePredictor
    except ImportError as err:
        raise ModelError(
            f"expected the package sam2 for model {name!r}, found: {err}: run `pip install "
            "'sammed[sam2]'`"
        ) from err
    model = build(config, str(path), device=str(device))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Sam2Bench(predictor(model), name, digest=digest, source=str(path))
