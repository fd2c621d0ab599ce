"""What an address stands for: one file, the files of a Zenodo-like record or of a HF repository."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from sammed_data.catalog import Download
from sammed_data.get.web import TryAgainError, Web, origin, safe_url
from sammed_data.types import FetchError, nearest

_RECORD = re.compile(
    r"(?P<host>https?://[^/]+)/records?/(?P<id>\d+)(?:/files/(?P<file>[^?#]+))?/?(?:[?#].*)?"
)
_HF = re.compile(
    r"hf://(?P<kind>datasets/|models/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<rev>[^/]+))?(?:/(?P<path>.+))?"
)
_HF_PAGE = re.compile(r"https://huggingface\.co/(datasets/[^/]+/[^/?#]+)/?")
_FILE_SUFFIXES = (
    ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".tbz2", ".txz", ".7z", ".rar", ".nii", ".nrrd",
    ".mha", ".mhd", ".npz", ".npy", ".png", ".tif", ".tiff", ".csv", ".json", ".parquet", ".h5",
    ".001", ".z01",
)  # fmt: skip
_FILE_ADDRESSES = re.compile(r"/(ndownloader/files/\d+|download)/?$")
_MAX_LISTING = 64 << 20


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file to get.

    Attributes:
        name: relative POSIX path to save it under.
        urls: addresses of the same bytes, best first.
        bytes, sha256, md5: what is known beforehand; ``known_from`` says from where.
        download: the line of the entry it belongs to.
    """

    name: str
    urls: tuple[str, ...]
    download: Download
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    known_from: str = "entry"

    @property
    def folder(self) -> str:
        """Where it goes, relative to the dataset's folder; ``{stem}`` is the archive's own name."""
        stem = self.name.rpartition("/")[2].split(".")[0]
        return self.download.unpack_to.replace("{stem}", stem).strip("./")

    @property
    def has_hash(self) -> bool:
        """Whether the bytes can be proven."""
        return bool(self.sha256 or self.md5)


def is_file_address(url: str) -> bool:
    """Whether `fetch` can take it: a file, a record or a repository, not a page to read."""
    if url.startswith("hf://") or _RECORD.fullmatch(url) or _HF_PAGE.fullmatch(url):
        return True
    parts = urlsplit(url)
    if parts.netloc.endswith(("drive.google.com", "github.com")) and "/releases/" not in url:
        return False
    path = parts.path.lower()
    return path.endswith(_FILE_SUFFIXES) or _FILE_ADDRESSES.search(path) is not None


def files_of(download: Download, web: Web) -> list[RemoteFile]:
    """The files behind a line of ``downloads``, with sizes and hashes where the host states them.

    Raises:
        FetchError: the listing cannot be had, or nothing in it fits ``files``.
    """
    page = _HF_PAGE.fullmatch(download.url)
    address = f"hf://{page[1]}" if page else download.url
    hub, record = _HF.fullmatch(address), _RECORD.fullmatch(address)
    if hub:
        found = list(_hub_files(download, hub, web))
    elif record and record["file"] is None:
        found = _record_files(download, record, web)
    else:
        found = [_one_file(download, record, web)]
    return [_with_entry(f, download, len(found)) for f in found]


def _with_entry(file: RemoteFile, download: Download, n: int) -> RemoteFile:
    """The entry's own numbers win over the host's: they were checked by somebody."""
    if n != 1 or not (download.bytes or download.sha256 or download.md5):
        return file
    return replace(
        file,
        bytes=download.bytes if download.bytes is not None else file.bytes,
        sha256=download.sha256 or (None if download.md5 else file.sha256),
        md5=download.md5 or (None if download.sha256 else file.md5),
        known_from="entry" if download.sha256 or download.md5 else file.known_from,
    )


def _one_file(download: Download, record: re.Match[str] | None, web: Web) -> RemoteFile:
    name = download.file or file_name(download.url)
    plain = RemoteFile(name=name, urls=(download.url, *download.mirrors), download=download)
    if record is None or download.sha256 or download.md5:
        return plain
    wanted = unquote(record["file"]).removesuffix("/content")
    try:
        listed = _read_record(record, web, download.token_env)
    except FetchError:
        return plain  # the host has no such API: the file itself decides
    for file in _of_record(listed, download, record):
        if file.name == wanted:
            return replace(file, name=download.file or wanted, urls=plain.urls)
    return plain


def file_name(url: str) -> str:
    """The last part of an address, safe as a file name."""
    name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    name = re.sub(r"[^\w.+ ()-]", "_", name).lstrip(".")
    return name or "download"


