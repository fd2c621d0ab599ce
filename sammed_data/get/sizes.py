"""How large downloads are, asked from their servers: one small request a file."""

from __future__ import annotations

from sammed_data.catalog import CatalogEntry
from sammed_data.get.fetch import downloads_of
from sammed_data.get.records import RemoteFile, files_of
from sammed_data.get.web import Web
from sammed_data.types import FetchError


def ask_size(entry: CatalogEntry, web: Web) -> tuple[int | None, str]:
    """(bytes of all downloads or None, why not); nothing is downloaded."""
    try:
        sizes = [_size_of(f, web) for d in downloads_of(entry) for f in files_of(d, web)]
    except FetchError as err:
        return None, str(err)
    if not sizes:
        return None, "no address of a file in the entry"
    known = [size for size in sizes if size is not None]
    return (sum(known), "") if len(known) == len(sizes) else (None, "the server states no size")


def _size_of(file: RemoteFile, web: Web) -> int | None:
    if file.bytes is not None:
        return file.bytes

    def ask() -> int | None:
        headers = {"Range": "bytes=0-0"}
        with web.open(file.urls[0], headers=headers, token_env=file.download.token_env) as found:
            part = found.headers.get("Content-Range", "").rpartition("/")[2]
            whole = found.headers.get("Content-Length", "") if found.status == 200 else ""
            text = part or whole
            return int(text) if text.isdigit() else None

    size: int | None = web.patiently(ask)
    return size
