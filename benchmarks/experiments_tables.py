"""Tables and the curve of ``experiments.py``, from its results file alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sammed_bench.statistics import Interval, paired_interval

Line: TypeAlias = dict[str, Any]
Values: TypeAlias = NDArray[np.float64]
PARTS = {
    "a-hippocampus": "(a) hippocampus, cross-validated",
    "a-phantoms": "(a) phantoms",
    "b-mends": "(b) one mend alone, on the released recipe",
    "c-curve": "(c) Dice against training patients",
}
NAMES = {"sam-med2d": "adapters", "ft-sam": "decoder only", "lora": "LoRA", "full": "full"}


class Results:
    """The lines of a part, joined over its corpora and averaged over seeds."""

    def __init__(self, lines: Sequence[Line], part: str) -> None:
        own = [line for line in lines if line["part"] == part]
        self.starts = {line["corpus"]: line for line in own if line["method"] is None}
        self.trained = [line for line in own if line["method"] is not None]

    def seeds(self, **wanted: object) -> dict[int, dict[str, Line]]:
        """Seed -> corpus -> line, of the seeds that are whole over all corpora begun."""
        found: dict[int, dict[str, Line]] = {}
        for line in (i for i in self.trained if all(i[k] == v for k, v in wanted.items())):
            found.setdefault(line["seed"], {})[line["corpus"]] = line
        return {s: by for s, by in sorted(found.items()) if set(by) == set(self.starts)}

    def dice(self, found: dict[int, dict[str, Line]], mode: str) -> Values:
        """Of every mask, averaged over seeds."""
        return np.mean([self._joined(by, mode) for by in found.values()], axis=0)

    def start(self, mode: str) -> Values:
        """Dice of every mask before training."""
        return self._joined(self.starts, mode)

    def difference(self, a: Values, b: Values, key: str) -> Interval:
        """The paired interval over patients."""
        clusters = [p for corpus in sorted(self.starts) for p in self.starts[corpus]["patients"]]
        return paired_interval(a, b, clusters, key=key)

    def _joined(self, by_corpus: dict[str, Line], mode: str) -> Values:
        for corpus, line in by_corpus.items():
            if line["masks_sha256"] != self.starts[corpus]["masks_sha256"]:
                raise SystemExit(f"{line['id']} was scored on other masks than its start: do again")
        return np.concatenate([by_corpus[c]["dice"][mode] for c in sorted(by_corpus)])


def summary(lines: Sequence[Line], modes: Sequence[str]) -> str:
    """Markdown of everything that is there."""
    said: list[str] = []
    for part, title in PARTS.items():
        results = Results(lines, part)
        if not results.starts or not results.trained:
            continue
        make = {"b-mends": _mends, "c-curve": _curve}.get(part, _against)
        masks = sum(len(line["patients"]) for line in results.starts.values())
        people = len({p for line in results.starts.values() for p in line["patients"]})
        said += [f"### {title}", "", f"{people} test patients, {masks} masks.", ""]
        said += [*make(results, modes), ""]
    return "\n".join(said)


def _points(found: Interval) -> str:
    """A difference in Dice points; bold where its interval excludes 0."""
    text = f"{100 * found.mean:+.1f}"
    if found.low is None or found.high is None:
        return f"{text} (no interval)"
    text += f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
    return f"**{text}**" if found.low > 0 or found.high < 0 else text


def _against(results: Results, modes: Sequence[str]) -> Iterator[str]:
    """Methods against start and control, on the seeds that both have."""
    head = ("method", "prompt", "seeds", "Dice", "start", "over start", "over control")
    yield f"| {' | '.join(head)} | control over start |"
    yield "|---|---|---|---|---|---|---|---|"
    for method in NAMES:
        plain = results.seeds(method=method, control="none")
        control = results.seeds(method=method, control="permuted")
        both = sorted(plain.keys() & control.keys())
        for mode in modes if both else ():
            a = results.dice({s: plain[s] for s in both}, mode)
            b = results.dice({s: control[s] for s in both}, mode)
            start = results.start(mode)
            cells = [
                _points(results.difference(x, y, f"{method} {mode} {name}"))
                for x, y, name in ((a, start, "start"), (a, b, "control"), (b, start, "prompt"))
            ]
            numbers = f"{100 * a.mean():.1f} | {100 * start.mean():.1f}"
            yield f"| {NAMES[method]} | {mode} | {len(both)} | {numbers} | {' | '.join(cells)} |"


def _mends(results: Results, modes: Sequence[str]) -> Iterator[str]:
    """Each mend and all of them against plain released, on the seeds that both have."""
    plain = results.seeds(recipe="released", mend="")
    yield f"| switched on | seeds | {' | '.join(f'{m} | over released' for m in modes)} |"
    yield "|---|---|" + "---|---|" * len(modes)
    if not plain:
        return
    numbers = " | ".join(f"{100 * results.dice(plain, m).mean():.1f} | " for m in modes)
    yield f"| nothing (released) | {len(plain)} | {numbers}|"
    mends = list(dict.fromkeys(i["mend"] for i in results.trained if i["mend"]))
    for mend in [*mends, ""]:
        recipe = "released" if mend else "mended"
        own = results.seeds(mend=mend, recipe=recipe)
        both = sorted(plain.keys() & own.keys())
        if not both:
            continue
        cells = []
        for mode in modes:
            a = results.dice({s: own[s] for s in both}, mode)
            b = results.dice({s: plain[s] for s in both}, mode)
            found = results.difference(a, b, f"{mend} {mode}")
            cells += [f"{100 * a.mean():.1f}", _points(found)]
        yield f"| {mend or 'all (the default recipe)'} | {len(both)} | {' | '.join(cells)} |"


def curve_points(
    results: Results, modes: Sequence[str]
) -> Iterator[tuple[str, str, int, int, Values]]:
    """Mode, method, patients, number of seeds, Dice of every mask."""
    sizes = sorted({line["patients"] for line in results.trained})
    for mode in modes:
        for method in NAMES:
            for size in sizes:
                own = results.seeds(method=method, patients=size)
                if own:
                    yield mode, method, size, len(own), results.dice(own, mode)


def _curve(results: Results, modes: Sequence[str]) -> Iterator[str]:
    sizes = sorted({line["patients"] for line in results.trained})
    yield "Each cell: Dice; over the start; number of seeds."
    yield ""
    yield f"| prompt | method | {' | '.join(f'{n} patients' for n in sizes)} |"
    yield "|---|---|" + "---|" * len(sizes)
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for mode, method, size, seeds, dice in curve_points(results, modes):
        over = _points(results.difference(dice, results.start(mode), f"{method} {mode} {size}"))
        text = f"{100 * dice.mean():.1f}; {over}; {seeds}"
        cells.setdefault((mode, method), {})[size] = text
    for mode in modes:
        start = 100 * results.start(mode).mean()
        yield f"| {mode} | start | {' | '.join(f'{start:.1f}' for _ in sizes)} |"
        for (found, method), by_size in cells.items():
            if found == mode:
                said = " | ".join(by_size.get(n, "") for n in sizes)
                yield f"| {mode} | {NAMES[method]} | {said} |"


def draw_curve(lines: Sequence[Line], modes: Sequence[str], path: Path) -> None:
    """The curve as a figure, with the start as a dashed line."""
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    mpl.rcParams["svg.hashsalt"] = "sammed"
    import matplotlib.pyplot as plt

    results = Results(lines, "c-curve")
    figure, axes = plt.subplots(1, len(modes), figsize=(4 * len(modes), 3.2), squeeze=False)
    points = list(curve_points(results, modes))
    for axis, mode in zip(axes[0], modes, strict=True):
        for method, name in NAMES.items():
            own = [(n, 100 * d.mean()) for o, m, n, _, d in points if (o, m) == (mode, method)]
            if own:
                axis.plot(*zip(*own, strict=True), marker="o", label=name)
        axis.axhline(100 * results.start(mode).mean(), ls="--", color="grey", label="start")
        axis.set(title=mode, xlabel="training patients", ylabel="Dice, test patients (%)")
        axis.set_xscale("log")
        ticks = sorted({n for _, _, n, _, _ in points})
        axis.set_xticks(ticks, map(str, ticks))
        axis.minorticks_off()
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
