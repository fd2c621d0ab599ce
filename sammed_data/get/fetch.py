"""`sammed data fetch`: from an entry to a folder under the data root, or the steps by hand."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from sammed_data.catalog import CatalogEntry, Download
from sammed_data.discover import find_root
from sammed_data.get.download import Got, Progress, check_space, digests, download, silent
from sammed_data.get.lock import Locked, add_to_lock, read_lock
from sammed_data.get.members import archive_kind, named_by_content
from sammed_data.get.records import RemoteFile, files_of, is_file_address
from sammed_data.get.split import group_archives
from sammed_data.get.unpack import Limits, unpack
from sammed_data.get.web import Web
from sammed_data.system import lock_file
from sammed_data.types import FetchError

_WORK = ".fetch"
_SAVED_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """How to fetch.

    Attributes:
        accepted: the user has registered or signed what the source asks for.
        again: fetch although the dataset is there; the lock's hashes must come again.
        keep_archives: leave the downloaded archives in ``<root>/.fetch/<id>``.
    """

    accepted: bool = False
    again: bool = False
    keep_archives: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What `fetch` did.

    Attributes:
        place: where the patterns of the entry start now; None = nothing matches them.
        files: what was downloaded, with hashes and how far they are proven.
        said: remarks for the user.
    """

    dataset: str
    place: Path | None
    files: tuple[Locked, ...] = ()
    said: tuple[str, ...] = ()


def downloads_of(entry: CatalogEntry) -> list[Download]:
    """What the entry says to get: ``downloads``, else ``download_url`` if it is a file."""
    if entry.downloads:
        return list(entry.downloads)
    url = entry.download_url
    return [Download(url=url)] if url and is_file_address(url) else []


def steps_by_hand(
    entry: CatalogEntry, root: Path, web: Web, *, accepted: bool = False
) -> list[str]:
    """What a person must do before or in place of `fetch`; empty = `fetch` can do it."""
    found = downloads_of(entry)
    tokens = bool(found) and all(web.token(d.token_env) for d in found)
    if found and (entry.access == "open" or accepted or tokens):
        return []
    if not found and not entry.homepage.startswith("http"):  # one's own
        return [
            f"there is no address to fetch from ({entry.homepage}): name the folder that holds it "
            f"as --root of `sammed data check {entry.id}`"
        ]
    steps = [f"open {entry.homepage}"]
    if entry.access != "open":
        what = "sign the data use agreement" if entry.access == "DUA" else "register"
        steps.append(f"{what} there ({entry.access_note or entry.access}); licence {entry.license}")
    if found:
        names = sorted({d.token_env for d in found if d.token_env})
        if names:
            steps.append(f"put your access token into ${' and $'.join(names)}")
        return [*steps, f"then run `sammed data fetch {entry.id} --accepted --root {root}`"]
    if entry.download_url and entry.download_url != entry.homepage:
        steps.append(f"download from {entry.download_url}")
    else:
        steps.append("download the training images and labels")
    example = entry.layout.example or {}
    below = f", so that {root / entry.id / example['image']} exists" if "image" in example else ""
    steps.append(f"unpack into {root / entry.id}{below}")
    return [*steps, f"run `sammed data check {entry.id} --root {root}`"]


def fetch(
    entry: CatalogEntry,
    root: Path,
    web: Web,
    options: FetchOptions | None = None,
    *,
    progress: Progress = silent,
) -> Fetched:
    """Download, verify, unpack, and put the dataset under ``root/<id>`` in one rename.

    Raises:
        FetchError: nothing of it stays but the downloads, which the next run continues.
    """
    options = options or FetchOptions()
    place = find_root(entry, root)
    if place is not None and not options.again:
        return Fetched(dataset=entry.id, place=place, said=(f"already at {place}",))
    root.mkdir(parents=True, exist_ok=True)
    files = [f for d in downloads_of(entry) for f in files_of(d, web)]
    if not files:
        raise FetchError(f"{entry.id}: expected an address of a file in the entry, found none")
    job = _Job(entry, root, web, options, progress)
    if place is None:
        shared = job.shared_folder(files)
        if shared is not None:
            return shared
    job.check_target()
    with job.alone():
        got = job.download_all(files)
        job.unpack_all(files, got)
        return job.finish(files)