def _read_json(url: str, web: Web, token_env: str | None) -> tuple[Any, str]:
    """(document, value of the Link header)."""

    def ask() -> tuple[bytes, str]:
        headers = {"Accept": "application/json"}
        with web.open(url, headers=headers, token_env=token_env) as response:
            try:
                return response.read(_MAX_LISTING + 1), response.headers.get("Link", "")
            except OSError as err:
                raise TryAgainError(f"{safe_url(url)}: {err}") from err

    data, link = web.patiently(ask)
    if len(data) > _MAX_LISTING:
        raise FetchError(f"{safe_url(url)}: the listing is larger than 64 MiB: not read")
    try:
        return json.loads(data), link
    except ValueError as err:
        raise FetchError(
            f"{safe_url(url)}: expected a JSON listing of files, found something else: "
            "check the address in the entry"
        ) from err


def _read_record(record: re.Match[str], web: Web, token_env: str | None) -> Any:
    return _read_json(f"{record['host']}/api/records/{record['id']}", web, token_env)[0]


def _record_files(download: Download, record: re.Match[str], web: Web) -> list[RemoteFile]:
    listed = _read_record(record, web, download.token_env)
    return _chosen(_of_record(listed, download, record), download)


def _of_record(listed: Any, download: Download, record: re.Match[str]) -> list[RemoteFile]:
    found = []
    for row in _rows(listed.get("files") if isinstance(listed, dict) else None, download.url):
        links = row.get("links")
        key, link = row.get("key"), links.get("self") if isinstance(links, dict) else None
        if not isinstance(key, str) or not isinstance(link, str):
            raise FetchError(
                f"{safe_url(download.url)}: expected files with 'key' and 'links.self' in the "
                "record, found none: its access may be restricted; see the page"
            )
        link = urljoin(record["host"] + "/", link)
        kind, _, value = str(row.get("checksum") or "").rpartition(":")
        mirror = tuple(f"{m.rstrip('/')}/files/{quote(key)}" for m in download.mirrors)
        found.append(
            RemoteFile(
                name=_safe_name(key),
                urls=(link, *mirror),
                download=_without_token(download, link),
                bytes=row["size"] if isinstance(row.get("size"), int) else None,
                sha256=value if kind == "sha256" else None,
                md5=value if kind in ("md5", "") and value else None,
                known_from="record",
            )
        )
    return found


def _without_token(download: Download, link: str) -> Download:
    """A record that points to another host does not get the token there."""
    if origin(link) == origin(download.url):
        return download
    return download.model_copy(update={"token_env": None})


def _rows(rows: Any, url: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise FetchError(f"{safe_url(url)}: expected a list of files in the answer, found none")
    return rows


def _hub_files(download: Download, hub: re.Match[str], web: Web) -> Iterator[RemoteFile]:
    base = web.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    kind = hub["kind"] or "datasets/"
    revision, path = quote(hub["rev"] or "main", safe=""), hub["path"] or ""
    token = download.token_env or "HF_TOKEN"
    owned = download.model_copy(update={"token_env": token})
    url = f"{base}/api/{kind}{hub['repo']}/tree/{revision}?recursive=true"
    page: str | None = url
    rows: list[dict[str, Any]] = []
    while page:
        listed, link = _read_json(page, web, token)
        rows += _rows(listed, url)
        following = re.search(r'<([^>]+)>;\s*rel="next"', link)
        page = urljoin(page, following[1]) if following else None
        if page and origin(page) != origin(url):
            raise FetchError(f"{safe_url(url)}: its listing goes on at another host: not followed")
    prefix = kind if kind == "datasets/" else ""
    found = []
    for row in rows:
        name = str(row.get("path", ""))
        if row.get("type") != "file" or not (name == path or name.startswith(path.rstrip("/") + "/")
                                             or not path):  # fmt: skip
            continue
        lfs = row.get("lfs") if isinstance(row.get("lfs"), dict) else {}
        at = f"{base}/{prefix}{hub['repo']}/resolve/{revision}/{quote(name)}"
        found.append(
            RemoteFile(
                name=_safe_name(name),
                urls=(at,),
                download=owned,
                bytes=row["size"] if isinstance(row.get("size"), int) else None,
                sha256=lfs.get("oid") if lfs else None,
                known_from="repository",
            )
        )
    yield from _chosen(found, download)


def _safe_name(name: str) -> str:
    parts = name.split("/")
    if not name or "\\" in name or any(p in ("", ".", "..") or "\0" in p for p in parts):
        raise FetchError(f"expected a plain file name in the listing, found {name!r}: not fetched")
    return name


def _chosen(found: Sequence[RemoteFile], download: Download) -> list[RemoteFile]:
    kept = [
        f for f in found
        if not download.files or any(fnmatchcase(f.name, glob) for glob in download.files)
    ]  # fmt: skip
    if not kept:
        wanted = ", ".join(download.files) or "any file"
        hint = nearest(wanted, [f.name for f in found])
        raise FetchError(f"{safe_url(download.url)}: expected {wanted}, found no such file; {hint}")
    return sorted(kept, key=lambda f: f.name)
