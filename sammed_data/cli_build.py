"""`sammed data build`: datasets on disk to a corpus."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

import typer

from sammed_data.cli_common import (
    QUARANTINED,
    ROOT,
    SOURCE,
    data_root,
    new_console,
    print_quarantine,
    print_tables,
    split_names,
)
from sammed_data.types import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sammed_data.build import BuildResult, Planned
    from sammed_data.lock import Lock
    from sammed_data.parts import PartResult
    from sammed_data.plan import BuildOptions


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(build)


def build(
    context: typer.Context,
    recipe: Path | None = typer.Argument(None, help="A corpus.yaml with sources and options."),
    source: Path | None = SOURCE,
    root: Path | None = ROOT,
    out: Path = typer.Option(Path("corpus"), help="Corpus folder; an interrupted build goes on."),
    only: str | None = typer.Option(
        None, help="Dataset ids, separated by commas; others in the corpus stay."
    ),
    drop: str | None = typer.Option(None, help="Dataset ids to remove from the corpus."),
    locked: bool = typer.Option(
        False, "--locked", help="Refuse sources that differ from corpus.lock.yaml."
    ),
    part: str | None = typer.Option(
        None, help="Build share i/N only, or auto (SLURM array, Kubernetes); then `merge`."
    ),
    retry_failed: bool = typer.Option(
        False, "--retry-failed", help="Only shards that failed before, one at a time."
    ),
    shard_timeout: float | None = typer.Option(
        None, help="Seconds a shard may take before it counts as failed."
    ),
    engine: str = typer.Option("local", help="local, or ray for a Ray cluster."),
    workers: int = typer.Option(
        0, min=0, help="Processes; 0 = one a core. The bytes do not depend on it."
    ),
    depth: int = typer.Option(8, help="8, or 16 to store 16-bit images beside the 8-bit ones."),
    axes: str | None = typer.Option(None, help="axial,coronal,sagittal for all 3D sources."),
    no_components: bool = typer.Option(
        False, "--no-components", help="Keep structures whole; their parts are not counted."
    ),
    min_part_px: int = typer.Option(4, help="Smaller parts are counted rejections."),
    intensity: str = typer.Option(
        "auto", help="auto, paper, released, percentile, identity, ct-soft, ct-lung, ct-bone."
    ),
    orientation: str = typer.Option("lps", help="lps, or stored for the released code's order."),
    isotropic: bool = typer.Option(
        False, "--isotropic", help="Resample to square pixels by their size in mm."
    ),
    split_by: str = typer.Option(
        "patient", help="patient, or overlap-group: datasets sharing patients get one split."
    ),
    shard_mb: int = typer.Option(64, help="Source megabytes a shard covers."),
    strict: bool = typer.Option(False, "--strict", help="Stop at the first bad case."),
    exclude: Path | None = typer.Option(
        None, help="A list of samples, cases or patients to leave out: see docs/audit.md."
    ),
    license_: str | None = typer.Option(
        None,
        "--license",
        help="Only datasets under these: SPDX ids, redistribute, commercial, known, unknown.",
    ),
    decisions: Path | None = typer.Option(
        None, help="Signed licence-decisions.yaml; default: the one under --root, if any."
    ),
    key: Path | None = typer.Option(None, help="Secret key file for restricted datasets."),
    profile: bool = typer.Option(
        False, "--profile", help="Print CPU time by stage and over the decode + encode floor."
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Only say what would be built: datasets, cases, shards."
    ),
) -> None:
    """Turn the datasets on disk into one corpus of images with masks.

    For example:

      sammed data build --source catalogs/

      sammed data build --root /archives --only msd_task04_hippocampus,hc18

      sammed data build corpus.yaml --locked

      sammed data build --only hc18 --out /tmp/try --dry-run
    """
    from sammed_data.build import Order, build_order, plan
    from sammed_data.engine import WORKER_BLOCK_BYTES
    from sammed_data.part import parse_part
    from sammed_data.parts import build_part
    from sammed_data.plan import BuildOptions
    from sammed_data.privacy import read_key
    from sammed_data.run_shards import How
    from sammed_data.stages import profile_lines
    from sammed_data.stores import absolute
    from sammed_data.system import keep_memory

    keep_memory(WORKER_BLOCK_BYTES)
    options = BuildOptions(
        depth=depth,
        axes=tuple(split_names(axes)) or None,
        components=not no_components,
        min_part_px=min_part_px,
        intensity=intensity,
        orientation=orientation,
        shard_mb=shard_mb,
        split_by=split_by,
        isotropic=isotropic,
    )
    chosen = _Chosen(source, root, split_names(only), options)
    if recipe is not None:
        chosen = _from_recipe(recipe, chosen, context)
    order = Order(
        source=chosen.source,
        root=data_root(chosen.root),
        only=tuple(chosen.only),
        drop=tuple(split_names(drop)),
        exact=recipe is not None,
        options=chosen.options,
        strict=strict,
        key_file=key,
        exclude=(*chosen.exclude, *([exclude] if exclude else ())),
        lock=_lock(recipe, out) if locked else None,
        license=tuple(split_names(license_)),
        decisions=decisions or chosen.decisions or _decisions_under(chosen.root),
    )
    if key is not None:
        read_key(key)  # a wrong path is an error also where nothing asks for the key
    share = None if part is None else parse_part(part, os.environ)
    if dry_run:
        report_plan(plan(order, absolute(out)), out)
        return
    stages: Counter[str] = Counter()
    began = time.perf_counter()
    with _progress() as progress:
        how = How(
            workers=workers or os.cpu_count() or 1,
            engine=engine,
            timeout_s=shard_timeout,
            retry_failed=retry_failed,
            progress=progress,
            profile=stages.update if profile else None,
        )
        if share is not None:
            _report_part(build_part(order, out, share, how), out)
            return
        result = build_order(order, out, how)
    seconds = time.perf_counter() - began
    report_build(result, out)
    if key is not None and all(d["privacy"] == "public" for d in result.manifest["datasets"]):
        typer.echo(
            "--key was not used: no dataset is `privacy: restricted`, names are as they were"
        )
    if not result.reused and not result.kept:  # else some images were built at another time
        typer.echo(speed_line(result, seconds, how.workers))
    if profile:
        typer.echo("\n".join(profile_lines(stages)))
    if result.quarantined:
        raise typer.Exit(QUARANTINED)


def speed_line(result: BuildResult, seconds: float, workers: int) -> str:
    """How fast a build was that found no shard of an earlier one.

    Args:
        result: of the build.
        seconds: it took in all, with the search for datasets.
        workers: processes that shared it.
    """
    images = result.manifest["counts"]["images"]["kept"]
    each = result.source_bytes / 1e6 / seconds / workers
    return (
        f"speed: {images / seconds:,.1f} images/s, {each:,.1f} MB/s of source files a worker "
        f"({seconds:,.1f} s, workers {workers})"
    )


class _Chosen(NamedTuple):
    """What a recipe or the options say; one of the two, never a mixture."""

    source: Path | None
    root: Path | None
    only: list[str]
    options: BuildOptions
    exclude: tuple[Path, ...] = ()
    decisions: Path | None = None


# A recipe settles these; a value beside it would make two truths.
_OF_RECIPE = ("source", "only", "drop", "depth", "axes", "no_components", "min_part_px",
              "intensity", "orientation", "shard_mb", "split_by", "isotropic")  # fmt: skip


def _from_recipe(path: Path, said: _Chosen, context: typer.Context) -> _Chosen:
    from sammed_data.recipe import check_versions, read_recipe

    given = [
        "--" + name.replace("_", "-")
        for name in _OF_RECIPE
        if (where := context.get_parameter_source(name)) and where.name == "COMMANDLINE"
    ]
    if given:
        raise UsageError(
            f"{path} settles what the corpus is made of: write {', '.join(given)} into it instead "
            f"of the command line"
        )
    recipe = read_recipe(path)
    check_versions(recipe)
    return _Chosen(
        recipe.catalogs,
        said.root or recipe.root,
        sorted(recipe.sources),
        recipe.options,
        recipe.exclude,
        recipe.decisions,
    )


def _decisions_under(root: Path | None) -> Path | None:
    from sammed_data.licenses import DECISIONS_FILE

    place = data_root(root) / DECISIONS_FILE
    return place if place.is_file() else None


def _lock(recipe: Path | None, out: Path) -> Lock:
    """The lock beside the recipe, else that of the corpus."""
    from sammed_data.lock import read_lock
    from sammed_data.stores import place

    beside = recipe.with_suffix(".lock.yaml") if recipe else None
    return read_lock(beside if beside and beside.is_file() else place(out) / "corpus.lock.yaml")


def report_plan(planned: Planned, out: Path) -> None:
    """Print what a build would do; nothing is read but names, sizes and dates."""
    from sammed_data.describe import Table
    from sammed_data.staging import is_done
    from sammed_data.stores import absolute
    from sammed_data.talk import answer

    place = absolute(out)
    staging = place / ".partial"
    found: dict[str, Counter[str]] = {}
    for shard in planned.shards:
        row = found.setdefault(shard.dataset, Counter())
        row["cases"] += len(shard.cases)
        row["shards"] += 1
        row["there already"] += is_done(shard, staging, place)
        row["source MB"] += round(shard.source_bytes / 1e6)
    columns = ("cases", "shards", "there already", "source MB")
    rows: list[tuple[str | int, ...]] = [
        (name, *(row[c] for c in columns)) for name, row in sorted(found.items())
    ]
    table = Table(title="Would build", columns=("dataset", *columns), rows=tuple(rows))
    print_tables(new_console(), [table])
    left_out = {**planned.found.failed, **planned.found.refused}
    for name, reason in sorted(left_out.items()):
        typer.echo(f"left out: {name}: {reason}")
    typer.echo(f"{len(planned.found.absent)} entries are not on disk; nothing was written to {out}")
    answer({"dry_run": True, "datasets": found, "left_out": left_out, "out": out})


def _report_part(result: PartResult, out: Path) -> None:
    from sammed_data.talk import answer

    answer({"part": result.part, "built": result.built, "reused": result.reused,
            "quarantined": result.quarantined})  # fmt: skip
    bad = f", {result.quarantined} cases quarantined" if result.quarantined else ""
    typer.echo(
        f"part {result.part}: {result.built} shards built, {result.reused} already there{bad}; "
        f"when all parts have run: sammed data merge {quote(str(out))}"
    )


def _progress() -> AbstractContextManager[Callable[[int, int], None]]:
    from contextlib import contextmanager

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from sammed_data.talk import progress_console

    @contextmanager
    def bar() -> Iterator[Callable[[int, int], None]]:
        columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        err = progress_console()
        with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
            task = progress.add_task("shards", total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    return bar()


def report_build(result: BuildResult, out: Path) -> None:
    """Print what a build made, reused, set aside and left out."""
    from sammed_data.corpus import Corpus
    from sammed_data.counts import Counts
    from sammed_data.describe import count_tables, counts_lines
    from sammed_data.talk import answer

    told = ("counts", "content_sha256", "not_built")
    answer(
        {name: result.manifest[name] for name in told}
        | {"corpus": out, "shards_built": result.built, "shards_reused": result.reused}
        | {"quarantined": result.quarantined, "left_out": result.refused}
        | {"kept": result.kept, "dropped": result.dropped, "failed": result.failed}
        | {"not_on_disk": [entry.id for entry in result.absent]}
    )
    console = new_console()
    opened = Corpus(out)
    print_tables(console, count_tables(Counts(opened)))
    for line in counts_lines(result.manifest):
        console.print(line, highlight=False)
    console.print(f"shards: {result.built} built, {result.reused} already there", highlight=False)
    if result.absent:
        names = ", ".join(entry.id for entry in result.absent[:8])
        more = f" and {len(result.absent) - 8} more" if len(result.absent) > 8 else ""
        console.print(
            f"not on disk: {names}{more} (`sammed data list` says where to get each)",
            highlight=False,
        )
    for twins in result.twice:
        console.print(
            f"the same images, built more than once: {', '.join(twins)} (their entries find the "
            "same files; name one under --only)",
            highlight=False,
        )
    for name, reason in sorted(result.refused.items()):
        console.print(f"left out: {name}: {reason}", markup=False, highlight=False)
    if result.kept:
        console.print(f"kept as they were: {', '.join(result.kept)}", highlight=False)
    if result.dropped:
        console.print(f"no longer in the corpus: {', '.join(result.dropped)}", highlight=False)
    for name, reason in sorted(result.failed.items()):
        console.print(f"not built: {name}: {reason}", markup=False, highlight=False)
    print_quarantine(console, opened.root)
    console.print(
        f"corpus: {out}  content {result.manifest['content_sha256'][:16]}", highlight=False
    )
