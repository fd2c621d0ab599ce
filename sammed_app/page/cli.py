"""The command ``sammed app``. FastAPI and torch are imported inside it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sammed_app.page.settings import PageSettings

_HELP = """Look at a corpus, replay results, click in images: a page in the browser.

It answers on this machine alone. With another --host each visitor must show
the token that is printed.

\b
Examples:
  sammed app
  sammed app --corpus corpus --results results/001
  sammed app --model mine=runs/001-sam-med2d/model.safetensors
  sammed app --host 0.0.0.0 --port 9000
"""


def register(app: typer.Typer) -> None:
    """Add the command to the root app."""
    app.command("app", help=_HELP)(page)


def page(
    corpus: Annotated[
        Path | None,
        typer.Option(help="Built corpus.", show_default="that of the results, or ./corpus"),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Results of `sammed bench`.", show_default="the newest results/NNN"),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="LABEL=PATH[:KIND] to ask; also for weights that moved since the benchmark.",
            show_default="the newest runs",
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Training runs.")] = Path("runs"),
    exclude: Annotated[
        Path | None,
        typer.Option(
            help="CSV list that flagged samples go to.", show_default="exclude.csv of the corpus"
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to bind.")] = 8765,
    token: Annotated[
        bool, typer.Option("--token", help="Ask for a token on this machine too.")
    ] = False,
) -> None:
    """See ``_HELP``."""
    from sammed_data.types import UsageError

    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as err:
        raise UsageError(
            f"expected the extra 'app', found no {err.name}: pip install 'sammed[app]'"
        ) from err
    from sammed_app.page.server import serve

    settings = _settings(corpus, results, model, runs, exclude, host, port, asked=token)
    _say(settings)
    with suppress(KeyboardInterrupt):  # the way to stop it, not a failure
        serve(settings)


def _settings(
    corpus: Path | None,
    results: Path | None,
    model: list[str] | None,
    runs: Path,
    exclude: Path | None,
    host: str,
    port: int,
    *,
    asked: bool,
) -> PageSettings:
    import secrets

    from sammed_app.page.settings import LOOPBACK, PageSettings
    from sammed_bench.choose import choose, finished_runs
    from sammed_data.types import UsageError

    results = results or _newest(Path("results"))
    corpus = corpus or _scored(results)
    models = choose(model or [], runs) if model or finished_runs(runs) else []
    if corpus is None and results is None and not models:
        raise UsageError(
            "expected a corpus, results or weights to show, found none here: give --corpus, "
            "--results or --model, or run `sammed demo` first"
        )
    open_to_all = host not in LOOPBACK
    return PageSettings(
        corpus=corpus,
        results=results,
        models=tuple(models),
        exclude=exclude,
        host=host,
        port=port,
        token=secrets.token_urlsafe(24) if open_to_all or asked else "",
    )


def _newest(results: Path) -> Path | None:
    found = [p for p in results.glob("*") if p.name.isdigit() and (p / "bench.json").is_file()]
    return max(found, key=lambda p: int(p.name), default=None)


def _scored(results: Path | None) -> Path | None:
    """The corpus here, else the one that the results say they are about."""
    import json

    found = [Path("corpus")]
    if results is not None and (results / "bench.json").is_file():
        record = json.loads((results / "bench.json").read_text(encoding="utf-8"))
        said = str(record.get("settings", {}).get("corpus") or "corpus")
        beside = results.absolute().parent.parent  # of the demo: where it ran is one further up
        found = [Path(said), beside / said, beside.parent / said, *found]
    return next((path for path in found if (path / "manifest.json").is_file()), None)


def _say(settings: PageSettings) -> None:
    from sammed_data.talk import answer, is_quiet

    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{shown}:{settings.port}/"
    if settings.token:
        address += f"?token={settings.token}"
    labels = [wanted.label for wanted in settings.models]
    for name in ("corpus", "results"):
        typer.echo(f"{name:8} {getattr(settings, name) or 'none'}")
    typer.echo(f"{'models':8} {', '.join(labels) or 'none'}")
    typer.echo(f"open     {address}\nstop     Ctrl-C")
    if settings.token and is_quiet():
        typer.echo(address, err=True)  # nobody could come in otherwise
    plain = {"corpus": settings.corpus, "results": settings.results, "models": labels}
    answer(plain | {"open": address})
