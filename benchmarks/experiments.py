"""Whether training helps, and what each mend of the released recipe is worth: on a CPU, resumable.

Parts: (a) every method against its start and its permuted-image control, on the hippocampus files
(5-fold) and on phantoms; (b) each mend alone on the released recipe; (c) Dice against the number
of training patients. The grid was fixed beforehand; its steps alone were raised once, from 60,
after the first part of a run (docs/experiments.md). One JSON line for each finished training with
the Dice of every mask; what is in the file is not computed again.

    OMP_NUM_THREADS=1 python benchmarks/experiments.py results.jsonl --minutes 90
    python benchmarks/experiments.py results.jsonl --summary --figure curve.svg
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments_tables import draw_curve, summary

from sammed_model.config import Control, Method, ValidationMode
from sammed_model.mends import MENDS, Recipe

MODES: tuple[ValidationMode, ...] = ("bbox", "1pt")
HIPPOCAMPUS = "msd_task04_hippocampus"
CONTROLS: tuple[Control, ...] = ("none", "permuted")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is trained; of all this, only ``steps`` was changed after a result (60 were too few).

    Attributes:
        n_patients: of each phantom; phantom_seed is not the demo's, which was looked at.
        n_folds, fold_validation: of the hippocampus files.
        test_files, validation_files: of the hippocampus split of (b) and (c).
        sizes: training patients of (c).
        methods: of all parts; ``late`` ones of (a) alone, at the end of the queue.
    """

    image_size: int = 64
    steps: int = 150
    batch_images: int = 4
    masks_per_image: int = 5
    passes: int = 3
    lr: float = 8e-4
    warmup: int = 10
    validation_images: int = 16
    seeds: tuple[int, ...] = (0, 1, 2)
    n_patients: int = 36
    phantom_seed: int = 7
    n_folds: int = 5
    fold_validation: int = 6
    test_files: int = 15
    validation_files: int = 5
    sizes: tuple[int, ...] = (5, 10, 20, 40)
    methods: tuple[Method, ...] = ("sam-med2d", "ft-sam", "lora")
    late: tuple[Method, ...] = ("full",)
    mends: tuple[str, ...] = tuple(MENDS)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training with its evaluation, or the evaluation of the start.

    Attributes:
        part: ``a-hippocampus``, ``a-phantoms``, ``b-mends`` or ``c-curve``.
        corpus: name of the corpus it needs.
        method: None = the start as it is.
        patients: of the training set; None = all.
    """

    part: str
    corpus: str
    method: Method | None = None
    control: Control = "none"
    recipe: Recipe = "mended"
    mend: str = ""
    patients: int | None = None
    seed: int = 0

    @property
    def id(self) -> str:
        """Its name in the results file and for ``--only``."""
        what: str = self.method or "start"
        if self.part == "b-mends" and self.method:
            what = self.mend or ("released" if self.recipe == "released" else "all-mends")
        names = [self.part, self.corpus, what]
        names += [f"{self.patients}-patients"] if self.patients else []
        names += ["permuted"] if self.control == "permuted" else []
        return "/".join([*names, f"seed{self.seed}"] if self.method else names)


def queue(grid: Grid) -> Iterator[Task]:
    """All tasks: the first seed of everything, then the next ones, so that a stop is balanced."""
    for seed in grid.seeds:
        for fold in range(grid.n_folds):
            yield from _against(grid.methods, "a-hippocampus", f"fold{fold}", seed)
        yield from _against(grid.methods, "a-phantoms", "phantoms", seed)
        yield from _curve(grid, seed)
        yield from _mends(grid, seed)
    for seed in grid.seeds:
        for fold in range(grid.n_folds):
            yield from _against(grid.late, "a-hippocampus", f"fold{fold}", seed)
        yield from _against(grid.late, "a-phantoms", "phantoms", seed)


def _against(methods: Sequence[Method], part: str, corpus: str, seed: int) -> Iterator[Task]:
    yield Task(part=part, corpus=corpus)
    for method in methods:
        for control in CONTROLS:
            yield Task(part=part, corpus=corpus, method=method, control=control, seed=seed)


def _curve(grid: Grid, seed: int) -> Iterator[Task]:
    yield Task(part="c-curve", corpus="split")
    for size in grid.sizes:
        for method in grid.methods:
            yield Task(part="c-curve", corpus="split", method=method, patients=size, seed=seed)


def _mends(grid: Grid, seed: int) -> Iterator[Task]:
    yield Task(part="b-mends", corpus="split")
    one: dict[str, Any] = {"part": "b-mends", "corpus": "split", "method": "sam-med2d"}
    yield Task(recipe="released", seed=seed, **one)
    yield Task(recipe="mended", seed=seed, **one)
    for mend in grid.mends:
        yield Task(recipe="released", mend=mend, seed=seed, **one)


# ---------------------------------------------------------------- corpora


def in_order(names: Sequence[str], *about: object) -> list[str]:
    """Names in the order of their hashes: a shuffle that is the same everywhere."""
    text = "\0".join(map(str, about))
    return sorted(names, key=lambda name: hashlib.sha256(f"{text}\0{name}".encode()).digest())


def corpus_of(task: Task, grid: Grid, samples: Path, work: Path) -> Path:
    """The corpus of a task, built where it is not there yet."""
    out = work / "corpora" / task.corpus
    if not (out / "manifest.json").is_file():
        if task.corpus == "phantoms":
            _build_phantoms(grid, work, out)
        else:
            _build_hippocampus(samples, _files(task.corpus, grid, samples), work, out)
    if task.patients is None:
        return out
    return _with_patients(out, task, work)


def _build_phantoms(grid: Grid, work: Path, out: Path) -> None:
    from sammed_data.build import build
    from sammed_data.phantom import write_phantoms

    made = write_phantoms(work / "phantoms", n_patients=grid.n_patients, seed=grid.phantom_seed)
    build(made / "catalogs", made / "data", out, workers=1)


def _files(corpus: str, grid: Grid, samples: Path) -> dict[str, list[str]]:
    """Split -> names of hippocampus files."""
    folder = samples / "Task04_Hippocampus" / "imagesTr"
    names = [path.name for path in folder.glob("*.nii.gz") if not path.name.startswith(".")]
    if not names:
        raise SystemExit(f"expected files in {folder}, found none: give --samples, or --only")
    names = in_order(names, "folds")
    if corpus == "split":
        test, held = grid.test_files, grid.validation_files
    else:
        fold = int(corpus.removeprefix("fold"))
        tested = names[fold :: grid.n_folds]
        names = [*tested, *in_order([n for n in names if n not in tested], corpus)]
        test, held = len(tested), grid.fold_validation
    return {
        "test": names[:test],
        "validation": names[test : test + held],
        "train": names[test + held :],
    }


def _build_hippocampus(samples: Path, splits: dict[str, list[str]], work: Path, out: Path) -> None:
    """Build with the bundled entry, to which the split is added as an official one."""
    import yaml

    from sammed_data.build import build
    from sammed_data.catalog import load_catalogs

    entry = load_catalogs(None)[HIPPOCAMPUS].model_dump(mode="json", exclude_defaults=True)
    entry["splits"] = {
        split: [f"Task04_Hippocampus/imagesTr/{name}" for name in names]
        for split, names in splits.items()
    }
    source = work / "catalogs" / out.name
    source.mkdir(parents=True, exist_ok=True)
    (source / f"{HIPPOCAMPUS}.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
    build(source, samples, out, workers=1)


def _with_patients(whole: Path, task: Task, work: Path) -> Path:
    """The corpus with so many training patients; smaller choices of a seed lie in larger ones."""
    from sammed_data import exclude
    from sammed_data.corpus import Corpus

    out = work / "corpora" / f"{whole.name}-{task.patients}-{task.seed}"
    if not (out / exclude.FILE).is_file():
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out, ignore=shutil.ignore_patterns("index", ".partial"))
        patients = {str(row.meta["patient_id"]) for row in Corpus(out).index(["train"])}
        left_out = in_order(sorted(patients), "curve", task.seed)[task.patients :]
        reason = f"a curve of {task.patients} patients"
        exclude.save(
            out,
            [
                exclude.Exclusion(level="patient", dataset=HIPPOCAMPUS, id=name, reason=reason)
                for name in left_out
            ],
        )
    return out


# ---------------------------------------------------------------- one task


def perform(task: Task, grid: Grid, samples: Path, work: Path) -> dict[str, Any]:
    """Train and evaluate; the line for the results file."""
    from sammed_model.config import TrainConfig
    from sammed_model.setup import SHIPPED
    from sammed_model.train import train

    began, computing = time.monotonic(), time.process_time()
    corpus = corpus_of(task, grid, samples, work)
    start = SHIPPED / "vit_tiny_scenes.safetensors"
    line: dict[str, Any] = {"id": task.id} | asdict(task)
    with tempfile.TemporaryDirectory(dir=work) as name:
        weights = start
        if task.method is not None:
            config = TrainConfig(
                method=task.method,
                control=task.control,
                recipe=task.recipe,
                mends=(task.mend,) if task.mend else (),
                init=str(start),
                image_size=grid.image_size,
                steps=grid.steps,
                batch_images=grid.batch_images,
                masks_per_image=grid.masks_per_image,
                passes=grid.passes,
                lr=grid.lr,
                warmup=grid.warmup,
                validation_images=grid.validation_images,
                validate_every=grid.steps,
                modes=MODES,
                best=MODES,
                seed=task.seed,
                threads=1,
                workers=0,
            )
            trained = train(corpus, config, runs=Path(name) / "runs")
            weights = trained.weights
            line |= {"validation_start": trained.start, "validation_best": trained.best_dice}
            line |= {"best_step": trained.best_step, "train_s": round(trained.seconds, 1)}
        line |= evaluate(corpus, weights, grid, Path(name) / "results", whole=task.method is None)
    line["seconds"] = round(time.monotonic() - began, 1)
    line["computing_s"] = round(time.process_time() - computing, 1)
    return line


def evaluate(corpus: Path, weights: Path, grid: Grid, out: Path, *, whole: bool) -> dict[str, Any]:
    """Dice of every mask of the test split by mode, in the order of samples and masks.

    Args:
        whole: also the cluster of every mask, which all models of this corpus share.
    """
    from sammed_bench.bench import BenchConfig, bench
    from sammed_bench.models import SamBench
    from sammed_bench.scores import read_scores
    from sammed_bench.statistics import patients
    from sammed_model.checkpoint import load_model

    model = SamBench(load_model(weights, image_size=grid.image_size), "model", str(weights))
    asked = BenchConfig(
        modes=MODES, splits=("test",), threads=1, batch=16, baselines=False, gallery=False
    )
    rows = read_scores(bench(corpus, [model], asked, out=out).out)
    line: dict[str, Any] = {"dice": {}}
    for mode in MODES:
        own = rows[rows["mode"] == mode].sort_values(["sample_id", "mask_index"])
        line["dice"][mode] = [round(float(d), 4) for d in own["dice"]]
        keys = (own["sample_id"] + "#" + own["mask_index"].astype(str)).tolist()
        line["masks_sha256"] = hashlib.sha256("\n".join(keys).encode()).hexdigest()
        line |= {"patients": patients(own).tolist()} if whole else {}
    return line


# ---------------------------------------------------------------- the whole


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The finished tasks; a line that a kill tore is left out."""
    found = []
    for text in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            print(f"left out a torn line of {path}", file=sys.stderr)
    return found


