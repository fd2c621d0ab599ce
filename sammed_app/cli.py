"""Commands of this room: ``sammed demo``, ``sammed predict`` and ``sammed app``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sammed_app.cli_doctor import register as register_doctor
from sammed_app.page.cli import register as register_page
from sammed_app.predict.cli import register as register_predict

_HELP = """Try everything on procedural phantoms, without any download.

Writes phantom datasets, builds a corpus, trains FT-SAM and SAM-Med2D from a small SAM of our own,
each beside a control that saw the same masks and prompts with the images permuted, benchmarks
all of them, and says where corpus, weights and report lie. Under 10 minutes on two cores; a second
call goes on where the first one stopped.

Examples:

  sammed demo

  sammed demo --dir /tmp/try --quick

  cd demo && sammed train && sammed bench --prompts 1pt,bbox,5pt
"""


def register(app: typer.Typer) -> None:
    """Add this room's commands to the root app."""
    app.command("demo", help=_HELP)(demo)
    register_doctor(app)
    register_predict(app)
    register_page(app)


def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Work folder.")] = Path("demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few patients and steps, to see that it runs.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do finished stages again.")] = False,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Pre-train the small SAM here (half an hour more)."),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Steps of each training.", show_default="of the plan")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of phantoms, order and draws.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which stages are left; do none.")
    ] = False,
) -> None:
    """See ``_HELP``."""
    import os
    from dataclasses import asdict

    from sammed_app.demo import left_of, plan_of, run_demo
    from sammed_app.telling import Teller
    from sammed_data.system import keep_memory
    from sammed_data.talk import answer, say_dry

    plan = plan_of(quick=quick, seed=seed, steps=steps)
    if dry_run:
        left = left_of(folder, plan, fresh=fresh, from_scratch=from_scratch)
        writes = [folder / name for name in ("catalogs", "data", "corpus", "runs", "results")]
        say_dry([], writes, stages=left, patients=plan.n_patients, steps=plan.steps)
        typer.echo(f"stages: {', '.join(left)}")
        return
    keep_memory()
    teller = Teller()
    teller.opening(folder)
    result = run_demo(
        folder,
        plan,
        teller,
        fresh=fresh,
        from_scratch=from_scratch,
        workers=min(2, os.cpu_count() or 1),
    )
    teller.closing(result, folder, quick=quick)
    answer(
        {"corpus": result.corpus, "runs": result.runs, "results": result.results}
        | {"seconds": result.seconds, "findings": [asdict(f) for f in result.findings]}
    )
