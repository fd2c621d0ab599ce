"""Text tables that speak of many images (CSV): read once a process, looked up by image."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from sammed_data import archives
from sammed_data.entry_parts import Table
from sammed_data.patterns import glob_regex
from sammed_data.types import Case, ReadError, nearest

#: A table is kept in memory; the largest published ones have tens of megabytes.
MAX_TABLE_BYTES = 1_000_000_000
_KEPT_TABLES = 4


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table: where it stands, and the cells of the entry's columns."""

    path: Path
    number: int
    cells: tuple[str, ...]

    @property
    def place(self) -> str:
        """File and line, for sentences."""
        return f"{self.path}, line {self.number}"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The lines of all files of a table, by id; ``positions`` = column -> place in ``cells``."""

    lines: Mapping[str, tuple[Line, ...]]
    positions: Mapping[str | int, int]

    def cell(self, line: Line, column: str | int | None) -> str:
        """Text of a cell of a column that the entry names."""
        return "" if column is None else line.cells[self.positions[column]]


def find_tables(rule: Table | None, root: Path) -> tuple[Path, ...]:
    """Files of a table below the root, sorted; empty where the entry has none."""
    if rule is None:
        return ()
    if archives.split(root) is not None:
        wanted = glob_regex([rule.pattern])
        names = (name for name, is_folder in archives.walk(root) if not is_folder)
        return tuple(root / name for name in names if wanted and wanted.fullmatch(name))
    return tuple(sorted(p for p in root.glob(rule.pattern) if not p.name.startswith(".")))


def lines_of(rule: Table, paths: Sequence[Path], fields: Mapping[str, str]) -> list[Line]:
    """Lines that speak of an image.

    Raises:
        ReadError: the table is missing or damaged, or no line has the image's id.
    """
    rows = table_rows(rule, paths)
    name = image_id(rule, fields)
    found = rows.lines.get(name)
    if not found:
        shown = ", ".join(p.name for p in paths)
        raise ReadError(
            f"{shown}: expected a line of the image {name!r} in the column {rule.id_column!r}, "
            f"found none among {len(rows.lines):,} images; {nearest(name, list(rows.lines)[:2000])}"
        )
    return list(found)


def image_id(rule: Table, fields: Mapping[str, str]) -> str:
    """The id an image has in the table.

    Raises:
        ReadError: the image's pattern lacks a field of ``id``.
    """
    text = rule.id
    for name in rule.fields():
        if name not in fields:
            raise ReadError(
                f"expected the field {name!r} of the table's id {rule.id!r} in the image pattern, "
                f"found {', '.join(fields) or 'no fields'}; mend `id` or the pattern"
            )
        text = text.replace("{" + name + "}", fields[name])
    return text


def class_of_image(case: Case, rule: Table) -> str:
    """The class that a table gives to the whole image.

    Raises:
        ReadError: no line, or lines that do not agree.
    """
    lines = lines_of(rule, case.tables, case.fields)
    rows = table_rows(rule, case.tables)
    found = sorted({rows.cell(line, rule.class_column) for line in lines})
    if len(found) > 1:
        raise ReadError(
            f"{lines[0].place}: expected one class of the image, found {', '.join(found)}; "
            "mend the table"
        )
    return found[0]


def table_rows(rule: Table, paths: Sequence[Path]) -> Rows:
    """All lines by id, from memory where the files have not changed.

    Raises:
        ReadError: missing, too large, not text, or without a column that the entry names.
    """
    if not paths:
        raise ReadError(
            f"expected the table {rule.pattern!r} below the dataset's root, found none; fetch it"
        )
    try:
        stamps = tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in paths)
    except OSError as err:
        raise ReadError(f"{paths[0]}: expected a readable table, but {err.strerror}") from err
    for path, size, _ in stamps:
        if size > MAX_TABLE_BYTES:
            raise ReadError(
                f"{path}: expected a table of at most {MAX_TABLE_BYTES:,} bytes, found {size:,}"
            )
    columns = [rule.id_column, rule.value_column, rule.class_column, rule.rle_column]
    wanted = tuple(c for c in [*columns, *rule.frame_columns] if c is not None)
    return _read(stamps, rule.separator, rule.id_column, wanted)


@lru_cache(maxsize=_KEPT_TABLES)
def _read(
    stamps: tuple[tuple[Path, int, int], ...],
    separator: str,
    id_column: str | int,
    wanted: tuple[str | int, ...],
) -> Rows:
    lines: dict[str, list[Line]] = {}
    for path, size, _ in stamps:
        for line in _read_file(path, separator, wanted, size):
            lines.setdefault(line.cells[wanted.index(id_column)], []).append(line)
    positions = {column: k for k, column in enumerate(wanted)}
    return Rows(lines={k: tuple(v) for k, v in lines.items()}, positions=positions)


def _read_file(path: Path, separator: str, wanted: tuple[str | int, ...], size: int) -> list[Line]:
    """Lines with the wanted cells alone, '' where a line ends before one."""
    named = any(isinstance(column, str) for column in wanted)
    # Run lengths of one lung are longer than the 128 KiB that csv takes for one cell.
    csv.field_size_limit(max(csv.field_size_limit(), size + 1))
    places: list[int] | None = None if named else [int(column) for column in wanted]
    found: list[Line] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for number, cells in _cells(stream, separator):
                if places is None:
                    header = [cell.strip() for cell in cells]
                    places = [_position(path, column, header) for column in wanted]
                elif any(cells):
                    kept = tuple(cells[k].strip() if k < len(cells) else "" for k in places)
                    found.append(Line(path=path, number=number, cells=kept))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise ReadError(f"{path}: expected a text table, but {err}; fetch it again") from err
    if places is None:
        raise ReadError(
            f"{path}: expected a table with a line of names, found none; fetch it again"
        )
    return found


def _cells(stream: TextIO, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every line."""
    if separator == " ":
        for number, line in enumerate(stream, start=1):
            yield number, line.split()
        return
    reader = csv.reader(stream, delimiter=separator)
    for cells in reader:
        yield reader.line_num, cells


def _position(path: Path, column: str | int, header: Sequence[str]) -> int:
    if isinstance(column, int):
        return column
    if column not in header:
        raise ReadError(
            f"{path}: expected a column {column!r}, found {', '.join(header)}; "
            f"{nearest(column, header)}"
        )
    return list(header).index(column)
