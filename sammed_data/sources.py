"""Source files of a case: which files a path stands for, their state and their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from sammed_data import archives
from sammed_data.stages import stage
from sammed_data.types import Case, ReadError


def relative(path: Path, root: Path) -> str:
    """POSIX path below the dataset root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def files_of(path: Path) -> list[Path]:
    """The files behind a case path: a series folder, a header with its data file, or itself."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.is_file())
    detached = {".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz"), ".hdr": (".img",)}
    beside = [path.with_suffix(s) for s in detached.get(path.suffix.lower(), ())]
    if archives.split(path) is not None:
        return archives.files_of(path, beside)
    return [path, *(p for p in beside if p.is_file())]


def state(path: Path) -> list[tuple[str, int, int]]:
    """(name, size, mtime in ns) of every file behind a path: cheap proof that nothing changed.

    Raises:
        ReadError: the file is gone.
    """
    if archives.split(path) is not None:
        return [archives.state(p) for p in files_of(path)]
    try:
        found = [(p.name, p.stat()) for p in files_of(path)]
    except OSError as err:
        raise ReadError(f"{path}: expected a readable file, but {err.strerror}") from err
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


@stage("source digest")
def digest(path: Path) -> str:
    """SHA-256 of a file; of the sorted file digests where several files make one source.

    Raises:
        ReadError: the file cannot be read.
    """
    hashes = sorted(_file_digest(p, *_stamp(p)) for p in files_of(path))
    if len(hashes) == 1 and path.is_file():
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4096)
def _file_digest(path: Path, size: int, mtime_ns: int) -> str:
    """Cached: the channels of a 4D file and the axes of a case share their files."""
    try:
        with path.open("rb", buffering=0) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as err:
        raise ReadError(f"{path}: cannot be read ({err.strerror})") from err


def case_paths(case: Case) -> list[tuple[str, Path]]:
    """(role, path) of the image, then of every label, then of tables, each path once."""
    paths = [("image", case.image_path)]
    for label in case.labels:
        if ("label", label.path) not in paths:
            paths.append(("label", label.path))
    labels = {path for role, path in paths if role == "label"}
    paths.extend(("table", path) for path in case.tables if path not in labels)
    return paths


def source_hashes(case: Case, named: Callable[[str], str]) -> set[str]:
    """One hash over path and bytes of every source of a case; what a lock sums up.

    ``named`` gives a path as it may be stored: that of a restricted dataset is keyed, or a guessed
    path could be confirmed by the hash.
    """
    found = set()
    for _, path in case_paths(case):
        try:
            content = digest(path)
        except (ReadError, OSError):  # quarantined by whoever reads it, with the reason
            content = "unreadable"
        name = named(relative(path, case.root))
        found.add(hashlib.sha256(f"{name}\0{content}".encode()).hexdigest())
    return found
