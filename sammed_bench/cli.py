"""Commands of this room: ``sammed bench`` and ``sammed report``. Heavy imports inside the verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sammed_bench import cli_compare, cli_merge, cli_suite, cli_verify

if TYPE_CHECKING:
    from rich.console import Console

    from sammed_bench.tables import Table

_EXAMPLES = """Score models by organ, modality and prompt mode, beside trivial baselines.

\b
Examples:
  sammed bench --prompts 1pt,bbox,5pt
  sammed bench --model sam=sam_vit_b_01ec64.pth:sam --model ft-sam=runs/001-ft-sam/model.safetensors
  sammed bench --model sam-med2d --model mine=package.module:factory --prompts bbox,mask --limit 50
  sammed bench --protocol centre-click --prompts 1pt,bbox+3pt,clicks:10
  sammed bench --suite phantoms --corpus phantoms/corpus --model sam-med2d
"""


def register(app: typer.Typer) -> None:
    """Add ``bench`` with its verbs, and ``report``, to the root app."""
    bench = typer.Typer()
    bench.callback(invoke_without_command=True, help=_EXAMPLES)(_bench)
    cli_suite.register(bench)
    cli_merge.register(bench)
    cli_verify.register(bench)
    app.add_typer(bench, name="bench")
    app.command("report")(_report)
    cli_compare.register(app)


def _bench(
    ctx: typer.Context,
    prompts: Annotated[
        str,
        typer.Option(
            help="Prompt modes: bbox, 1pt, 3pt, 5pt, bbox+1pt, bbox+3pt, bbox+5pt, mask, scribble, "
            "clicks:N (a dialogue of N clicks, with clicks to 80, 85 and 90 % IoU)."
        ),
    ] = "1pt,bbox,5pt",
    protocol: Annotated[
        str,
        typer.Option(
            help="How prompts are drawn: sam-med2d, sam-med2d-shift, centre-click, random-click, "
            "uniform-k, box-tight, box-jitter:N (px), box-scale:F; see docs/protocols.md."
        ),
    ] = "sam-med2d",
    edition: Annotated[
        str,
        typer.Option(
            help="native: each model fed as its weights want it; as-released: every SAM at 256 px "
            "by the released convention."
        ),
    ] = "native",
    corpus: Annotated[Path, typer.Option(help="Built corpus.")] = Path("corpus"),
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="LABEL=PATH[:KIND], LABEL=pkg.module:factory, LABEL=predictions:FOLDER (saved "
            "index maps), or the name of a method in "
            "--runs. Default: the newest run of each method and the weights it started from."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Results folder. Default: the next ./results/NNN.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Splits. Default: test and held_out.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Training runs.")] = Path("runs"),
    batch: Annotated[int, typer.Option(help="Images encoded together.")] = 8,
    device: Annotated[
        str, typer.Option(help="auto, cpu or cuda; several (cuda:0,cuda:1) work at once.")
    ] = "auto",
    workers: Annotated[int, typer.Option(help="Processes on one device.")] = 1,
    engine: Annotated[str, typer.Option(help="local, or ray for a Ray cluster.")] = "local",
    part: Annotated[
        str | None,
        typer.Option(
            help="Score share i/N of the images, or auto (SLURM array, Kubernetes); the part that "
            "ends last finishes, or `sammed bench merge`."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch.")] = None,
    fast: Annotated[
        bool, typer.Option("--fast/--no-fast", help="Fast encoder, or upstream's own forward.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    metrics: Annotated[
        str, typer.Option(help="dice, iou (always), nsd, hd95, boundary_iou.")
    ] = "dice,iou",
    tolerance: Annotated[
        float, typer.Option(help="Of nsd, in mm; in pixels where the spacing is unknown.")
    ] = 2.0,
    keep_predictions: Annotated[
        bool,
        typer.Option(
            "--keep-predictions",
            help="Leave the masks beside the scores: tables by image and by volume, and metrics "
            "again without a GPU (`sammed report --recompute`).",
        ),
    ] = False,
    speed: Annotated[
        bool,
        typer.Option("--speed", help="Measure latency, throughput and peak memory beside scores."),
    ] = False,
    suite: Annotated[
        str | None,
        typer.Option(
            help="A frozen benchmark, by name or file (`sammed bench suites`): it states images, "
            "prompts, protocol, metrics, edition and seed; the corpus is checked against it."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds a model may take for one image; one that takes longer failed."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count images, masks and rows; score nothing.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is not None:
        return
    from sammed_bench.modes import parse_modes

    modes = parse_modes(prompts)
    from dataclasses import asdict

    from sammed_bench.bench import BenchConfig, survey
    from sammed_bench.choose import choose
    from sammed_bench.console import Shown, console
    from sammed_bench.editions import parse_edition
    from sammed_bench.metric_cards import parse_metrics
    from sammed_bench.part_run import Work, bench_work
    from sammed_bench.protocols import parse_protocol
    from sammed_bench.report import headline, write_report
    from sammed_bench.text import as_json
    from sammed_data.corpus import Corpus
    from sammed_data.talk import answer

    config = BenchConfig(
        modes=modes,
        splits=tuple(part for text in split for part in text.split(",")) if split else None,
        seed=seed,
        limit=limit,
        batch=batch,
        threads=threads,
        fast=fast,
        metrics=parse_metrics(metrics),
        tolerance=tolerance,
        protocol=parse_protocol(protocol),
        edition=parse_edition(edition),
        keep_predictions=keep_predictions,
        speed=speed,
        timeout=timeout,
    )
    work = Work.parse(device, workers, engine, part)
    opened = Corpus(corpus)  # a missing corpus is said before models are looked for
    if suite is not None:
        from sammed_bench.suite_run import asked_suite

        config = asked_suite(suite, opened, config, _given(ctx))
    wanted = choose(model or [], runs)
    screen = console()
    if dry_run:
        found = survey(corpus, wanted, config)
        screen.print(
            f"would score {found.images} images with {found.masks} masks by "
            f"{', '.join(found.models)}: at most {found.rows} rows; nothing was written",
            highlight=False,
        )
        answer({"dry_run": True} | asdict(found))
        return
    with Shown(screen) as shown:
        result = bench_work(corpus, wanted, config, work, out=out, report=shown)
    if result.missing:
        cli_merge.tell_missing(result)
        return
    report = write_report(result.out)
    answer(
        {"results": result.out, "images": result.images, "masks": result.masks}
        | {"failed": result.failed, "notes": result.notes}
        | {"tables": [as_json(table) for table in headline(report)]}
    )
    _show(screen, headline(report))
    screen.print(
        f"rows {result.out / 'scores'}   report {result.out / 'report' / 'report.html'}",
        highlight=False,
    )


def _given(ctx: typer.Context) -> dict[str, str]:
    """Options that were written on the command line, as text."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    written = [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]
    return {name: str(ctx.params[name]) for name in written}


