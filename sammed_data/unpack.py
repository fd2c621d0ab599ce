"""Members of an archive as files on disk, for as long as a shard needs them."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from socket import gethostname
from typing import IO

from sammed_data.archives import DAMAGE, Member, index_of, open_tar, split
from sammed_data.readers.limits import MAX_DECODED_BYTES
from sammed_data.sources import case_paths, files_of
from sammed_data.types import Case, ReadError

_BLOCK = 1 << 20
#: What the files of one case may take when unpacked.
MAX_CASE_BYTES = 4 * MAX_DECODED_BYTES


@contextmanager
def unpacked(cases: Sequence[Case], scratch: Path) -> Iterator[list[Case]]:
    """The cases with paths on disk; those that lie in no archive are given back as they are.

    Members are taken out in the order of the archive and removed at the end. A member that cannot
    be taken out becomes the ``damage`` of its case.

    Args:
        cases: of one dataset.
        scratch: folder for the files; what dead runs left there is removed.
    """
    if not any(split(case.root) for case in cases):
        yield list(cases)
        return
    _sweep(scratch)
    folder = scratch / f"{gethostname()}-{os.getpid()}.unpacked"
    try:
        yield _take_out(cases, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(scratch: Path) -> None:
    """Remove folders of processes of this machine that are gone (killed)."""
    for left in scratch.glob(f"{gethostname()}-*.unpacked"):
        pid = left.stem.rpartition("-")[2]
        if not pid.isdigit() or not Path(f"/proc/{pid}").exists() or int(pid) == os.getpid():
            shutil.rmtree(left, ignore_errors=True)


def _take_out(cases: Sequence[Case], folder: Path) -> list[Case]:
    damage: dict[int, str] = {}
    wanted: dict[Path, dict[str, Path]] = {}
    for number, case in enumerate(cases):
        try:
            for archive, member in _members(case):
                wanted.setdefault(archive, {})[member] = _place(folder, archive) / member
        except ReadError as err:
            damage[number] = str(err)
    failed: dict[Path, str] = {}
    for archive, members in wanted.items():
        failed |= extract(archive, members)
    return [
        _local(case, folder, damage.get(number, ""), failed) for number, case in enumerate(cases)
    ]


def _members(case: Case) -> list[tuple[Path, str]]:
    """(archive, member) of every file of a case; ReadError where they are too large together."""
    found: list[tuple[Path, str]] = []
    total = 0
    for _, path in case_paths(case):
        for file in files_of(path):
            archive, member = split(file) or (file, "")
            size = index_of(archive).members[member].size
            total += size
            if size > MAX_DECODED_BYTES or total > MAX_CASE_BYTES:
                raise ReadError(
                    f"{path.name}: expected at most {MAX_DECODED_BYTES:,} bytes a file and "
                    f"{MAX_CASE_BYTES:,} a case, {archive.name} declares {size:,} and {total:,}; "
                    "check the archive"
                )
            found.append((archive, member))
    return found


def _place(folder: Path, archive: Path) -> Path:
    return folder / sha256(str(archive).encode()).hexdigest()[:16]


def _local(case: Case, folder: Path, damage: str, failed: dict[Path, str]) -> Case:
    def moved(path: Path) -> Path:
        archive, member = split(path) or (path, "")
        return _place(folder, archive) / member

    labels = tuple(replace(label, path=moved(label.path)) for label in case.labels)
    image, tables = moved(case.image_path), tuple(moved(t) for t in case.tables)
    held = split(case.root)
    for path, reason in failed.items():
        if any(path == p or p in path.parents for p in (image, *(x.path for x in labels), *tables)):
            damage = damage or reason
    return replace(
        case,
        image_path=image,
        labels=labels,
        tables=tables,
        root=moved(case.root),
        archive=held[0].name if held else "",
        damage=damage,
    )


def extract(archive: Path, members: dict[str, Path]) -> dict[Path, str]:
    """Write members to their paths in one pass; path -> why, for those that failed."""
    index = index_of(archive)
    failed: dict[Path, str] = {}
    order = sorted(members, key=lambda name: index.members[name].offset)
    with ExitStack() as stack:
        held: zipfile.ZipFile | tarfile.TarFile
        if archive.name.lower().endswith(".zip"):
            held = stack.enter_context(zipfile.ZipFile(archive))
        else:
            held = stack.enter_context(open_tar(archive))
        for name in order:
            path = members[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                _copy(held, index.members[name], path)
            except DAMAGE as err:
                path.unlink(missing_ok=True)
                failed[path] = (
                    f"{path.name}: expected a whole member of {archive.name}, found a damaged one "
                    f"({err}); fetch the archive again"
                )
    return failed


def _copy(held: zipfile.ZipFile | tarfile.TarFile, member: Member, path: Path) -> None:
    """One member to a file; never more than it declares.

    Raises:
        EOFError: it holds less than it declares.
        ValueError: it holds more.
    """
    with path.open("wb") as target:
        for block in _blocks(held, member):
            target.write(block)


def _blocks(held: zipfile.ZipFile | tarfile.TarFile, member: Member) -> Iterator[bytes]:
    left = member.size
    try:
        with _opened(held, member) as source:
            while block := source.read(min(_BLOCK, left + 1)):
                if len(block) > left:
                    raise ValueError(f"it holds more than the {member.size:,} bytes it declares")
                yield block
                left -= len(block)
    except OSError as err:  # a place that does not exist; a full disk is the writer's error
        raise EOFError(str(err)) from err
    if left:
        raise EOFError(f"it ends {left:,} bytes before the size it declares")


def _opened(held: zipfile.ZipFile | tarfile.TarFile, member: Member) -> IO[bytes]:
    if isinstance(held, zipfile.ZipFile):
        return held.open(member.name)
    info = tarfile.TarInfo(member.name)
    info.size, info.offset_data = member.size, member.offset
    found = held.extractfile(info)
    if found is None:
        raise EOFError("it is not a file")
    return found
