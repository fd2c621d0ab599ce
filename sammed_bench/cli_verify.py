"""``sammed bench verify``. Heavy imports inside the verb."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sammed_bench.verify import Verdict

_SHOWN = 10


def register(bench: typer.Typer) -> None:
    """Add the verb to ``sammed bench``."""
    bench.command("verify")(_verify)


def _verify(
    results: Annotated[Path, typer.Argument(help="Results folder of `sammed bench`.")],
    sample: Annotated[int, typer.Option(help="Rows to score again.")] = 200,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the draw. Default: one that nobody could know; it is printed."),
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Built corpus. Default: where it was scored.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=PATH[:KIND]: where weights are now, if they have moved."),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(help="Label of a model that cannot be scored here.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    strict: Annotated[
        bool,
        typer.Option("--strict", help="No row may differ; else 2 % may, by rounding of hardware."),
    ] = False,
) -> None:
    """Score random rows of a results folder again, and say how many can be misreported.

    All rows are also checked against the corpus and the record: none missing, double or altered in
    what tables group by. Exit code 0: the results hold; 1: they do not.

    For example:

    sammed bench verify results/001

    sammed bench verify results/001 --sample 50 --seed 7 --model sam=sam_vit_b_01ec64.pth:sam
    """
    from sammed_bench.console import Shown, console
    from sammed_bench.verify import verify
    from sammed_data.talk import answer
    from sammed_data.types import UsageError

    given: dict[str, str] = {}
    for text in model or []:
        label, equals, place = text.partition("=")
        if not equals or not place:
            raise UsageError(f"expected --model LABEL=PATH[:KIND], found {text!r}")
        given[label] = place
    screen = console()
    with Shown(screen) as shown:
        verdict = verify(
            results,
            sample=sample,
            seed=seed,
            corpus_root=corpus,
            models=dict(given),
            skip=skip or (),
            device=device,
            strict=strict,
            report=shown,
        )
    answer(verdict.as_json())
    for line in lines(verdict):
        screen.print(line, highlight=False, markup=False, soft_wrap=True)
    if not verdict.ok:
        raise typer.Exit(1)


def lines(verdict: Verdict) -> list[str]:
    """The verdict in words."""
    found = [f"problem: {problem}" for problem in verdict.problems]
    for outlier in verdict.outliers[:_SHOWN]:
        said = ", ".join(
            f"{name} {_plain(stated)} stated, {_plain(again)} found"
            for name, (stated, again) in outlier.differs.items()
        )
        found.append(
            f"differs: {outlier.model}, {outlier.mode}, {outlier.sample_id}, mask "
            f"{outlier.mask_index}: {said}"
        )
    if len(verdict.outliers) > _SHOWN:
        found.append(f"and {len(verdict.outliers) - _SHOWN} rows more (--json has all)")
    if verdict.settled:
        found.append(f"{verdict.settled} rows differed alone and agree in the batch they were in")
    if verdict.skipped:
        found.append(f"not verified: {', '.join(verdict.skipped)}")
    found.append(f"{verdict.sentence} (seed {verdict.seed}, up to {verdict.allowed} may differ)")
    found.append(
        f"had 5 % of the rows been altered, such a sample would fail with probability "
        f"{100 * verdict.caught:.1f} %"
    )
    found.append("the results hold" if verdict.ok else "the results do NOT hold")
    return found


def _plain(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