def _report(
    results: Annotated[Path, typer.Argument(help="Results folder of `sammed bench`.")],
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute", help="Score kept predictions again (no model, no GPU) into --out."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="New results folder of --recompute.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Of --recompute; default: those of the results.")
    ] = None,
    tolerance: Annotated[float | None, typer.Option(help="Of nsd, with --recompute.")] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Of --recompute; default: where it was scored.")
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="Results folders of --protocol box-jitter:N, one a time: the curve of the scores "
            "over the box offset."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the rows; write nothing.")
    ] = False,
) -> None:
    """Make the report again from the score rows of a results folder.

    Writes report/ there: one page that opens offline, the same tables as Markdown, CSV, LaTeX and
    JSON, figures as SVG. docs/report.md says how to read them.

    For example:

    sammed report results/001

    sammed report results/001 --beside results/jitter-0 --beside results/jitter-4

    sammed report results/001 --recompute --metrics nsd,hd95 --out results/001-surface
    """
    from sammed_bench.console import console
    from sammed_bench.report import headline, load_report, write_report
    from sammed_bench.rescore import check_rescore
    from sammed_bench.text import as_json
    from sammed_data.talk import answer, say_dry

    again = out or results.with_name(f"{results.name}-again")
    if dry_run:
        report = load_report(results, beside or ())
        if recompute:
            check_rescore(results, again)
        writes = [again] if recompute else [results / "report"]
        say_dry([results, *(beside or ())], writes, tables=[t.name for t in headline(report)])
        return
    if recompute:
        from sammed_bench.metric_cards import parse_metrics
        from sammed_bench.rescore import rescore

        results = rescore(
            results,
            again,
            corpus_root=corpus,
            metrics=parse_metrics(metrics) if metrics else (),
            tolerance=tolerance,
        )
    report = write_report(results, beside or ())
    answer({"results": results, "tables": [as_json(table) for table in headline(report)]})
    screen = console()
    _show(screen, headline(report))
    screen.print(f"report {results / 'report' / 'report.html'}", highlight=False)


def _show(screen: Console, tables: list[Table]) -> None:
    from sammed_bench.console import terminal_table

    for table in tables:
        if table.rows:
            screen.print(terminal_table(table))
