"""The benchmark's loop against the released evaluation loop written plainly, both run whole.

    python benchmarks/bench.py                      CPU, ViT-B with adapters at 256 px: 3 minutes
    python benchmarks/bench.py --threads 1 --cpu-time    computing time, for a busy machine
    python benchmarks/bench.py --model vit_tiny     seconds; its gates do not count

Exit code 1: a gate failed (10 x at 4.3 masks an image, 20 x at 10), or the scores differ.

The rival does what the released script does: every mask of every mode is an item of its own, its
image and mask are read from PNG, normalised and resized, the encoder runs, the mask is prompted and
decoded alone, round after round, brought to the slice and scored (the released loss, which nobody
reads, is left out). Both sides have the same model, our fast encoder included; ``--plain-encoder``
gives the rival upstream's blocks. Prompts come from the same functions, one mask at a time there.
Ours is ``run.bench_corpus``: shards in, score rows, clicks and prompts out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sammed_bench import protocols
from sammed_bench.conditions import Conditions
from sammed_bench.models import SamBench
from sammed_bench.modes import rounds_of
from sammed_bench.openings import Store
from sammed_bench.protocols import SAM_MED2D, Target
from sammed_bench.run import bench_corpus, prompts_path
from sammed_bench.scores import read_scores
from sammed_data import codecs
from sammed_data.corpus import SCHEMA, Corpus
from sammed_data.system import keep_memory
from sammed_model.adapters import add_adapters
from sammed_model.frame import MEAN, STD, Frame, Preprocessing
from sammed_model.sam import SamModel, build_sam, spec_for
from sammed_model.types import Prompts

MODES = ("bbox", "1pt", "3pt", "5pt")
# Masks of each image (the first has the corpus' mean of 4.3 or a little less) and the least ratio.
CASES = (((4, 5, 4, 4), 10.0), ((10, 10), 20.0))
SIZES = ((512, 512), (320, 448), (200, 240), (480, 640))
# What `design` allows across batch sizes: this share of rows within this Dice.
WITHIN, SHARE = 1e-4, 0.98


@dataclass(frozen=True, kw_only=True)
class Side:
    """Seconds of each run of a side and its Dice by (sample, mask, mode)."""

    seconds: list[float]
    dice: dict[tuple[str, int, str], float]


def main() -> int:
    args = arguments()
    keep_memory()
    torch.set_num_threads(args.threads)
    model = model_of(args)
    print(
        f"{args.model} with adapters at {model.spec.image_size} px, torch {torch.__version__}, "
        f"{args.threads} threads of {platform.machine()}, load {os.getloadavg()[0]:.1f}, modes "
        f"{','.join(MODES)}, {'computing' if args.cpu_time else 'wall'} time; the rival's encoder: "
        f"{'upstream' if args.plain_encoder else 'ours'}"
    )
    gates = []
    for counts, least in CASES:
        gates.append((sum(counts) / len(counts), least, case(args, model, counts)))
    print()
    good = True
    for masks, least, (ratio, same) in gates:
        counts = args.model == "vit_b"
        good &= same and (ratio >= least or not counts)
        verdict = ("pass" if ratio >= least else "FAIL") if counts else "    "
        print(f"{verdict}  {masks:g} masks an image: {ratio:.1f} x, at least {least:g} x")
    return int(not good)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_b", help="family member")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--cpu-time", action="store_true", help="computing time: a busy machine")
    parser.add_argument("--plain-encoder", action="store_true", help="upstream's for the rival")
    parser.add_argument("--rounds", type=int, default=3, help="of ours, around the rival's one")
    return parser.parse_args()


def model_of(args: argparse.Namespace) -> SamModel:
    """Random weights, adapters that count, and the released way to prepare an image."""
    size = 256 if args.model == "vit_b" else None
    model = build_sam(spec_for(args.model, image_size=size), kind="sam-med2d").eval()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        add_adapters(model, zero_init=False)
    model.preprocessing = Preprocessing.named("released", model.spec.image_size)
    return model.requires_grad_(False)


def case(args: argparse.Namespace, model: SamModel, counts: tuple[int, ...]) -> tuple[float, bool]:
    """Both sides on one corpus: how many times as fast ours is, and whether they agree."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    with TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder), counts)
        conditions = Conditions(
            corpus_sha256=corpus.content_hash, splits=("test",), modes=MODES, protocol=SAM_MED2D
        )
        runs = 0
        # Built once, as the rival's model is: loading and digesting weights is no part of the loop.
        bench = SamBench(model, "ours")

        def timed(work: Callable[[], Any]) -> tuple[float, Any]:
            began = clock()
            found = work()
            return clock() - began, found

        def ours() -> Path:
            nonlocal runs
            runs += 1
            out = Path(folder) / f"results-{runs}"
            bench_corpus(corpus, bench, conditions, out=out)
            return out

        ours()  # warm-up
        before = [timed(ours) for _ in range((args.rounds + 1) // 2)]
        model.fast = not args.plain_encoder
        seconds, plain = timed(lambda: released(model, Path(folder), SAM_MED2D))
        model.fast = True
        after = [timed(ours) for _ in range(args.rounds // 2)]
        out = before[0][1]
        rows = read_scores(out)
        keys = zip(rows["sample_id"], rows["mask_index"], rows["mode"], strict=True)
        mine = Side(
            seconds=[s for s, _ in before + after],
            dice=dict(zip(keys, rows["dice"], strict=True)),
        )
        same = prompts_agree(corpus, prompts_path(out, conditions, 0))
    work = sum(counts) * len(MODES)
    median = float(np.median(mine.seconds))
    print(f"\n{len(counts)} images, {sum(counts)} masks, {work} masks x modes")
    print(f"  released loop: {seconds:.1f} s, {work / seconds:.2f} a second")
    spread = ", ".join(f"{s:.2f}" for s in mine.seconds)
    print(f"  ours: {median:.2f} s (runs {spread}), {work / median:.1f} a second", flush=True)
    return seconds / median, scores_agree(plain, mine.dice) and same


def write_corpus(root: Path, counts: tuple[int, ...]) -> Corpus:
    """Ellipses in noise: shards for ours, PNG files for the released loop."""
    rows = [image_row(root, n, masks) for n, masks in enumerate(counts)]
    path = root / "data" / "test" / "ellipses-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    shard = {"path": path.relative_to(root).as_posix(), "rows": len(rows), "masks": sum(counts)}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {"schema_version": 1, "shards": [shard], "content_sha256": digest}
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return Corpus(root)


def image_row(root: Path, number: int, n_masks: int) -> dict:
    """One image with its masks; also written as PNG, colour image and 0/255 masks."""
    height, width = SIZES[number % len(SIZES)]
    rng = np.random.default_rng(number)
    image = rng.normal(70, 15, (height, width))
    masks = []
    y, x = np.mgrid[:height, :width]
    for _ in range(n_masks):
        ry, rx = rng.uniform(0.04, 0.2, 2) * (height, width)
        cy, cx = rng.uniform(ry, height - ry), rng.uniform(rx, width - rx)
        masks.append(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1)
        image[masks[-1]] += rng.uniform(40, 120)
    pixels = image.clip(0, 255).astype(np.uint8)
    folder = root / "png" / f"ellipses-{number}"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "image.png"), cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR))
    for i, mask in enumerate(masks):
        cv2.imwrite(str(folder / f"{i}.png"), mask.astype(np.uint8) * 255)
    return dict.fromkeys(SCHEMA.names) | {
        "schema_version": 1,
        "sample_id": folder.name,
        "image": {"bytes": codecs.encode_image(pixels), "path": None},
        "masks": [mask_row(i, mask) for i, mask in enumerate(masks)],
        "annotated_structures": ["ellipse"],
        "dataset": "ellipses",
        "modality": "ct",
        "case_id": folder.name,
        "patient_id": folder.name,
        "cluster": "patient",
        "split": "test",
        "height": height,
        "width": width,
        "spacing_y_mm": 0.8,
        "spacing_x_mm": 0.7,
        "license": "CC0-1.0",
        "content_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }


def mask_row(index: int, mask_HW: np.ndarray) -> dict:
    y, x = np.nonzero(mask_HW)
    return {
        **dict.fromkeys(("label", "structure", "organ", "group"), "ellipse"),
        "kind": "organ",
        "side": "",
        "instance": 1,
        "annotator": 1,
        "n_components": 1,
        "raw_value": str(index + 1),
        "source_index": 0,
        "area_px": len(y),
        "box_xyxy": [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1],
        "touches_border": False,
        "mask": {"bytes": codecs.encode_mask(mask_HW), "path": None},
    }


def released(
    model: SamModel, root: Path, protocol: protocols.Protocol
) -> dict[tuple[str, int, str], float]:
    """The released loop: Dice of each mask in each mode, nothing shared between two of them."""
    found = {}
    with torch.inference_mode():
        for mode in MODES:
            for folder, index in items(root):
                found[folder.name, index, mode] = one_item(model, protocol, folder, index, mode)
    return found


def items(root: Path) -> Iterator[tuple[Path, int]]:
    """Every mask."""
    for folder in sorted((root / "png").iterdir()):
        for index in range(len(list(folder.iterdir())) - 1):
            yield folder, index


def one_item(
    model: SamModel, protocol: protocols.Protocol, folder: Path, index: int, mode: str
) -> float:
    """Read, encode, prompt and decode one mask alone, score it at the size of its slice."""
    size = model.spec.image_size
    image = cv2.imread(str(folder / "image.png"))
    mask = torch.from_numpy(cv2.imread(str(folder / f"{index}.png"), 0) == 255)[None]
    x_13SS, frame = prepare(image, size)
    target = Target.of(protocol, folder.name, [index], mask, torch.ones_like(mask[0]))
    embedding = model.encode(x_13SS)
    asked = first_prompt(protocol, target, mode)
    logits = torch.zeros(0)
    memory: Tensor | None = None
    for round in range(max(1, rounds_of(mode))):
        if round:
            xy, label = protocols.next_clicks(protocol, target, logits > 0, round, 0)
            asked["points_MN2"] = torch.cat([asked["points_MN2"], xy[:, None]], dim=1)
            asked["point_labels_MN"] = torch.cat([asked["point_labels_MN"], label[:, None]], dim=1)
        memory, logits = answer(model, embedding, frame, asked, memory)
    return dice_of(logits > 0, mask)


def prepare(image: np.ndarray, size: int) -> tuple[Tensor, Frame]:
    """Normalised in float64, then padded or stretched by the nearest pixel, as released."""
    normal = (image - np.array(MEAN)) / np.array(STD)
    frame = Preprocessing.named("released", size).frame(*image.shape[:2])
    inner = (frame.inner_width, frame.inner_height)
    normal = cv2.resize(normal, inner, interpolation=cv2.INTER_NEAREST)
    right, bottom = size - inner[0] - frame.pad_left, size - inner[1] - frame.pad_top
    padded = cv2.copyMakeBorder(
        normal, frame.pad_top, bottom, frame.pad_left, right, cv2.BORDER_CONSTANT
    )
    return torch.from_numpy(padded.transpose(2, 0, 1)).float()[None], frame


def first_prompt(protocol: protocols.Protocol, target: Target, mode: str) -> dict[str, Tensor]:
    if mode == "bbox":
        return {"boxes_M4": protocols.boxes(protocol, target)}
    xy, label = protocols.first_clicks(protocol, target, 0)
    return {"points_MN2": xy[:, None], "point_labels_MN": label[:, None]}


def answer(
    model: SamModel,
    embedding: Tensor,
    frame: Frame,
    asked: dict[str, Tensor],
    memory: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Low-res logits and logits at the size of the slice."""
    placed = dict(asked)
    if "boxes_M4" in asked:
        placed["boxes_M4"] = frame.boxes_to_model(asked["boxes_M4"])
    else:
        placed["points_MN2"] = frame.to_model(asked["points_MN2"])
    mask = None if memory is None else memory.sigmoid()
    index = torch.zeros(1, dtype=torch.int64)
    low = model.decode(embedding, Prompts(image_index_M=index, mask_M1hw=mask, **placed)).best()[0]
    return low, frame.logits_to_slice(low)


def dice_of(predicted: Tensor, truth: Tensor) -> float:
    both = int((predicted & truth).sum())
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * both / total if total else 1.0


def prompts_agree(corpus: Corpus, path: Path) -> bool:
    """Whether boxes and first clicks of one mask alone are those that were stored."""
    stored = Store.open(path).found
    good = True
    for row in corpus.index(("test",)):
        full = corpus.read(row)
        for mask in row.masks:
            plane = torch.from_numpy(full.masks[mask.index].mask_HW)[None]
            valid = torch.ones_like(plane[0])
            target = Target.of(SAM_MED2D, row.sample_id, [mask.index], plane, valid)
            box, click = (first_prompt(SAM_MED2D, target, mode) for mode in ("bbox", "1pt"))
            kept = stored[row.sample_id]
            good &= kept["bbox"][mask.index]["box"] == box["boxes_M4"].flatten().tolist()
            good &= kept["points"][mask.index]["points"] == click["points_MN2"].flatten().tolist()
    print(f"  first prompts: {'the same' if good else 'DIFFERENT'}")
    return good


def scores_agree(plain: dict, ours: dict) -> bool:
    """Whether Dice agrees within the tolerance across batch sizes; outliers are printed."""
    if plain.keys() != ours.keys():
        print("  scores: of OTHER masks")
        return False
    apart = {key: abs(plain[key] - ours[key]) for key in plain}
    out = {key: gap for key, gap in apart.items() if gap > WITHIN}
    share = 1 - len(out) / len(apart)
    print(
        f"  Dice: {len(apart) - len(out)} of {len(apart)} within {WITHIN:g} ({share:.1%}, at least "
        f"{SHARE:.0%}), largest difference {max(apart.values()):.1e}"
    )
    for key in sorted(out, key=lambda key: -out[key]):
        print(f"    outlier {' '.join(map(str, key))}: {plain[key]:.5f} and {ours[key]:.5f}")
    return share >= SHARE


if __name__ == "__main__":
    raise SystemExit(main())
