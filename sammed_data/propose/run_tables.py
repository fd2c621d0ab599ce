"""Run-length tables (CSV) beside images: which columns, and how the runs are written.

The text of a run says neither the order of its pixels nor where counting starts; what the numbers
rule out is known, the rest is weighed and said.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from sammed_data.propose.carriers import Group, Item, Pair, Survey
from sammed_data.propose.names import word_set

_MAX_TABLES, _MAX_BYTES, _MAX_LINES = 40, 400 << 20, 2_000_000
_HEAD, _KEPT, _MAX_CLASSES = 400, 400, 200
_RUNS = re.compile(r"\d+ \d+(?: \d+ \d+)*")
EMPTY = ("", "-1", "nan", "NaN", "None")
_CLASS_WORDS = word_set(
    "class classid class_id classname class_name label structure organ category"
)


@dataclass(frozen=True, kw_only=True)
class RunTable:
    """A CSV file whose lines hold runs of images of the folder.

    Attributes:
        path: relative.
        id_column, rle_column, class_column: a name, or a position where there is no line of names.
        suffixed: its ids end like the file names.
        classes: distinct texts of the class column.
        texts: id -> some of its runs, of up to 400 images.
        ids: id -> lines.
        empty: texts found that say that there is nothing.
    """

    path: str
    separator: str
    id_column: str | int
    rle_column: str | int
    class_column: str | int | None
    suffixed: bool
    classes: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]
    ids: Mapping[str, int]
    empty: tuple[str, ...]


def run_tables(root: Path, found: Survey, bad: list[tuple[str, str]]) -> list[RunTable]:
    """Tables of runs among the documents; what only looks like one goes to ``bad``."""
    names = {PurePosixPath(i.path).name for i in found.items if i.kind in ("raster", "dicom")}
    stems = {_stem(n) for n in names}
    out = []
    for path in [p for p in found.documents if p.lower().endswith((".csv", ".tsv"))][:_MAX_TABLES]:
        try:
            if (root / path).stat().st_size <= _MAX_BYTES:
                table = _read(root, path, names, stems, bad)
                out += [] if table is None else [table]
        except (OSError, UnicodeDecodeError, csv.Error) as err:
            bad.append((path, f"no text table: {err}"))
    return out


def run_pairs(items: Sequence[Item], tables: Sequence[RunTable]) -> list[Pair]:
    """Images joined to the table that has lines of them.

    The table stands there by its number, since its name has nothing in common with an image's;
    :func:`with_table` puts the name in its place.
    """
    pairs = []
    for number, table in enumerate(tables):
        label = Item(path=f"@{number}.csv", kind="runs", names=table.classes)
        pairs += [
            Pair(image=item, labels=(label,), how="named by the table")
            for item in items
            if item.kind in ("raster", "dicom") and id_of(table, item.path) in table.ids
        ]
    return pairs


def table_of(group: Group, tables: Sequence[RunTable]) -> RunTable | None:
    """The table that holds the masks of a group, None where files do."""
    label = group.pairs[0].labels[0]
    return next((t for t in tables if label.kind == "runs" and t.path == label.path), None)


def with_table(group: Group, tables: Sequence[RunTable]) -> Group:
    """The group with the path of its table; other groups as they are."""
    label = group.pairs[0].labels[0]
    if label.kind != "runs":
        return group
    real = replace(label, path=tables[int(label.path.strip("@.csv"))].path)
    pairs = tuple(replace(p, labels=(real,)) for p in group.pairs)
    images = len({p.image.path for p in pairs})
    said = f"{images} images named by the table {real.path}"
    return replace(group, pairs=pairs, label_patterns=((real.path, 1),), evidence=said)


def id_of(table: RunTable, path: str) -> str:
    """What a table calls an image."""
    name = PurePosixPath(path).name
    return name if table.suffixed else _stem(name)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _read(
    root: Path, path: str, names: set[str], stems: set[str], bad: list[tuple[str, str]]
) -> RunTable | None:
    size = (root / path).stat().st_size
    csv.field_size_limit(max(csv.field_size_limit(), size + 1))
    with (root / path).open(encoding="utf-8-sig", newline="") as stream:
        separator = _separator(stream.read(1 << 16))
        stream.seek(0)
        head = [row for row in islice(csv.reader(stream, delimiter=separator), _HEAD) if any(row)]
        columns = _runs_columns(head)
        if not columns:
            return None
        if len(columns) > 1:
            bad.append((path, f"{len(columns)} columns look like runs: write the entry by hand"))
            return None
        header = None if _is_runs(head[0][columns[0]]) else [c.strip() for c in head[0]]
        lines = head if header is None else head[1:]
        place = _id_place(lines, columns[0], names, stems)
        if place is None:
            bad.append((path, _no_id(lines, columns[0], names | stems)))
            return None
        klass = _class_place(header, lines, {columns[0], place})
        stream.seek(0)
        rows = islice(csv.reader(stream, delimiter=separator), header is not None, _MAX_LINES)
        return _gathered(path, separator, header, (place, columns[0], klass), rows, names)


def _gathered(
    path: str, separator: str, header: Sequence[str] | None,
    places: tuple[int, int, int | None], rows: Iterator[list[str]], names: set[str],
) -> RunTable:  # fmt: skip
    place, runs, klass = places
    ids: Counter[str] = Counter()
    texts: dict[str, tuple[str, ...]] = {}
    classes: set[str] = set()
    empty: set[str] = set()
    for row in rows:
        if len(row) <= max(place, 0):
            continue
        name, text = row[place].strip(), row[runs].strip() if len(row) > runs else ""
        ids[name] += 1
        if klass is not None and len(row) > klass and len(classes) < _MAX_CLASSES:
            classes.add(row[klass].strip())
        if _is_runs(text) and (name in texts or len(texts) < _KEPT):
            texts[name] = (*texts.get(name, ()), text)
        elif not _is_runs(text):
            empty.add(text)

    def column(k: int) -> str | int:
        return k if header is None else header[k]

    return RunTable(
        path=path, separator=separator, id_column=column(place), rle_column=column(runs),
        class_column=None if klass is None else column(klass),
        suffixed=any(i in names for i in ids), classes=tuple(sorted(classes)), texts=texts, ids=ids,
        empty=tuple(sorted(empty)),
    )  # fmt: skip


def _separator(text: str) -> str:
    line = text.partition("\n")[0]
    return max(",;\t", key=line.count)


def _is_runs(text: str) -> bool:
    return _RUNS.fullmatch(text.strip()) is not None


def _runs_columns(head: Sequence[Sequence[str]]) -> list[int]:
    """Columns of nothing but runs; a fixed count of numbers is a box or a point."""
    found = []
    for k in range(max((len(row) for row in head), default=0)):
        cells = [row[k].strip() if k < len(row) else "" for row in head]
        cells = cells if _is_runs(cells[0]) else cells[1:]
        runs = [c for c in cells if _is_runs(c)]
        counts = {c.count(" ") for c in runs}
        fixed = len(runs) >= 3 and len(counts) == 1 and counts <= {1, 3}
        if runs and not fixed and all(_is_runs(c) or c in EMPTY for c in cells):
            found.append(k)
    return found


def _id_place(
    lines: Sequence[Sequence[str]], runs: int, names: set[str], stems: set[str]
) -> int | None:
    best: tuple[int, int] | None = None
    for k in range(max(len(row) for row in lines)):
        cells = [row[k].strip() for row in lines if k < len(row)]
        hits = sum(c in names or c in stems for c in cells) if k != runs else 0
        if hits and (best is None or hits > best[0]):
            best = (hits, k)
    return None if best is None else best[1]


def _class_place(
    header: Sequence[str] | None, lines: Sequence[Sequence[str]], taken: set[int]
) -> int | None:
    for k in range(max(len(row) for row in lines)):
        if k in taken:
            continue
        named = header is not None and k < len(header) and header[k].lower() in _CLASS_WORDS
        cells = [row[k].strip() for row in lines if k < len(row)]
        few = len(set(cells)) <= 0.5 * len(cells) and not all(c == "" for c in cells)
        if named or (header is None and few):
            return k
    return None


def _no_id(lines: Sequence[Sequence[str]], runs: int, known: set[str]) -> str:
    """Why no column names the images: perhaps the class stands behind the name."""
    cells = [c.strip() for row in lines[:_HEAD] for k, c in enumerate(row) if k != runs]
    joined = [c for c in cells if c.rpartition("_")[0] in known]
    if joined:
        return f"a table of runs whose ids hold image and class, such as {joined[0]!r}: split them"
    return "a table of runs, but no column has the names of images in this folder"
