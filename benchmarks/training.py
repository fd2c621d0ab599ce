"""A training step of ours against the released schedule run plainly: same weights, batch, passes.

    python benchmarks/training.py --model vit_tiny --passes 4    CPU, seconds
    python benchmarks/training.py --threads 1 --cpu-time         CPU, ViT-B at 256 px: minutes
    python benchmarks/training.py --cuda --compile               one GPU, bf16, growing batches

The rival does what the released script does: upstream's blocks with the adapters run plainly on
contiguous weights, the decoder called image by image, an optimiser step after each of 1 + 8 passes
(Adam; what has no gradient rests, as under torch 2), the released loss and prompts. Ours is the
mended recipe: fast encoder, one decoder call for all masks, one step for the sum of all passes.
Rounds of all sides alternate; times are minima. The floor is an H200's (790 TFLOP/s, 4.3 TB/s):
1.7 ms a step for optimiser and weights, 0.39 ms an image.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sammed_data.system import keep_memory
from sammed_model import step
from sammed_model.adapters import adapters_of, add_adapters, train_only
from sammed_model.config import TrainConfig
from sammed_model.dataset import Batch
from sammed_model.embeddings import Embedder
from sammed_model.meter import STAGES, Meter
from sammed_model.optim import make_optimiser
from sammed_model.profiling import peak_bytes
from sammed_model.sam import SamModel, build_sam, spec_for
from sammed_model.types import DecoderOutput, Prompts

STEP_MS, IMAGE_MS = 1.7, 0.39
GIB = 2**30


@dataclass
class Side:
    """One way to take a step."""

    name: str
    work: step.Work
    learn: Callable

    def time(self, batch: Batch, number: int, clock: Callable[[], float]) -> float:
        """Milliseconds of a step, until its losses are known."""
        began = clock()
        losses, _ = self.learn(self.work, [batch], number, len(batch.masks_M1SS))
        losses.tolist()
        return 1e3 * (clock() - began)


def main() -> None:
    args = arguments()
    keep_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.only:  # a child that shows how much memory a side needs
        side = side_of(args, args.only)
        batch = batch_of(args, args.batches[0])
        side.time(batch, 0, time.perf_counter)
        print(peak_bytes(batch.images_B3SS.device))
        return
    say = (lambda *_, **__: None) if args.json else print
    about = {
        "model": args.model,
        "size": args.size,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if args.cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "masks": args.masks,
        "passes": args.passes,
        "rounds": args.rounds,
        "clock": "computing" if args.cpu_time else "wall",
    }
    say(", ".join(f"{key} {value}" for key, value in about.items()))
    cases = []
    for batch in args.batches:
        try:
            cases.append(case(args, batch, say))
        except torch.OutOfMemoryError:  # the largest batch is there to fill the card
            say(f"\nbatch {batch}: does not fit this card")
            torch.cuda.empty_cache()
    if args.json:
        print(json.dumps({"about": about, "cases": cases}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuda", action="store_true", help="on the GPU, in bf16")
    parser.add_argument("--model", default="vit_b", help="family member")
    parser.add_argument("--size", type=int, help="image side in px; default 256, vit_tiny 128")
    parser.add_argument("--batches", type=int, nargs="*", help="images together")
    parser.add_argument("--masks", type=int, default=5, help="of an image")
    parser.add_argument("--passes", type=int, default=9, help="the first and those after it")
    parser.add_argument("--rounds", type=int, default=5, help="of all sides in turn")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--bf16", action="store_true", help="ours in bf16 too, on the CPU")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile too")
    parser.add_argument("--cpu-time", action="store_true", help="computing time: a busy machine")
    parser.add_argument("--no-memory", action="store_true", help="start no child to measure it")
    parser.add_argument("--json", action="store_true", help="one document and nothing else")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.size = args.size or (128 if args.model == "vit_tiny" else 256)
    args.batches = args.batches or ([2, 8, 32, 128] if args.cuda else [2])
    return args


def case(args: argparse.Namespace, images: int, say: Callable) -> dict:
    """Time all sides on one batch, and print a table."""
    names = ["released", "ours"]
    names += ["released bf16", "ours bf16"] if args.cuda or args.bf16 else []
    names += ["ours bf16 compiled" if args.cuda else "ours compiled"] if args.compile else []
    names = [n for n in names if "bf16" in n] if args.cuda else names
    sides = [side_of(args, name) for name in names]
    batch = batch_of(args, images)
    clock = time.process_time if args.cpu_time else time.perf_counter
    for number in range(2 if args.cuda else 1):  # kernels are chosen, code is compiled
        for side in sides:
            side.time(batch, number, time.perf_counter)
    best = dict.fromkeys(names, float("inf"))
    for number in range(args.rounds):
        for side in sides:
            best[side.name] = min(best[side.name], side.time(batch, number, clock))
    say(f"\nbatch {images}: {'side':<20}{'ms':>10}{'images/s':>10}{'ratio':>8}{'peak GiB':>10}")
    found = {"batch": images, "sides": {}}
    for side in sides:
        ms, peak = best[side.name], memory(args, images, side, batch)
        floor = STEP_MS + IMAGE_MS * images
        facts = {
            "ms": ms,
            "images_per_s": 1e3 * images / ms,
            "ratio": best[names[0]] / ms,
            "peak_bytes": peak,
            "stages_ms": stages(side, batch),
        }
        line = f"{'':<{8 + len(str(images))}}{side.name:<20}{ms:10.1f}{facts['images_per_s']:10.1f}"
        line += f"{facts['ratio']:8.2f}{peak / GIB:10.2f}"
        if args.cuda and args.model == "vit_b" and args.size == 256:
            facts["share_of_floor"] = floor / ms
            line += f"   {floor / ms:.0%} of an H200's floor"
        say(line, flush=True)
        found["sides"][side.name] = facts
    say(f"  stages in ms{'':<14}" + "".join(f"{stage:>11}" for stage in STAGES[2:]))
    for name, facts in found["sides"].items():
        say(f"    {name:<22}" + "".join(f"{facts['stages_ms'][s]:11.1f}" for s in STAGES[2:]))
    return found


def stages(side: Side, batch: Batch) -> dict[str, float]:
    """Milliseconds by stage of a further step, which waits at their borders."""
    meter = Meter(batch.images_B3SS.device, on=True)
    work = step.Work(
        model=side.work.model,
        config=side.work.config,
        optimiser=side.work.optimiser,
        embedder=side.work.embedder,
        meter=meter,
    )
    Side(side.name, work, side.learn).time(batch, 0, time.perf_counter)
    return {stage: round(1e3 * seconds, 3) for stage, seconds in meter.seconds.items()}


def memory(args: argparse.Namespace, images: int, side: Side, batch: Batch) -> int:
    """Most bytes: of a step on the GPU, of a process that takes one step on the CPU."""
    if args.cuda:
        torch.cuda.reset_peak_memory_stats()
        side.time(batch, 0, time.perf_counter)
        return torch.cuda.max_memory_allocated()
    if args.no_memory or "compiled" in side.name:
        return 0
    command = [sys.executable, __file__, "--only", side.name, "--model", args.model]
    numbers = {"size": args.size, "batches": images, "masks": args.masks, "passes": args.passes}
    command += [word for name, n in numbers.items() for word in (f"--{name}", str(n))]
    command += ["--threads", str(torch.get_num_threads())]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def side_of(args: argparse.Namespace, name: str) -> Side:
    """``released`` or ``ours``, maybe ``bf16``, maybe ``compiled``; the weights are the same."""
    released = name.startswith("released")
    config = TrainConfig(
        recipe="released" if released else "mended",
        mends=("fresh-momentum",) if released else (),
        passes=args.passes,
        steps=1,
        precision="bf16" if "bf16" in name else "fp32",
    )
    spec = spec_for(args.model, image_size=args.size)
    model = build_sam(spec, seed=0)
    add_adapters(model, seed=0)
    train_only(model, "sam-med2d")
    model.to("cuda" if args.cuda else "cpu")
    if released:
        model.fast = False
        for adapter in adapters_of(model):
            adapter.to(memory_format=torch.contiguous_format)
        model.decode = image_by_image(model)
    if "compiled" in name:
        from sammed_model.compiled import compile_model

        compile_model(model)
    work = step.Work(
        model=model,
        config=config,
        optimiser=make_optimiser(model, config),
        embedder=Embedder(model, 0),
        meter=Meter(),
    )
    return Side(name, work, step._step_a_pass if released else step._one_step)


def image_by_image(model: SamModel) -> Callable[[Tensor, Prompts], DecoderOutput]:
    """The decoder called for the masks of one image at a time."""
    together = copy.copy(model.decode)

    def decode(embedding_BChw: Tensor, prompts: Prompts) -> DecoderOutput:
        outputs = []
        for number, embedding in enumerate(embedding_BChw):
            own = torch.nonzero(prompts.image_index_M == number)[:, 0]
            if not len(own):
                continue
            given = {name: getattr(prompts, name) for name in PROMPTED}
            some = {k: v[own] for k, v in given.items() if v is not None}
            asked = Prompts(image_index_M=torch.zeros_like(own), **some)
            outputs.append((own, together(embedding[None], asked)))
        order = torch.cat([own for own, _ in outputs]).argsort()
        return DecoderOutput(
            low_res_MKhw=torch.cat([o.low_res_MKhw for _, o in outputs])[order],
            iou_MK=torch.cat([o.iou_MK for _, o in outputs])[order],
        )

    return decode


PROMPTED = ("points_MN2", "point_labels_MN", "boxes_M4", "mask_M1hw")


def batch_of(args: argparse.Namespace, images: int) -> Batch:
    """Noise with ellipses, made from numbers."""
    generator = torch.Generator().manual_seed(0)
    size, m = args.size, images * args.masks
    grid = torch.arange(size).float()
    centre = size * (0.25 + 0.5 * torch.rand(2, m, 1, 1, generator=generator))
    radius = size * (0.05 + 0.2 * torch.rand(2, m, 1, 1, generator=generator))
    y, x = (grid[:, None] - centre[0]) / radius[0], (grid[None] - centre[1]) / radius[1]
    batch = Batch(
        images_B3SS=torch.randn(images, 3, size, size, generator=generator),
        masks_M1SS=(x**2 + y**2 < 1)[:, None],
        valid_B1SS=torch.ones(images, 1, size, size, dtype=torch.bool),
        image_index_M=torch.arange(images).repeat_interleave(args.masks),
        seeds_M=torch.arange(m) * 7919,
        keys=tuple(map(str, range(images))),
    )
    return batch.to(torch.device("cuda" if args.cuda else "cpu"))


if __name__ == "__main__":
    main()
