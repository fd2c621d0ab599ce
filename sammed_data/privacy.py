"""Pseudonyms: what of a patient, a case and a path may enter a corpus."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sammed_data.catalog import CatalogEntry
from sammed_data.types import CatalogError, ReadError, Rejection, UsageError

_MIN_KEY_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Pseudonyms:
    """Names of one dataset. ``secret`` is set for restricted data, whose names are all keyed."""

    dataset: str
    secret: bytes | None = None

    def patient(self, key: str) -> str:
        """Short digest of the patient key; never the key itself."""
        return "p" + self._digest("patient", key)

    def case(self, case_id: str) -> str:
        """Readable for public sources, keyed for restricted ones."""
        return case_id if self.secret is None else "c" + self._digest("case", case_id)

    def path(self, relative: str) -> str:
        """Path relative to the dataset root; keyed for restricted sources."""
        return relative if self.secret is None else "f" + self._digest("path", relative)

    def rejection(self, found: Rejection, rule_text: str) -> Rejection:
        """The rejection with names that may be stored; restricted data keep the rule's text."""
        if self.secret is None:
            return found
        return replace(found, case_id=self.case(found.case_id), reason=rule_text)

    def _digest(self, what: str, text: str) -> str:
        message = f"{self.dataset}\0{what}\0{text}".encode()
        if self.secret is None:
            return hashlib.sha256(message).hexdigest()[:12]
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:16]


@contextmanager
def unnamed(entry: CatalogEntry) -> Iterator[None]:
    """Let no error about the files of a restricted dataset name them.

    Raises:
        SammedError: of the kind that was raised inside, with the entry's id and no path.
    """
    try:
        yield
    except (ReadError, CatalogError) as err:
        if entry.privacy == "public":
            raise
        # from None: the cause names the file.
        raise type(err)(
            f"{entry.id}: expected files as its entry describes them, found others (not named: "
            f"privacy is restricted); run `sammed data check {entry.id}`, or set `privacy: public` "
            "in a copy of the entry to see which"
        ) from None


def pseudonyms(entry: CatalogEntry, key_file: Path | None) -> Pseudonyms:
    """The pseudonyms of an entry.

    Raises:
        UsageError: the entry is restricted and there is no usable key.
    """
    if entry.privacy == "public":
        return Pseudonyms(dataset=entry.id)
    if key_file is None:
        raise UsageError(
            f"{entry.id} is marked `privacy: restricted`: pass --key FILE (32 random bytes, kept "
            f"outside the corpus; `head -c 32 /dev/urandom > FILE` makes one)"
        )
    return Pseudonyms(dataset=entry.id, secret=read_key(key_file))


def read_key(path: Path) -> bytes:
    """The bytes of a site's key file.

    Raises:
        UsageError: it cannot be read, or is too short to be secret.
    """
    try:
        secret = path.read_bytes()
    except OSError as err:
        raise UsageError(
            f"cannot read the key file {path}: {err.strerror}; `head -c 32 /dev/urandom > {path}` "
            f"makes one, to be kept outside the corpus and for as long as it is extended"
        ) from err
    if len(secret) < _MIN_KEY_BYTES:
        raise UsageError(
            f"{path}: expected at least {_MIN_KEY_BYTES} bytes of key, found {len(secret)}"
        )
    return secret
