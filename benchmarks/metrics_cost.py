"""What the metrics cost a mask, and their share of a run with ViT-B on this machine.

OMP_NUM_THREADS=1 python benchmarks/metrics_cost.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from sammed_bench.metrics import dice, iou, overlap
from sammed_bench.surface import NAMES, Ruler, surface_scores
from sammed_bench.types import ImagePrompts

SIZE = 512
MASKS, MODES = 4, 3
RULER = Ruler(spacing_yx=(0.8, 0.8), unit="mm")


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Ellipses of 0.15 to 20 % of the slice and the same moved and grown a little."""
    y, x = np.mgrid[:SIZE, :SIZE]
    radii = SIZE * np.sqrt(np.array([0.0015, 0.01, 0.05, 0.2]) / np.pi)
    masks = [
        [
            ((y - 256 - move) / (0.8 * r * grow)) ** 2 + ((x - 256) / (1.25 * r * grow)) ** 2 <= 1
            for r in radii
        ]
        for move, grow in ((0, 1), (4, 1.1))
    ]
    predicted, truth = (torch.from_numpy(np.stack(group)) for group in masks)
    return predicted, truth


def median_ms(work: Callable[[], object], rounds: int) -> float:
    """Of some rounds, after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def model_ms() -> float:
    """An image: encoded once, MASKS masks asked about in MODES modes."""
    from sammed_bench.models import SamBench
    from sammed_model.sam import build_sam, spec_for

    model = SamBench(build_sam(spec_for("vit_b"), 0, kind="sam-med2d"), "random")
    image = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE), dtype=np.uint8)
    prompts = ImagePrompts(boxes_M4=torch.tensor([[100.0, 100.0, 300.0, 260.0]] * MASKS))

    def work() -> None:
        state = model.encode([image])
        for _ in range(MODES):
            model.predict(state, [prompts])

    with torch.inference_mode():
        return median_ms(work, 3)


def main() -> None:
    """Print milliseconds a mask and shares."""
    torch.set_num_threads(1)
    predicted, truth = pairs()

    def overlaps() -> None:
        counts = overlap(predicted, truth)
        dice(counts), iou(counts)

    costs = {"dice, iou": median_ms(overlaps, 30) / MASKS}
    both = list(zip(predicted.numpy(), truth.numpy(), strict=True))
    for name in (["nsd", "hd95"], ["boundary_iou"], list(NAMES)):
        made = median_ms(lambda n=name: [surface_scores(a, b, RULER, n) for a, b in both], 30)
        costs[", ".join(name)] = made / MASKS
    for name, cost in costs.items():
        print(f"{name}: {cost:.2f} ms a mask", flush=True)
    model = model_ms()
    print(f"ViT-B, one image of {SIZE} px, {MASKS} masks x {MODES} modes: {model:.0f} ms")
    for name, cost in costs.items():
        spent = cost * MASKS * MODES
        print(f"{name}: {100 * spent / (spent + model):.1f} % of the run")


if __name__ == "__main__":
    main()
