"""`sammed data build` on CT volumes against its floor, the usual script and bare processes.

    python benchmarks/build.py                              minutes; 512 x 512 x 200
    python benchmarks/build.py --shape 20 128 96 --rounds 1 --cases 2       seconds

Floor: read, decode image and labels, SHA-256 of the files, encode the stored images and masks (a
mask is compared out of a map of numbered parts and packed), by the same codecs and nothing else.
A second line counts the digest of the stored pixels, which the rows hold, to the floor as well.
The floor, the build and the usual script take turns in this process, in CPU time: minima of the
rounds. Workers and bare processes take turns as commands, in wall and CPU time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import ct_data  # noqa: E402 - beside this file

from sammed_data import sources  # noqa: E402
from sammed_data.build import build  # noqa: E402
from sammed_data.codecs import encode_image, encode_mask  # noqa: E402
from sammed_data.corpus import Corpus  # noqa: E402
from sammed_data.engine import WORKER_BLOCK_BYTES  # noqa: E402
from sammed_data.plan import BuildOptions  # noqa: E402
from sammed_data.shards import pixel_digest  # noqa: E402
from sammed_data.system import keep_memory  # noqa: E402

WINDOW = (-160.0, 240.0)
GATES = {"over the floor": 1.5, "usual script over ours": 10.0, "pool over bare": 0.85,
         "memory over the volume": 2.5}  # fmt: skip


def main() -> None:
    args = arguments()
    cv2.setNumThreads(1)
    keep_memory(WORKER_BLOCK_BYTES)  # as the command does, for the floor as well
    with tempfile.TemporaryDirectory(prefix="sammed-build-", dir=args.scratch) as scratch:
        folder = Path(scratch)
        kept = args.data or folder / "made"
        catalogs, root = ct_data.write(kept, args.volumes, tuple(args.shape))
        if args.whole:
            GATES["over the floor"] = 1.3
        report = {"shape": args.shape, "cases": args.cases, "load": os.getloadavg()}
        few = copies(root, folder / "few", args.cases)[0]
        for depth in args.depths:
            report[f"depth {depth}"] = found = in_turns(args, catalogs, few, folder, depth)
            if not args.skip_workers:
                found |= workers(args, catalogs, root, folder, depth)
            if not args.json:
                show(depth, found)
        report["load after"] = os.getloadavg()
        print(json.dumps(report, indent=1) if args.json else f"load {report['load'][0]:.1f} to "
              f"{report['load after'][0]:.1f}")  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 512, 512), help="Z Y X")
    parser.add_argument("--volumes", type=int, default=2, help="different volumes")
    parser.add_argument("--cases", type=int, default=8, help="made of them by copying")
    parser.add_argument("--worker-cases", type=int, default=32, help="for the runs of workers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--usual-rounds", type=int, default=1, help="of the slow rival")
    parser.add_argument("--depths", type=int, nargs="*", default=(8, 16))
    parser.add_argument("--data", type=Path, help="keeps the made volumes for another run")
    parser.add_argument("--scratch", type=Path, help="where corpora are written")
    parser.add_argument("--skip-workers", action="store_true")
    parser.add_argument(
        "--whole", action="store_true", help="build --no-components: one mask a structure"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def in_turns(args, catalogs, root, folder, depth) -> dict:
    """Floor, build and usual script in this process."""
    out = folder / "corpus"
    cases = [(p, p.parents[1] / "labels" / p.name) for p in sorted(root.rglob("images/*.gz"))]
    options = BuildOptions(depth=depth, components=not args.whole)
    ours(catalogs, root, out, options)  # imports and page cache are not what is measured
    stored = planes_of(out, args.volumes)
    times = args.cases / args.volumes
    stages, builds, usuals = [], [], []
    for number in range(args.rounds):
        stages.append(floor(cases, stored, times))
        builds.append(ours(catalogs, root, out, options))
        if number < args.usual_rounds:
            usuals.append(usual(cases, folder / "usual"))
    least = {name: min(s[name] for s in stages) for name in stages[0]}
    pixels = least.pop("digest of pixels")
    found = {"floor by stage s": least, "floor s": sum(least.values()), "ours s": min(builds)}
    found["masks"] = int(times * sum(len(planes[2]) for planes in stored))
    found["over the floor"] = found["ours s"] / found["floor s"]
    found["over it with row digests"] = found["ours s"] / (found["floor s"] + pixels)
    if usuals:
        found |= {
            "usual script s": min(usuals),
            "usual script over ours": min(usuals) / found["ours s"],
        }
    return found


def ours(catalogs, root, out, options) -> float:
    """CPU seconds of a whole build by one worker, here."""
    shutil.rmtree(out, ignore_errors=True)
    sources.forget_digests()
    began = time.process_time()
    build(catalogs, root, out, options=options)
    return time.process_time() - began


def planes_of(out: Path, n_cases: int) -> list[tuple]:
    """(images, map of numbered masks, numbers) of the rows of the first cases, for the floor."""
    corpus, found = Corpus(out), []
    first = {f"ct{i:02d}" for i in range(n_cases)}
    for entry in (e for e in corpus.index() if e.meta["case_id"] in first):
        row = corpus.read(entry)
        numbers = np.zeros(row.image.shape[:2], np.uint8)
        for number, mask in enumerate(row.masks, start=1):
            numbers[mask.mask_HW] = number
        images = [row.image] + ([] if row.image_u16 is None else [row.image_u16])
        found.append((images, numbers, range(1, len(row.masks) + 1)))
    return found


def floor(cases, stored, times: float) -> dict[str, float]:
    """CPU seconds of the stages that no build can do without; ``stored`` counts ``times``-fold."""
    import imagecodecs

    spent: dict[str, float] = defaultdict(float)
    global _scratch  # noqa: PLW0603 - the reused buffer that the floor stands for
    for path in (p for pair in cases for p in pair):
        with clock(spent, "read"):
            packed = np.fromfile(path, np.uint8)
        size = int.from_bytes(packed[-4:].tobytes(), "little")
        if len(_scratch) < size:
            _scratch = np.zeros(size, np.uint8)
        with clock(spent, "decode"):
            imagecodecs.gzip_decode(packed, out=_scratch[:size])
        with clock(spent, "sha256"):
            hashlib.sha256(packed.data).hexdigest()
    with clock(spent, "encode images"):
        for images, _, _ in stored:
            for image in images:
                encode_image(image)
    with clock(spent, "encode masks"):
        for _, numbers, which in stored:
            for number in which:
                encode_mask(numbers == number)
    with clock(spent, "digest of pixels"):
        for image in (image for images, _, _ in stored for image in images):
            pixel_digest(image)
    encoded = ("encode images", "encode masks", "digest of pixels")
    return {name: value * (times if name in encoded else 1) for name, value in spent.items()}


_scratch = np.zeros(0, np.uint8)


class clock:
    """Adds the CPU time of a block to a stage."""

    def __init__(self, spent, name) -> None:
        self.spent, self.name = spent, name

    def __enter__(self) -> None:
        self.began = time.process_time()

    def __exit__(self, *_) -> None:
        self.spent[self.name] += time.process_time() - self.began


def usual(cases, out: Path) -> float:
    """The script everybody writes: CPU seconds.

    get_fdata, components of every label on the whole slice, one mask PNG for each pair of image and
    component; the image is written once a slice, which is kinder than most.
    """
    import nibabel

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    began = time.process_time()
    for image_path, label_path in cases:
        image = nibabel.load(image_path).get_fdata()
        label = nibabel.load(label_path).get_fdata()
        name = image_path.name.split(".")[0]
        for k in range(image.shape[2]):
            plane, marked = image[:, :, k].T, label[:, :, k].T
            low, high = WINDOW
            grey = np.clip((plane - low) / (high - low), 0, 1) * 255
            cv2.imwrite(str(out / f"{name}_{k:04d}.png"), grey.astype(np.uint8))
            for value in np.unique(marked):
                if value == 0:
                    continue
                mask = (marked == value).astype(np.uint8)
                count, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
                for i in range(1, count):
                    if stats[i, cv2.CC_STAT_AREA] >= 4:
                        part = (parts == i).astype(np.uint8) * 255
                        cv2.imwrite(str(out / f"{name}_{k:04d}_{value:.0f}_{i}.png"), part)
    return time.process_time() - began


def workers(args, catalogs, root, folder, depth) -> dict:
    """One worker, two workers, and two bare processes with half of the cases each."""
    everything, left, right = copies(root, folder / "copies", args.worker_cases)
    runs: dict[str, list] = defaultdict(list)
    for _ in range(max(1, args.rounds // 2)):
        runs["one worker"].append(commands(args, catalogs, folder, depth, [(everything, 1)]))
        runs["two workers"].append(commands(args, catalogs, folder, depth, [(everything, 2)]))
        runs["two bare"].append(commands(args, catalogs, folder, depth, [(left, 1), (right, 1)]))
    found = {
        name: {key: min(run[key] for run in each) for key in ("wall s", "cpu s")}
        | {"peak MB": max(run["peak MB"] for run in each)}
        for name, each in runs.items()
    }
    found["pool over bare"] = found["two bare"]["wall s"] / found["two workers"]["wall s"]
    found["pool over bare, CPU"] = found["two bare"]["cpu s"] / found["two workers"]["cpu s"]
    volume = int(np.prod(args.shape)) * 3 / 1e6  # int16 image and uint8 labels
    found["decoded volume MB"] = volume
    found["memory over the volume"] = (
        max(found["one worker"]["peak MB"], found["two workers"]["peak MB"]) / volume
    )
    return found


def copies(root: Path, folder: Path, n: int) -> list[Path]:
    """Roots with all cases, with the first and with the second half; files are copies."""
    made = sorted(root.rglob("images/*.gz"))
    roots = [folder / name for name in ("all", "left", "right")]
    shutil.rmtree(folder, ignore_errors=True)
    for i in range(n):
        image = made[i % len(made)]
        for place in (roots[0], roots[1 + (2 * i >= n)]):
            for kind in ("images", "labels"):
                target = place / "made_up_ct" / kind / f"ct{i:02d}.nii.gz"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(image.parents[1] / kind / image.name, target)
    return roots


def commands(args, catalogs, folder, depth, jobs) -> dict[str, float]:
    """Run `sammed data build` once for each (root, workers) at the same time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    running = []
    for number, (root, n) in enumerate(jobs):
        out = folder / f"out{number}"
        shutil.rmtree(out, ignore_errors=True)
        line = [sys.executable, "-m", "sammed", "data", "build", "--source", catalogs, "--root",
                root, "--out", out, "--depth", depth, "--workers", n,
                *(["--no-components"] if args.whole else [])]  # fmt: skip
        here = Path(__file__).resolve().parents[1]
        running.append(subprocess.Popen(list(map(str, line)), cwd=here, stdout=subprocess.DEVNULL))
    peak = Peak([p.pid for p in running])
    codes = [p.wait() for p in running]
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if any(codes):
        raise SystemExit(f"a build ended with {codes}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall s": wall, "cpu s": cpu, "peak MB": peak.stop()}


