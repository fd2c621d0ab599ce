"""``{image: [mask, ...]}`` of many gigabytes, read pair by pair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from sammed_data.types import ReadError

MAX_INDEX_BYTES = 32_000_000_000
#: One image has at most some thousand masks.
_MAX_PAIR_CHARS = 16 << 20
_CHUNK = 1 << 20
_SPACE = " \t\r\n"


def read_pairs(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (image, masks) in the order of the file; memory does not grow with it.

    Raises:
        ReadError: missing, too large, not JSON, or JSON of another form; the place is named.
    """
    try:
        size = path.stat().st_size
        if size > MAX_INDEX_BYTES:
            raise ReadError(
                f"{path}: expected an index of at most {MAX_INDEX_BYTES:,} bytes, found {size:,}"
            )
        with path.open(encoding="utf-8-sig") as stream:
            yield from _Reader(path, stream).pairs()
    except (OSError, UnicodeDecodeError) as err:
        raise ReadError(f"{path}: expected a readable JSON index, but {err}") from err


class _Reader:
    """A window on the text; ``start`` is where its first character lies in the file."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self.path, self.stream = path, stream
        self.text, self.at, self.start = "", 0, 0
        self.decode = json.JSONDecoder().raw_decode

    def pairs(self) -> Iterator[tuple[str, list[str]]]:
        if self.next() != "{":
            raise self.wrong("expected an object {image: [mask, ...]}")
        self.at += 1
        if self.next() == "}":
            return
        while True:
            image = self.value()
            if self.next() != ":":
                raise self.wrong("expected ':' after the name of an image")
            self.at += 1
            masks = self.value()
            if not isinstance(image, str) or not isinstance(masks, list):
                raise self.wrong("expected a name of an image with a list of masks")
            if not all(isinstance(m, str) for m in masks):
                raise self.wrong(f"expected names of masks for {image[:200]!r}")
            yield image, masks
            mark = self.next()
            self.at += 1
            if mark == "}":
                return
            if mark != ",":
                raise self.wrong("expected ',' or the end of the object")

    def value(self) -> object:
        """The next value, whole."""
        self.next()
        while True:
            try:
                found, end = self.decode(self.text, self.at)
            except (ValueError, RecursionError) as err:
                if len(self.text) - self.at > _MAX_PAIR_CHARS or not self.more():
                    raise self.wrong("expected JSON") from err
                continue
            self.at = end
            return found

    def next(self) -> str:
        """The next character that is no space; '' at the end."""
        while True:
            text, at = self.text, self.at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self.at = at
            if at < len(text):
                return text[at]
            if not self.more():
                return ""

    def more(self) -> bool:
        chunk = self.stream.read(_CHUNK)
        self.start += self.at
        self.text, self.at = self.text[self.at :] + chunk, 0
        return bool(chunk)

    def wrong(self, what: str) -> ReadError:
        found = self.text[self.at : self.at + 40]
        return ReadError(
            f"{self.path}: {what} at character {self.start + self.at:,}, found {found!r}; "
            "fetch it again"
        )
