"""Where a released corpus lies, and what is in it: by its own index instead of a walk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sammed_data import archives
from sammed_data.catalog import CatalogEntry
from sammed_data.entry_parts import Collection
from sammed_data.released import imed, samed2d
from sammed_data.types import Case, ReadError, Rejection

_FOLDERS = {"sa_med2d": ("images", "masks"), "imed": ()}


def root_of(entry: CatalogEntry, rule: Collection, data_root: Path) -> Path | None:
    """The folder with the index and the folders of files, or None."""
    for part in (entry.id, *entry.root, "."):
        root = data_root / part
        if all((root / name).is_dir() for name in _FOLDERS[rule.format]) and any(
            _is_index(rule, path) for path in root.glob(rule.index)
        ):
            return root
    return None


def _is_index(rule: Collection, path: Path) -> bool:
    """nnU-Net has a ``dataset.json`` too, but no folders ``image`` and ``label`` beside it."""
    beside = ("image", "label") if rule.format == "imed" else ()
    return path.is_file() and all((path.parent / name).is_dir() for name in beside)


def discover(
    entry: CatalogEntry, rule: Collection, root: Path
) -> tuple[Sequence[Case], tuple[Rejection, ...]]:
    """Cases and problems.

    Raises:
        ReadError: the root is an archive, or the index cannot be read.
    """
    if archives.split(root) is not None:
        raise ReadError(
            f"{entry.id}: expected files on disk, found them in {root.name}; unpack the archive"
        )
    if rule.format == "imed":
        return imed.discover(entry, rule, root)
    return samed2d.discover(entry, rule, root)