def run(
    results: Path,
    grid: Grid,
    *,
    samples: Path,
    work: Path,
    only: Sequence[str] = (),
    minutes: float | None = None,
) -> int:
    """Do what is left of the queue; how many tasks were done.

    Args:
        results: file of JSON lines, appended to.
        grid: what is trained.
        samples: folder with ``Task04_Hippocampus``.
        work: folder for corpora, kept between runs.
        only: globs over task ids.
        minutes: no task begins after so many.
    """
    began = time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    kept = _whole_lines(results, grid)
    done = {line["id"] for line in kept}
    made = 0
    for task in queue(grid):
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            print(f"stopped after {minutes:g} minutes; the same command goes on")
            break
        if task.id in done or not (not only or any(fnmatch.fnmatch(task.id, o) for o in only)):
            continue
        line = perform(task, grid, samples, work) | {"code": _commit()}
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        done.add(task.id)
        made += 1
        means = ", ".join(f"{m} {100 * sum(d) / len(d):.1f}" for m, d in line["dice"].items())
        print(f"{time.strftime('%H:%M:%S')} {task.id}: {means}, {line['seconds']} s", flush=True)
    return made


def _whole_lines(results: Path, grid: Grid) -> list[dict[str, Any]]:
    """Lines of an earlier run with the same grid; the file is begun, or mended, where needed."""
    wanted = json.loads(json.dumps({"grid": asdict(grid)}))
    kept = read_lines(results)
    if kept and kept[0].get("grid") != wanted["grid"]:
        raise SystemExit(f"{results} is of another grid: name another file")
    lines = [wanted, *kept[1:]]
    results.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if not results.is_file() or results.read_text("utf-8") != text:
        results.write_text(text, "utf-8")
    return lines[1:]


