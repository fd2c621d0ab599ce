"""`sammed.lock.yaml` under the data root: size and hash of every file that was fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sammed_data.catalog import read_yaml
from sammed_data.types import FetchError

LOCK_NAME = "sammed.lock.yaml"
_HEAD = "# written by `sammed data fetch`: what was downloaded; keep it with the data\n"


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A file as it was fetched first.

    Attributes:
        dataset: folder under the root that holds it.
        verified: ``entry``, ``record`` or ``repository`` = its hash was known beforehand from
            there; ``unverified`` = this is the first sight of it.
    """

    dataset: str
    name: str
    bytes: int
    sha256: str
    verified: str
    fetched: str


def read_lock(root: Path) -> dict[str, Locked]:
    """Address -> what was fetched from it; empty where there is no lock yet.

    Raises:
        FetchError: the lock is there and cannot be understood.
    """
    path = root / LOCK_NAME
    if not path.exists():
        return {}
    raw = read_yaml(path)
    try:
        if not isinstance(raw, dict) or raw["lock_version"] != 1:
            raise KeyError("lock_version")
        return {url: Locked(**row) for url, row in (raw["files"] or {}).items()}
    except (KeyError, TypeError, AttributeError) as err:
        raise FetchError(
            f"{path}: expected a lock of version 1 with 'files', found something else; mend it, or "
            "move it away to start a new one"
        ) from err


def add_to_lock(root: Path, rows: Mapping[str, Locked]) -> None:
    """Record files; written beside, then renamed, so a kill leaves one of the two whole."""
    import yaml

    merged = {**read_lock(root), **rows}
    text = yaml.safe_dump(
        {"lock_version": 1, "files": {u: asdict(r) for u, r in sorted(merged.items())}},
        sort_keys=False, allow_unicode=True, width=200,
    )  # fmt: skip
    part = root / f"{LOCK_NAME}.{os.getpid()}.part"
    part.write_text(_HEAD + text, encoding="utf-8")
    part.replace(root / LOCK_NAME)
