"""What the page was started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sammed_bench.choose import Wanted

LOOPBACK = ("127.0.0.1", "localhost", "::1")
UPLOAD_BYTES = 512 << 20
BODY_BYTES = 64 << 10


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """A resolved command line of ``sammed app``.

    Attributes:
        corpus: folder of a built corpus; None = there is none to look at.
        results: folder of ``sammed bench``; None = there are none.
        models: that may be asked, by label.
        exclude: list that flagged samples go to; None = that of the corpus.
        token: what a client must show; '' = loopback only, nothing to show.
        upload_bytes: largest dropped file.
        body_bytes: largest body of any other request.
    """

    corpus: Path | None = None
    results: Path | None = None
    models: tuple[Wanted, ...] = ()
    exclude: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    upload_bytes: int = UPLOAD_BYTES
    body_bytes: int = BODY_BYTES

    @property
    def cookie(self) -> str:
        """Name of the cookie with the token; two pages on one host do not share it."""
        return f"sammed_token_{self.port}"