def _commit() -> str:
    here = Path(__file__).parent
    asked = ["git", "-C", str(here), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Run the grid, or print the tables of a results file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="file of JSON lines")
    parser.add_argument("--samples", type=Path, default=Path("../shared/samples"))
    parser.add_argument("--work", type=Path, help="folder for corpora; default: beside results")
    parser.add_argument("--only", nargs="*", default=[], help="globs: 'a-phantoms/*', '*/seed0'")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=Grid.steps, help="another grid: another file")
    parser.add_argument("--image-size", type=int, default=Grid.image_size, help="likewise")
    parser.add_argument("--list", action="store_true", help="print the ids of the queue")
    parser.add_argument("--summary", action="store_true", help="print the tables")
    parser.add_argument("--figure", type=Path, help="with --summary: the curve as .svg or .png")
    arguments = parser.parse_args()
    grid = Grid(steps=arguments.steps, image_size=arguments.image_size)
    if arguments.list:
        print("\n".join(dict.fromkeys(task.id for task in queue(grid))))
        return 0
    if arguments.summary:
        lines = read_lines(arguments.results)[1:]
        print(summary(lines, MODES))
        left = {task.id for task in queue(grid)} - {line["id"] for line in lines}
        print(f"{len(lines)} tasks finished, {len(left)} left.")
        if arguments.figure:
            draw_curve(lines, MODES, arguments.figure)
        return 0
    import torch

    torch.set_num_threads(1)
    work = arguments.work or arguments.results.with_suffix(".work")
    asked = {"samples": arguments.samples, "only": arguments.only, "minutes": arguments.minutes}
    run(arguments.results, grid, work=work, **asked)
    return 0


if __name__ == "__main__":
    sys.exit(main())
