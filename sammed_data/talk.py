"""How a command speaks: `--quiet`, `--verbose` and `--json` mean the same for every verb.

The front door gives each verb these options (:func:`give_options`); a verb says what it found in
plain lines, and calls :func:`answer` with the same as a document.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from sammed_data.system import peak_bytes

if TYPE_CHECKING:
    from rich.console import Console

RECORD = "command.json"
_PANEL = "Talk"
_QUIET = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Errors alone; the exit code says.", rich_help_panel=_PANEL),
]
_VERBOSE = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Options as resolved, time, memory.", rich_help_panel=_PANEL
    ),
]
_JSON = Annotated[
    bool, typer.Option("--json", help="One document on stdout.", rich_help_panel=_PANEL)
]


@dataclass
class _Talk:
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    quiet: bool = False
    verbose: bool = False
    document: Any = None


_NOW: ContextVar[_Talk] = ContextVar("talk")


def _now() -> _Talk:
    return _NOW.get(_Talk())


def is_quiet() -> bool:
    """Whether `--quiet` was given."""
    return _now().quiet


def is_verbose() -> bool:
    """Whether errors are to show where they came from."""
    return _now().verbose or bool(os.environ.get("SAMMED_DEBUG"))


def answer(document: Any) -> None:
    """What the verb found, for `--json`: plain values, paths as text."""
    _now().document = document


def say_dry(
    reads: Iterable[Any], writes: Iterable[Path], *, as_json: bool = False, **found: Any
) -> None:
    """What a verb under `--dry-run` would read and write.

    Args:
        reads: what it would read, or has read.
        writes: files and folders it would make or replace.
        as_json: the verb has a `--json` of its own, and it was given.
        found: what else the document is to hold.
    """
    wanted = list(dict.fromkeys(writes))
    read = [str(r) for r in reads]
    document = {"dry_run": True, "reads": read, "would_write": [str(w) for w in wanted]} | found
    if as_json:
        typer.echo(json.dumps(_plain(document), indent=1))
        return
    answer(document)
    shown = ", ".join(f"{w} (there already)" if w.exists() else str(w) for w in wanted)
    typer.echo(f"would read {', '.join(read) or 'nothing'}")
    typer.echo(f"would write {shown or 'nothing'}; nothing was written")


def detail(text: str) -> None:
    """A line for `--verbose` alone, on stderr."""
    if _now().verbose:
        typer.echo(text, err=True)


def progress_console() -> Console:
    """Stderr, where bars and notes go that are no answer; silent under `--quiet`."""
    from rich.console import Console

    return Console(stderr=True, quiet=is_quiet())


def record_command(folder: Path) -> None:
    """Leave the command with its resolved options beside what it wrote."""
    talk = _now()
    if not talk.command:
        return
    found = {"command": talk.command, "options": _plain(talk.options), "sammed": _version()}
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")


def give_options(app: typer.Typer, path: tuple[str, ...] = ("sammed",)) -> None:
    """Give every verb under ``app`` the options of this module; call it once, at the door.

    The prose of its help is made to flow, whatever the width of the lines it was written in.
    """
    for info in app.registered_commands:
        if info.callback is not None:
            name = info.name or info.callback.__name__.strip("_").replace("_", "-")
            info.help = _flowing(info.help or inspect.getdoc(info.callback) or "")
            info.callback = _speaking(info.callback, " ".join((*path, name)))
    shared = app.registered_callback
    if shared is not None and shared.callback is not None:
        said = shared.help if isinstance(shared.help, str) else inspect.getdoc(shared.callback)
        shared.help = _flowing(said or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            inner = (*path, group.name or "")
            own = group.typer_instance.registered_callback
            if own is not None and own.callback is not None and own.invoke_without_command is True:
                own.callback = _speaking(own.callback, " ".join(inner))  # a verb with verbs
            give_options(group.typer_instance, inner)


def _flowing(text: str) -> str:
    """Help with each paragraph on one line; indented lines, which are commands, stay lines.

    So does what follows click's mark of a paragraph that is to be left alone.
    """
    lines: list[str] = []
    kept = False
    for line in inspect.cleandoc(text).splitlines():
        kept = line == "\b" or (kept and bool(line))
        prose = bool(line) and not line[0].isspace() and not kept
        if prose and lines and lines[-1] and not lines[-1][0].isspace():
            lines[-1] += " " + line
        else:
            lines.append(line)
    return "\n".join(lines)


def _speaking(verb: Callable[..., Any], command: str) -> Callable[..., Any]:
    """The verb with the three options; one that has its own `--json` keeps it."""
    hints = get_type_hints(verb, include_extras=True)
    signature = inspect.signature(verb)
    parameters = [
        p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()
    ]
    own_json = next((p.name for p in parameters if "--json" in _names_of(p)), None)
    added = {"talk_quiet": _QUIET, "talk_verbose": _VERBOSE}
    if own_json is None:
        added = {"talk_json": _JSON, **added}
    for name, hint in added.items():
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=False, annotation=hint))

    @functools.wraps(verb)
    def speaking(*args: Any, **options: Any) -> Any:
        given = {name: options.pop(name) for name in added}
        talk = _Talk(
            command=command,
            options={k: v for k, v in options.items() if k != "context"},
            quiet=given["talk_quiet"],
            verbose=given["talk_verbose"],
        )
        began = time.perf_counter()
        _NOW.set(talk)  # and left: the front door asks it when it shows an error
        _tell_options(talk)
        own_document = bool(options.get(own_json or ""))
        try:
            with _lines(talk, to_stderr=bool(given.get("talk_json")), own_document=own_document):
                return verb(*args, **options)
        finally:
            if given.get("talk_json") and talk.document is not None:
                typer.echo(json.dumps(_plain(talk.document), indent=1))
            _tell_cost(talk, time.perf_counter() - began)

    speaking.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    speaking.__annotations__ = hints | added
    return speaking


def _names_of(parameter: inspect.Parameter) -> tuple[str, ...]:
    """The names of an option, given in its annotation or as its default."""
    said = [parameter.default]
    if get_origin(parameter.annotation) is Annotated:
        said += get_args(parameter.annotation)[1:]
    names = [name for info in said for name in getattr(info, "param_decls", None) or ()]
    # In an annotation typer takes the first name for the default until it builds the command.
    names += [str(info.default) for info in said if hasattr(info, "param_decls")]
    return tuple(name for name in names if name.startswith("-"))


@contextmanager
def _lines(talk: _Talk, *, to_stderr: bool, own_document: bool) -> Iterator[None]:
    """Where plain lines go: a document is never mixed with them, nor silenced."""
    if talk.quiet and not own_document:
        with Path(os.devnull).open("w", encoding="utf-8") as sink, redirect_stdout(sink):
            yield
    elif to_stderr:
        with redirect_stdout(sys.stderr):
            yield
    else:
        yield


def _tell_options(talk: _Talk) -> None:
    if talk.verbose:
        detail(f"{talk.command}, sammed {_version()}, Python {sys.version.split()[0]}")
        for name, value in sorted(talk.options.items()):
            detail(f"  {name.strip('_')}: {_plain(value)}")


def _tell_cost(talk: _Talk, seconds: float) -> None:
    if not talk.verbose:
        return
    peak = peak_bytes()
    detail(f"took {seconds:.1f} s" + (f", peak memory {peak / 1e9:.2f} GB" if peak else ""))


def _version() -> str:
    from sammed_data.manifest import sammed_version

    return sammed_version()


def _plain(value: Any) -> Any:
    """Values that JSON knows; paths and the like as text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
