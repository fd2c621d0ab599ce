"""Our encoder against the released arithmetic, same weights, same run, interleaved rounds.

    python benchmarks/encoder.py            CPU, ViT-B at 256 px: minutes
    python benchmarks/encoder.py --cuda     one GPU, bf16, large batches, and the share of the floor

The rival is upstream's blocks with the adapters run plainly, on convolution weights as published
(contiguous). Both sides run under the same allocator settings. Ratios are of minima.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import time

import torch
from torch import Tensor

from sammed_model.adapters import adapters_of, add_adapters
from sammed_model.console import keep_memory
from sammed_model.sam import SamModel, build_sam, spec_for

# Images/s one H200 could encode at 256 px: with the padded tokens, and without
# (790 TFLOP/s bf16; 69.0 / 46.4 GFLOP an image plain, 91.7 / 69.0 with adapters).
FLOORS = {False: (11_400, 17_000), True: (8_600, 11_400)}


def main() -> None:
    args = arguments()
    keep_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if args.cuda else "cpu"
    name = torch.cuda.get_device_name() if args.cuda else f"{torch.get_num_threads()} threads"
    print(
        f"vit_b at {args.size} px, torch {torch.__version__}, {device} ({name}), "
        f"{platform.machine()}, load {os.getloadavg()[0]:.1f}, {args.rounds} rounds, "
        f"minima of {'computing' if args.cpu_time else 'wall'} time in ms"
    )
    print(f"{'case':<24}{'released':>10}{'ours':>10}{'ratio':>8}{'to fp32':>9}{'error':>10}")
    for adapters in (False, True):
        ours, released = models(args.size, adapters, device)
        for batch in args.batches or ((8, 32, 128) if args.cuda else (1, 4)):
            case(args, ours, released, adapters, batch)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuda", action="store_true", help="on the GPU")
    parser.add_argument("--size", type=int, default=256, help="image side in px")
    parser.add_argument("--batches", type=int, nargs="*", help="images together")
    parser.add_argument("--rounds", type=int, default=10, help="of both sides in turn")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="computing time, not wall time: for a busy machine, with --threads 1",
    )
    return parser.parse_args()


def models(size: int, adapters: bool, device: str) -> tuple[SamModel, SamModel]:
    """Ours and the released arithmetic, which has the same weights in the published layout."""
    ours = build_sam(spec_for("vit_b", image_size=size), device=device).eval()
    if adapters:
        add_adapters(ours, zero_init=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in ours.image_encoder.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    released = copy.deepcopy(ours)
    released.fast = False
    for adapter in adapters_of(released):
        adapter.to(memory_format=torch.contiguous_format)
    return ours, released


def case(
    args: argparse.Namespace, ours: SamModel, released: SamModel, adapters: bool, batch: int
) -> None:
    """Time both models in both precisions in turn; a line for each precision.

    ``ratio`` is at equal precision, ``to fp32`` against the released arithmetic in float32;
    ``error`` is the relative distance to the latter.
    """
    x = torch.randn(batch, 3, args.size, args.size).to(ours.device)
    sides = [(model, bf16) for bf16 in (False, True) for model in (released, ours)]
    wanted = encode(released, x, False).double()
    errors = [
        float((encode(model, x, bf16).double() - wanted).norm() / wanted.norm())
        for model, bf16 in sides
    ]
    clock = time.process_time if args.cpu_time else time.perf_counter
    best = [float("inf")] * len(sides)
    for _ in range(args.rounds):
        for i, (model, bf16) in enumerate(sides):
            began = clock()
            encode(model, x, bf16)
            best[i] = min(best[i], 1e3 * (clock() - began))
    for i, precision in ((0, "fp32"), (2, "bf16")):
        theirs, mine = best[i : i + 2]
        label = f"{precision} batch {batch} {'adapters' if adapters else 'plain'}"
        line = (
            f"{label:<24}{theirs:10.1f}{mine:10.1f}{theirs / mine:8.2f}{best[0] / mine:9.2f}"
            f"{errors[i + 1]:10.1e}"
        )
        if args.cuda and args.size == 256 and precision == "bf16":
            rate, (padded, floor) = 1e3 * batch / mine, FLOORS[adapters]
            line += (
                f"   {rate:,.0f} images/s: {rate / padded:.0%} of an H200's floor with padded "
                f"tokens, {rate / floor:.0%} without"
            )
        print(line, flush=True)


def encode(model: SamModel, x_BCHW: Tensor, bf16: bool) -> Tensor:
    """The embedding, once the device has it."""
    with torch.inference_mode(), torch.autocast(x_BCHW.device.type, torch.bfloat16, enabled=bf16):
        out = model.encode(x_BCHW)
    if out.device.type == "cuda":
        torch.cuda.synchronize()
    return out


if __name__ == "__main__":
    main()
