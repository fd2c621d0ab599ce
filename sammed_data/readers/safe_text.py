"""XML and JSON of unknown origin: size limits, no entities, and sentences instead of tracebacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

from sammed_data.readers.limits import first_bytes
from sammed_data.types import ReadError

#: Parsed text takes about ten times its size in memory.
MAX_TEXT_BYTES = 256_000_000
_MAX_DEPTH = 100


def read_text_bytes(path: Path) -> bytes:
    """All bytes of a text file.

    Raises:
        ReadError: missing, empty, or larger than MAX_TEXT_BYTES.
    """
    first_bytes(path, 1)
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise ReadError(
            f"{path}: expected at most {MAX_TEXT_BYTES:,} bytes of annotation, found {size:,}; "
            "split the file by image"
        )
    return path.read_bytes()


def parse_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        ReadError: not JSON, nested too deep, or too large.
    """
    return json_of(path, read_text_bytes(path))


def json_of(path: Path, text: str | bytes) -> Any:
    """Parse JSON text that stands in ``path``.

    Raises:
        ReadError: not JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        said = "it is nested too deep" if isinstance(err, RecursionError) else str(err)
        raise ReadError(f"{path}: expected JSON, but {said[:200]}; fetch it again") from err


def parse_xml(path: Path) -> Element:
    """Parse an XML file; names lose their namespace.

    A document type is refused before it can define an entity: no annotation format here has one,
    and entities are how a small file becomes a huge one or reads another.

    Raises:
        ReadError: not XML, with a document type, nested too deep, or too large.
    """
    from xml.parsers import expat

    text = read_text_bytes(path)
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ReadError(
                f"{path}: expected XML of at most {_MAX_DEPTH} levels, found more; fetch it again"
            )
        builder.start(name.rpartition(":")[2], attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name.rpartition(":")[2])

    def refuse(*_: object) -> None:
        raise ReadError(
            f"{path}: expected XML without a document type, found <!DOCTYPE>, which can define "
            "entities; remove it"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, LookupError, ValueError) as err:
        if isinstance(err, ReadError):
            raise
        raise ReadError(f"{path}: expected whole XML, but {err}; fetch it again") from err