class Peak:
    """The highest peak memory among processes and their children, looked at while they run."""

    def __init__(self, pids) -> None:
        self.pids, self.megabytes, self.over = pids, 0.0, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        while not self.over.wait(0.03):
            for pid in [q for p in self.pids for q in (p, *children(p))]:
                try:
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                except OSError:
                    continue
                high = [line.split()[1] for line in lines if line.startswith("VmHWM")]
                self.megabytes = max([self.megabytes, *(int(k) * 1024 / 1e6 for k in high)])

    def stop(self) -> float:
        self.over.set()
        self.thread.join()
        return self.megabytes


def children(pid: int) -> list[int]:
    """Process ids of the children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return found


def show(depth: int, found: dict) -> None:
    print(f"depth {depth}, {found['masks']} masks")
    for name, seconds in found["floor by stage s"].items():
        print(f"  {name:<26}{seconds:8.3f} s")
    for name, value in found.items():
        if isinstance(value, dict) and name != "floor by stage s":
            print(f"  {name:<26}" + ", ".join(f"{k} {v:.2f}" for k, v in value.items()))
        elif isinstance(value, float):
            gate = f"   (gate {GATES[name]})" if name in GATES else ""
            print(f"  {name:<26}{value:8.3f}{gate}")


if __name__ == "__main__":
    main()
