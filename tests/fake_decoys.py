"""Files that lie in real downloads and must not become cases: hidden ones and excluded ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sammed_data.catalog import CatalogEntry
from sammed_data.patterns import compile_pattern, glob_regex


def plant_decoys(entry: CatalogEntry, root: Path, images: Iterable[str]) -> list[str]:
    """Put ``._x`` and ``.DS_Store`` beside all files, and an image for each glob of ``exclude``.

    Args:
        entry: whose ``layout.exclude`` is filled.
        root: folder of the copy made by ``build_fake``.
        images: relative paths of its images; decoys are called after the first.

    Returns:
        Excluded paths that an image pattern matches.
    """
    for path in [p for p in root.rglob("*") if p.is_file()]:
        path.with_name("._" + path.name).write_bytes(b"\0\5\x16\7")
        path.with_name(".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return [
        p for glob in entry.layout.exclude for p in _excluded(entry, root, glob, next(iter(images)))
    ]


def _excluded(entry: CatalogEntry, root: Path, glob: str, image: str) -> list[str]:
    """An excluded image: what lies there already, else one made from the glob."""
    excluded = glob_regex([glob])
    assert excluded is not None
    rules = [compile_pattern(p.pattern) for p in entry.layout.images]
    there = [p.relative_to(root).as_posix() for p in root.rglob("*")]
    caught = [
        p
        for p in there
        if excluded.fullmatch(p) and any(r.fields_of(p) for r in rules) and "/._" not in f"/{p}"
    ]
    if caught:
        return caught
    for path in _candidates(glob, image):
        rule = next((r for r in rules if r.fields_of(path) is not None), None)
        if rule is not None and excluded.fullmatch(path):
            made = root / path
            (made if rule.is_folder else made.parent).mkdir(parents=True, exist_ok=True)
            if not rule.is_folder:
                made.touch()
            return [path]
    return []


def _candidates(glob: str, image: str) -> list[str]:
    """Paths that a glob may mean, in the folder of an image where the glob leaves it open."""
    folder, _, name = image.rpartition("/")
    suffix = name[name.index(".") :] if "." in name else ""
    stem = name.removesuffix(suffix)
    plain = glob.replace("[0-4]", "3").replace("[5-9]", "7").replace("?", "1")
    parts = plain.split("/")
    free = [f"{folder}/{parts[-1]}" if folder and parts[0] == "**" else plain]
    tail = "/".join(image.split("/")[len(parts) - 1 :])
    free += [f"{'/'.join(parts[:-1])}/{tail}"] if parts[-1] == "**" else []
    return [
        text.replace("*", filler, 1).replace("*", "x") + end
        for text in free
        for filler in (stem, "Tr", "x")
        for end in ("", suffix)
    ]
