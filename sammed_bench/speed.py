"""Latency, throughput and memory of a model, measured beside the scores; never part of them.

One image at a time, after a warm-up: the encoder once per image, the decoder once per prompt (the
tight box, or what the model takes instead). Written to ``speed.json``; it differs from run to run.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sammed_bench.ask import Asked, accepts
from sammed_bench.conditions import Conditions
from sammed_bench.files import read_records, update_records
from sammed_bench.modes import thread_of
from sammed_bench.saved import KIND as SAVED
from sammed_bench.types import ImagePrompts, KnowsTruth, Model
from sammed_data.system import peak_bytes
from sammed_data.types import SammedError
from sammed_model.dataset import Samples

FILE = "speed.json"
WARM_UP, IMAGES = 3, 20
_PERCENTILES = (50, 90, 99)


def measure(
    model: Model, samples: Samples, conditions: Conditions, device: str, *, images: int = IMAGES
) -> dict[str, Any] | None:
    """Milliseconds per image and per prompt, and peak memory; None where it answers nothing.

    Args:
        model: on its device.
        samples: reader of the scored images.
        conditions: whose first mode that the model takes is timed.
        device: cpu or cuda.
        images: timed, after WARM_UP more.
    """
    mode = next((mode for mode in conditions.modes if accepts(model, mode)), None)
    rows = samples.rows[: images + WARM_UP]
    if mode is None or not rows or model.facts.kind == SAVED:
        return None
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    encoded, prompted = [], []
    for number, index in enumerate(rows):
        row = samples.pixels(index)[0]
        masks = samples.masks[index.sample_id][:1]
        asked = Asked.of(row, masks, conditions, device)
        prompts = asked.opening[thread_of(mode)]
        try:
            seconds = _one(model, asked, prompts, device)
        except (SammedError, RuntimeError, ValueError, TypeError, IndexError, KeyError):
            return None  # its failures are counted where it is scored
        if number >= min(WARM_UP, len(rows) - 1):
            encoded.append(seconds[0])
            prompted.append(seconds[1])
    return {
        "model": model.facts.name,
        "mode": mode,
        "timed_images": len(encoded),
        **_milliseconds("image", encoded),
        **_milliseconds("prompt", prompted),
        "images_per_second": 1 / float(np.mean(np.add(encoded, prompted))),
        "peak_mb": _peak_mb(device),
        "device": _device(device),
    }


def _one(model: Model, asked: Asked, prompts: ImagePrompts, device: str) -> tuple[float, float]:
    """Seconds of the encoder and of one prompt."""
    if isinstance(model, KnowsTruth):
        model.reveal([asked.target.truth_MHW])
    image = asked.row.image
    state, encode = _timed(lambda: model.encode([] if image is None else [image]), device)
    _, predict = _timed(lambda: model.predict(state, [prompts]), device)
    return encode, predict


def _timed(work: Callable[[], Any], device: str) -> tuple[Any, float]:
    _wait(device)
    began = time.perf_counter()
    found = work()
    _wait(device)
    return found, time.perf_counter() - began


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _milliseconds(what: str, seconds: Sequence[float]) -> dict[str, float]:
    values = np.percentile(np.asarray(seconds) * 1000, _PERCENTILES)
    return {f"{what}_ms_p{p}": float(v) for p, v in zip(_PERCENTILES, values, strict=True)}


def _peak_mb(device: str) -> float:
    """Of the model on a GPU; of the whole process on a CPU."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated() / 2**20)
    return peak_bytes() / 2**20


def _device(device: str) -> str:
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name())
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def write(folder: Path, found: Iterable[Mapping[str, Any] | None]) -> None:
    """Leave ``speed.json``; models of an earlier run in the folder stay listed."""
    update_records(folder / FILE, (entry for entry in found if entry is not None))


def read(folder: Path) -> list[dict[str, Any]]:
    """What was measured in a results folder; empty where nothing was."""
    return read_records(folder / FILE)
