"""Files of a results folder: written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` where the block ends well.

    The folder is made. The name is this process' own: several may score the same part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, found: Any, indent: int = 1) -> None:
    """Write JSON."""
    with whole(path) as partial:
        partial.write_text(json.dumps(found, indent=indent) + "\n", encoding="utf-8")


def read_records(path: Path) -> list[dict[str, Any]]:
    """A JSON list beside the scores; empty where an older version made none."""
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def update_records(path: Path, made: Iterable[Mapping[str, Any]]) -> None:
    """Put records first in a list; those of other models that it held stay."""
    new = [dict(record) for record in made]
    names = {record["model"] for record in new}
    kept = [record for record in read_records(path) if record["model"] not in names]
    write_json(path, [*new, *kept])
