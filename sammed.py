"""The front door: joins the rooms' commands and turns their errors into sentences; no logic."""

from __future__ import annotations

import errno
import sys
from typing import NoReturn

import typer

from sammed_app.cli import register as register_app
from sammed_bench.cli import register as register_bench
from sammed_data.cli import app as data_app
from sammed_data.talk import give_options, is_verbose
from sammed_data.types import InterruptedRun, SammedError, UsageError
from sammed_model.cli import register as register_model

INTERRUPTED = 130
# What a folder or a disk may say to any verb that writes: no fault of the program.
_OF_THE_PLACE = frozenset((
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG,
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
))  # fmt: skip

app = typer.Typer(
    name="sammed",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
register_model(app)
register_bench(app)
register_app(app)


def _version(value: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if value:
        from sammed_data.manifest import sammed_version

        typer.echo(f"sammed {sammed_version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Curate medical segmentation corpora, train adapter SAM, benchmark it.

    Start here: `sammed demo`, or `sammed data init FOLDER` on data of your own; `sammed doctor`
    looks at this machine. Exit codes: 0 all well, 1 failure, 2 usage, 3 finished with rejected
    inputs or findings, 130 interrupted (run again to continue).
    """


give_options(app)


def main() -> None:
    """Run the commands; exit codes: 0 well, 1 failure, 2 usage, 3 finished with rejects, 130."""
    try:
        app(prog_name="sammed")  # also where it runs as `python -m sammed`
    except (InterruptedRun, KeyboardInterrupt) as err:
        _interrupted(str(err))
    except SystemExit as stop:
        if stop.code != INTERRUPTED:
            raise
        _interrupted("")  # typer turns Ctrl-C into this code without a word
    except SammedError as err:
        if is_verbose():
            raise
        typer.echo(f"error: {err}", err=True)
        sys.exit(2 if isinstance(err, UsageError) else 1)
    except OSError as err:
        if is_verbose() or err.errno not in _OF_THE_PLACE:
            raise
        where = f"{err.filename}: " if err.filename else ""
        typer.echo(
            f"error: {where}{err.strerror}; mend that place, or name another (-v shows where "
            "it was asked for)",
            err=True,
        )
        sys.exit(1)


def _interrupted(said: str) -> NoReturn:
    text = said or "stopped by the user"
    if "continue" not in text:
        text += "; run again to continue"
    typer.echo(f"interrupted: {text}", err=True)
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