class _Job:
    def __init__(
        self, entry: CatalogEntry, root: Path, web: Web, options: FetchOptions, progress: Progress
    ) -> None:
        self.entry, self.root, self.web, self.options = entry, root, web, options
        self.progress = progress
        self.target = root / entry.id
        self.work = root / _WORK / entry.id
        self.staging = self.work / "unpacked"
        self.lock = read_lock(root)
        self.new: dict[str, Locked] = {}
        self._saved = 0.0

    def shared_folder(self, files: list[RemoteFile]) -> Fetched | None:
        """Another entry's download may be the same archives: link to its folder."""
        owners = {row.dataset for f in files if (row := self.lock.get(f.urls[0]))}
        known = all(f.urls[0] in self.lock for f in files)
        if not known or len(owners) != 1 or self.target.exists():
            return None
        owner = owners.pop()
        if owner == self.entry.id or not (self.root / owner).is_dir():
            return None
        self.target.symlink_to(owner)
        place = find_root(self.entry, self.root)
        if place is None:
            self.target.unlink()
            return None
        said = f"its download is that of {owner}: linked to its folder"
        return Fetched(dataset=self.entry.id, place=place, said=(said,))

    def check_target(self) -> None:
        """What the user put there himself is never replaced."""
        ours = any(row.dataset == self.entry.id for row in self.lock.values())
        if self.target.exists() and not ours:
            raise FetchError(
                f"expected nothing at {self.target}, found files that `fetch` did not write: "
                f"`sammed data check {self.entry.id}` them, or move them away"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Two runs must not write one ``.part`` file."""
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "lock").open("w") as stream:
            try:
                lock_file(stream)
            except BlockingIOError as err:
                raise FetchError(
                    f"another `fetch` of {self.entry.id} is writing {self.work}: wait for it"
                ) from err
            yield

    def download_all(self, files: list[RemoteFile]) -> list[Path]:
        paths = [self._path(f) for f in files]
        if len(set(paths)) != len(paths):
            raise FetchError(
                f"{self.entry.id}: two downloads would get the same name: give one of them 'file'"
            )
        missing = [f.bytes or 0 for f, p in zip(files, paths, strict=True) if not p.exists()]
        check_space(self.root, sum(missing), self.entry.id)
        try:
            for file, path in zip(files, paths, strict=True):
                self._record(file, self._bring(file, path))
        finally:
            if self.new:
                add_to_lock(self.root, self.new)
        return paths

    def _path(self, file: RemoteFile) -> Path:
        return self.work / "files" / file.folder / file.name

    def _bring(self, file: RemoteFile, path: Path) -> Got:
        known = self.lock.get(file.urls[0])
        if not file.has_hash and known is not None:
            file = replace(file, sha256=known.sha256, bytes=known.bytes, known_from="lock")
        if path.exists():  # whole, from a run that ended later
            found = digests(path, "sha256", "md5")
            wanted = {k: v for k, v in (("sha256", file.sha256), ("md5", file.md5)) if v}
            if wanted and all(found[k] == v for k, v in wanted.items()):
                size = path.stat().st_size
                return Got(path=path, bytes=size, sha256=found["sha256"], url=file.urls[0])
            path.unlink()
        return download(file, path, self.web, progress=self.progress)

    def _record(self, file: RemoteFile, got: Got) -> None:
        known = self.lock.get(file.urls[0])
        if known is not None and known.sha256 != got.sha256:
            raise FetchError(
                f"{file.urls[0]}: expected sha256 {known.sha256} by {self.root}/sammed.lock.yaml, "
                f"found {got.sha256}: the source changed it; remove that line to accept the new one"
            )
        if known is None:
            self.new[file.urls[0]] = Locked(
                dataset=self.entry.id,
                name=file.name,
                bytes=got.bytes,
                sha256=got.sha256,
                verified=file.known_from if file.has_hash else "unverified",
                fetched=datetime.now(UTC).date().isoformat(),
            )
            if time.monotonic() - self._saved > _SAVED_EVERY_S:
                add_to_lock(self.root, self.new)
                self._saved = time.monotonic()

    def unpack_all(self, files: list[RemoteFile], paths: list[Path]) -> None:
        """Into a fresh folder beside the target; it is removed again if anything is wrong."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)
        plain = {p for f, p in zip(files, paths, strict=True) if not f.download.unpack}
        try:
            for name, parts in group_archives(paths):
                name = named_by_content(parts[0]) if len(parts) == 1 else name
                below = parts[0].parent.relative_to(self.work / "files")
                folder = self.staging / below
                folder.mkdir(parents=True, exist_ok=True)
                if parts[0] in plain or archive_kind(name) is None:
                    for part in parts:
                        _link_or_copy(part, folder / part.name)
                else:
                    self._unpack_one(parts, name, folder)
        except BaseException:
            shutil.rmtree(self.staging, ignore_errors=True)
            raise

    def _unpack_one(self, parts: tuple[Path, ...], name: str, folder: Path) -> None:
        own = self.work / "one"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        try:
            unpack(parts, name, own, self.options.limits)
            _merge(own, folder, name)
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def finish(self, files: list[RemoteFile]) -> Fetched:
        whole = self._without_wrapper()
        old = self.work / "old"
        shutil.rmtree(old, ignore_errors=True)
        if self.target.is_symlink():
            self.target.unlink()
        elif self.target.exists():
            self.target.rename(old)
        whole.rename(self.target)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.staging, ignore_errors=True)
        if not self.options.keep_archives:
            shutil.rmtree(self.work, ignore_errors=True)
            with suppress(OSError):  # others are being fetched
                self.work.parent.rmdir()
        rows = {**self.lock, **self.new}
        place = find_root(self.entry, self.root)
        said: list[str] = []
        if place is None:
            tops = ", ".join(sorted(p.name for p in self.target.iterdir())[:8])
            said.append(
                f"no image of the entry's layout is in {self.target} (it holds {tops}): unpack "
                "inner archives, or mend layout and root of the entry"
            )
        return Fetched(
            dataset=self.entry.id,
            place=place,
            files=tuple(rows[f.urls[0]] for f in files),
            said=tuple(said),
        )

    def _without_wrapper(self) -> Path:
        """The only top folder of the archive, if the entry's patterns start below it."""
        if _has_images(self.entry, self.staging):
            return self.staging
        tops = list(self.staging.iterdir())
        if len(tops) == 1 and not tops[0].is_symlink() and _has_images(self.entry, tops[0]):
            return tops[0]
        return self.staging


def _has_images(entry: CatalogEntry, folder: Path) -> bool:
    """Whether the patterns match from exactly this folder."""
    return find_root(entry.model_copy(update={"id": ".", "root": []}), folder) is not None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _merge(source: Path, target: Path, name: str) -> None:
    """Move a tree into another; a file that is already there is an error, not a loser."""
    for path in sorted(source.iterdir()):
        there = target / path.name
        if path.is_dir() and not path.is_symlink() and there.is_dir() and not there.is_symlink():
            _merge(path, there, name)
        elif there.exists() or there.is_symlink():
            raise FetchError(
                f"{name}: {path.name!r} is already there from another archive of the dataset: "
                "give them different 'unpack_to' in the entry"
            )
        else:
            path.rename(there)
