"""What `sammed demo` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sammed_app.demo import DemoResult
from sammed_app.findings import Finding
from sammed_bench.bench import Reporter as BenchReporter
from sammed_bench.console import Shown, console, terminal_table
from sammed_bench.report import headline
from sammed_bench.statistics import PairedResult
from sammed_data.build import BuildResult
from sammed_data.describe import counts_lines
from sammed_model.console import Console, stop_on_signal
from sammed_model.setup import Reporter as TrainReporter

_CAVEAT = (
    "This is a small model (1.5 M parameters, 128 px) on procedural phantoms. It shows that the "
    "tools work; it says nothing about medical images or about the published SAM-Med2D weights."
)


class Teller:
    """Lines and bars on standard output."""

    def __init__(self) -> None:
        self._screen = console()

    def opening(self, folder: Path) -> None:
        """What is going to happen."""
        self.note(_CAVEAT)
        self.note(f"everything is written below {folder}")

    def note(self, text: str) -> None:
        """A line."""
        self._screen.print(text, highlight=False, markup=False)

    def built(self, result: BuildResult, corpus: Path) -> None:
        """Counts of the corpus."""
        for line in counts_lines(result.manifest):
            self.note(line)
        self.note(f"{corpus}: {result.built} shards built, {result.reused} already there")

    @contextmanager
    def training(self) -> Iterator[tuple[TrainReporter, Callable[[], bool]]]:
        """A bar with losses; the first Ctrl-C saves the state."""
        with stop_on_signal() as should_stop, Console() as shown:
            yield shown, should_stop

    @contextmanager
    def benchmark(self) -> Iterator[BenchReporter]:
        """A bar per model."""
        with Shown(self._screen) as shown:
            yield shown

    def closing(self, result: DemoResult, folder: Path, *, quick: bool) -> None:
        """Tables, what they show, where things lie."""
        for table in headline(result.report):
            if table.rows:
                self._screen.print(terminal_table(table))
        self.note(f"test set, {_counts(result)}: differences of mean Dice in points, over masks")
        for finding in result.findings:
            self.note(_sentence(finding))
        self.note("order by mean Dice %, over masks: " + _order(result))
        if quick:
            self.note("--quick: too few patients and steps for any of these numbers to mean much")
        self.note(_CAVEAT)
        stages = ", ".join(f"{name} {s:.0f}" for name, s in result.seconds.items())
        self.note(f"seconds: {stages}; together {sum(result.seconds.values()):.0f}")
        self.note(f"corpus   {result.corpus}")
        for run in result.runs:
            self.note(f"weights  {run / 'model.safetensors'}")
        self.note(f"report   {result.results / 'report' / 'report.html'}")
        self.note(f"go on:   cd {folder} && sammed bench --prompts 1pt,bbox,5pt")


def _counts(result: DemoResult) -> str:
    """Over how much the findings are."""
    first = next((finding.over_start for finding in result.findings), None)
    return f"{first.n_masks} masks of {first.n_patients} patients" if first else "no findings"


def _sentence(finding: Finding) -> str:
    verdict = "" if finding.holds else "  NOT SHOWN: an interval holds 0 or is missing"
    return (
        f"{finding.method:9s} {finding.mode:4s}  over the start {_gain(finding.over_start)}, "
        f"over its control {_gain(finding.over_control)}; "
        f"prompt-only {_gain(finding.prompt_only)}{verdict}"
    )


def _gain(result: PairedResult) -> str:
    """A difference of mean Dice in per cent with its interval."""
    gain = f"{100 * result.mean_difference:+.1f}"
    if result.low is None or result.high is None:
        return f"{gain} (no interval, {result.n_patients} patients)"
    return f"{gain} ({100 * result.low:+.1f} to {100 * result.high:+.1f})"


def _order(result: DemoResult) -> str:
    """The models of each mode from best to worst."""
    parts = []
    for mode in dict.fromkeys(finding.mode for finding in result.findings):
        chosen = [f for f in result.findings if f.mode == mode]
        dice = {f.method: f.over_start.mean_a for f in chosen}
        dice["sam"] = chosen[0].over_start.mean_b
        ranked = sorted(dice, key=lambda name: -dice[name])
        parts.append(f"{mode} " + " > ".join(f"{n} {100 * dice[n]:.1f}" for n in ranked))
    return "; ".join(parts)
