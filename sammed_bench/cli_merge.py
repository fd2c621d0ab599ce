"""``sammed bench merge``. Heavy imports inside the verb."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sammed_bench.bench import BenchResult


def register(bench: typer.Typer) -> None:
    """Add the verb to ``sammed bench``."""
    bench.command("merge")(_merge)


def _merge(
    results: Annotated[Path, typer.Argument(help="Results folder of the parts.")],
    sources: Annotated[
        list[Path] | None,
        typer.Option("--from", help="A folder that parts were scored in; may be given often."),
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Built corpus. Default: where the parts saw it.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of the gallery.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look which parts are there; write nothing.")
    ] = False,
) -> None:
    """Finish a benchmark that was scored in parts; parts in one folder finish by themselves.

    For example:

    sammed bench merge results/001

    sammed bench merge results/all --from node1/results --from node2/results
    """
    from sammed_bench.merge import merge, survey_parts
    from sammed_bench.record import RECORD
    from sammed_bench.report import write_report
    from sammed_data.talk import answer, say_dry

    if dry_run:
        there, missing = survey_parts(results, sources or ())
        copied = [results / "scores"] if sources else []
        writes = [*copied, results / RECORD, results / "report"]
        say_dry([*(sources or ()), results], writes, parts=there, missing=missing)
        return
    result = merge(results, sources or (), corpus_root=corpus, device=device)
    write_report(result.out)
    answer({"results": result.out, "images": result.images, "masks": result.masks})
    typer.echo(
        f"{result.images} images with {result.masks} masks; rows {result.out / 'scores'}   report "
        f"{result.out / 'report' / 'report.html'}"
    )


def tell_missing(result: BenchResult) -> None:
    """Say which parts are left before there is a report."""
    from sammed_data.talk import answer

    left = [str(part) for part in result.missing]
    answer({"results": result.out, "missing": left, "failed": result.failed})
    typer.echo(
        f"this part is done; left: {', '.join(left)}. Whichever ends last writes the report (parts "
        f"in other folders: sammed bench merge {result.out} --from FOLDER)"
    )
