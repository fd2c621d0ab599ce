"""What ``--profile`` says at the end of a run: speed, stages, memory, share of the machine."""

from __future__ import annotations

import time

import torch

from sammed_data import system
from sammed_model.flops import step_flops
from sammed_model.meter import STAGES
from sammed_model.runs import Progress
from sammed_model.setup import Run

_MATMUL_SIDE = {"cpu": 1024, "cuda": 8192}
_MATMUL_SECONDS = 0.5
_GIB = 2**30


def profile_lines(run: Run, before: Progress) -> list[str]:
    """Sentences and a line for each stage.

    Args:
        run: that has been trained, with its meter on.
        before: its progress when it began or was resumed.
    """
    now = run.progress
    seconds = max(now.seconds - before.seconds, 1e-9)
    images, masks = now.images - before.images, now.masks - before.masks
    lines = [
        f"profile: {images / seconds:.1f} images/s, {masks / seconds:.1f} masks/s with "
        f"{run.config.passes} passes each, over {now.step - before.step} steps in {seconds:.1f} s"
    ]
    spent = run.meter.seconds
    for stage in STAGES:
        waits = " (waiting for data)" if stage == "load" else ""
        lines.append(f"  {stage:<9} {spent[stage]:8.2f} s  {spent[stage] / seconds:6.1%}{waits}")
    rest = max(0.0, seconds - sum(spent.values()))
    lines.append(f"  {'other':<9} {rest:8.2f} s  {rest / seconds:6.1%}")
    lines.append(f"  peak memory {peak_bytes(run.model.device) / _GIB:.2f} GiB")
    lines.append(_utilisation(run, before, seconds))
    return lines


def _utilisation(run: Run, before: Progress, seconds: float) -> str:
    config, now, device = run.config, run.progress, run.model.device
    done = step_flops(
        run.model.spec,
        config.method,
        images=(now.images - before.images) // run.world.size,
        masks=(now.masks - before.masks) // run.world.size,
        passes=config.passes,
        encoded=run.embedder.encoded,
        fast=config.fast,
    )
    rate = matmul_rate(device, torch.bfloat16 if config.precision == "bf16" else torch.float32)
    where = f"{torch.get_num_threads()} CPU threads" if device.type == "cpu" else str(device)
    return (
        f"  model FLOP utilisation {done / seconds / rate:.1%}: {done / seconds / 1e9:.1f} GFLOP/s "
        f"counted from the sizes, of {rate / 1e9:.0f} GFLOP/s that a matrix product reaches "
        f"({config.precision}, {where}, measured now)"
    )


def peak_bytes(device: torch.device) -> int:
    """Most memory held so far: of the GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return system.peak_bytes()


@torch.no_grad()
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of square matrix products, the best of those that fit half a second."""
    side = _MATMUL_SIDE.get(device.type, 1024)
    a = torch.ones(side, side, device=device, dtype=dtype)
    best, until = 0.0, time.perf_counter() + _MATMUL_SECONDS
    while time.perf_counter() < until or best == 0.0:
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best
