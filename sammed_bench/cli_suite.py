"""``sammed bench freeze | suites | phantoms``. Heavy imports inside the verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(bench: typer.Typer) -> None:
    """Add the verbs to ``sammed bench``."""
    bench.command("freeze")(_freeze)
    bench.command("suites")(_suites)
    bench.command("phantoms")(_phantoms)


def _freeze(
    corpus: Annotated[Path, typer.Argument(help="Built corpus.")],
    out: Annotated[Path, typer.Option(help="New suite file; its name is that of the suite.")],
    datasets: Annotated[
        str | None, typer.Option(help="Ids, separated by commas. Default: all of the splits.")
    ] = None,
    prompts: Annotated[str, typer.Option(help="Prompt modes.")] = "bbox,1pt,3pt,5pt",
    protocol: Annotated[
        str, typer.Option(help="Prompt protocols, separated by commas; the first is the usual one.")
    ] = "sam-med2d",
    metrics: Annotated[str, typer.Option(help="What is measured.")] = "dice,iou",
    split: Annotated[str, typer.Option(help="Splits, separated by commas.")] = "test,held_out",
    edition: Annotated[str, typer.Option(help="native or as-released.")] = "native",
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    like: Annotated[
        str | None,
        typer.Option(help="A suite, by name or file, whose unfrozen datasets are to be frozen."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make the suite; write no file.")
    ] = False,
) -> None:
    """Freeze what a corpus holds, and how it is scored, as a suite that others can run.

    For example:

    sammed bench freeze corpus --datasets busi,hc18 --prompts bbox,1pt --out mine.yaml

    sammed bench freeze corpus --like open-2d-v1 --datasets busi --out open-2d-v1.yaml
    """
    from sammed_bench.editions import parse_edition
    from sammed_bench.metric_cards import parse_metrics
    from sammed_bench.modes import parse_modes
    from sammed_bench.suite import load_suite
    from sammed_bench.suite_freeze import Asked, freeze, freeze_rest, refuse_there, write_suite
    from sammed_data.corpus import Corpus
    from sammed_data.talk import answer, say_dry

    opened, ids = Corpus(corpus), _parts(datasets or "")
    if like:
        suite = freeze_rest(opened, load_suite(like), ids)
    else:
        asked = Asked(
            modes=parse_modes(prompts),
            datasets=ids,
            splits=_parts(split),
            protocols=_parts(protocol),
            metrics=parse_metrics(metrics),
            edition=parse_edition(edition),
            seed=seed,
        )
        suite = freeze(opened, asked, name=out.stem)
    if dry_run:
        refuse_there(out)
        reads = [opened.root, *([like] if like else [])]
        say_dry(reads, [out], suite=suite.name, digest=suite.digest, unfrozen=suite.unfrozen)
        return
    write_suite(out, suite)
    answer({"suite": suite.name, "digest": suite.digest, "file": out, "unfrozen": suite.unfrozen})
    frozen = [d for d in suite.datasets if not d.unfrozen]
    typer.echo(
        f"{out}: suite {suite.name} ({suite.digest[:12]}), {len(frozen)} datasets frozen with "
        f"{sum(d.images or 0 for d in frozen)} images and {sum(d.masks or 0 for d in frozen)} masks"
    )
    if suite.unfrozen:
        typer.echo(f"not frozen: {', '.join(suite.unfrozen)}")


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _suites() -> None:
    """The suites that come with sammed: what they hold and how their corpus is made.

    For example:

    sammed bench suites
    """
    from sammed_bench.suite import load_suite, shipped
    from sammed_data.talk import answer

    found = [load_suite(name) for name in shipped()]
    answer(
        [
            {"name": s.name, "version": s.version, "digest": s.digest, "datasets": s.ids}
            | {"unfrozen": s.unfrozen, "how": s.how, "about": s.about}
            for s in found
        ]
    )
    for suite in found:
        images = sum(dataset.images or 0 for dataset in suite.datasets)
        counted = f"{images} images, frozen" if not suite.unfrozen else "images not frozen"
        typer.echo(f"{suite.name} ({suite.digest[:12]}): {len(suite.ids)} datasets, {counted}")
        typer.echo(f"  {suite.about}")
        for command in suite.how:
            typer.echo(f"  $ {command}")


def _phantoms(
    folder: Annotated[Path, typer.Option("--dir", help="Work folder.")] = Path("phantoms"),
    patients: Annotated[int, typer.Option(help="Of each phantom.")] = 36,
    workers: Annotated[int, typer.Option(help="Processes of the build.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Name the folders; draw and build nothing.")
    ] = False,
) -> None:
    """Draw the phantoms and build the corpus of the suites `phantoms` and `phantoms-small`.

    For example:

    sammed bench phantoms --dir phantoms

    sammed bench --suite phantoms --corpus phantoms/corpus --model oracle
    """
    from sammed_data.build import build
    from sammed_data.phantom import PHANTOMS, check_phantoms, write_phantoms
    from sammed_data.talk import answer, say_dry

    corpus = folder / "corpus"
    if dry_run:
        check_phantoms(list(PHANTOMS), patients)
        say_dry([], [folder / "catalogs", folder / "data", corpus], patients=patients)
        return
    write_phantoms(folder, n_patients=patients)
    result = build(folder / "catalogs", folder / "data", corpus, workers=workers)
    counts = result.manifest["counts"]
    answer({"corpus": corpus, "images": counts["images"]["kept"], "masks": counts["masks"]["kept"]})
    typer.echo(
        f"{corpus}: {counts['images']['kept']} images with {counts['masks']['kept']} masks, seed 0"
    )
