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
from collections.abc import Callable
from contextlib import nullcontext

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
    print(f"vit_b at {args.size} px, torch {torch.__version__}, {device} ({name}), "
          f"{platform.machine()}, load {os.getloadavg()[0]:.1f}; ms, released / ours")  # fmt: skip
    print(f"{'case':<28}{'released':>10}{'ours':>10}{'ratio':>8}{'error':>10}")
    for adapters in (False, True):
        ours, released = models(args.size, adapters, device)
        for precision in ("bf16",) if args.cuda else ("fp32", "bf16"):
            for batch in args.batches or ((8, 32, 128) if args.cuda else (1, 4)):
                case(args, ours, released, adapters, precision, batch)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuda", action="store_true", help="on the GPU")
    parser.add_argument("--size", type=int, default=256, help="image side in px")
    parser.add_argument("--batches", type=int, nargs="*", help="images together")
    parser.add_argument("--rounds", type=int, default=10, help="of both sides in turn")
    parser.add_argument("--threads", type=int, help="CPU threads")
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
    args: argparse.Namespace,
    ours: SamModel,
    released: SamModel,
    adapters: bool,
    precision: str,
    batch: int,
) -> None:
    device = ours.device
    x = torch.randn(batch, 3, args.size, args.size).to(device)
    autocast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    with torch.inference_mode(), autocast:
        theirs, mine = released.encode(x), ours.encode(x)
        error = float((mine.double() - theirs.double()).norm() / theirs.double().norm())
        slow, quick = interleaved(
            (lambda: released.encode(x), lambda: ours.encode(x)), args.rounds, device
        )
    label = f"{precision} batch {batch} {'adapters' if adapters else 'plain'}"
    line = f"{label:<28}{slow:10.1f}{quick:10.1f}{slow / quick:8.2f}{error:10.1e}"
    if device.type == "cuda" and args.size == 256:
        rate = 1e3 * batch / quick
        padded, floor = FLOORS[adapters]
        line += (f"   {rate:,.0f} images/s: {rate / padded:.0%} of the H200 floor with "
                 f"padded tokens, {rate / floor:.0%} without")  # fmt: skip
    print(line, flush=True)


def interleaved(
    sides: tuple[Callable[[], Tensor], Callable[[], Tensor]], rounds: int, device: torch.device
) -> tuple[float, float]:
    """Best time of each side in ms; the sides take turns, so that both meet the same machine."""
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for i, side in enumerate(sides):
            began = time.perf_counter()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best[i] = min(best[i], 1e3 * (time.perf_counter() - began))
    return best[0], best[1]


if __name__ == "__main__":
    main()
