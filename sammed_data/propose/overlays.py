"""A trial build of a few cases through the normal pipeline: overlays, and what is rejected."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sammed_data.catalog import CatalogEntry
from sammed_data.discover import discover
from sammed_data.propose.arrays import write_items
from sammed_data.propose.roles import ranked
from sammed_data.sources import files_of
from sammed_data.types import Case, SammedError

OVERLAYS = 12
_MAX_BYTES = 400 << 20


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """Rejections of one rule, with one of their reasons."""

    level: str
    rule: str
    count: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a build of a few cases did.

    Attributes:
        cases: how many were tried, of how many found.
        masks: kept.
        images: kept.
        rejected: by rule.
        unpaired: files without a partner, in the whole folder, with the first reason.
        shown: overlays on the sheet.
        failure: why nothing came out, '' if something did.
    """

    cases: int
    found: int
    images: int = 0
    masks: int = 0
    rejected: tuple[Rejected, ...] = ()
    unpaired: int = 0
    unpaired_reason: str = ""
    shown: int = 0
    failure: str = ""


def try_build(entry: Mapping[str, Any], root: Path, sheet: Path | None, n: int = OVERLAYS) -> Trial:
    """Build up to ``n`` cases of a proposed entry and draw them.

    The trial corpus lies in a temporary folder that is removed; its entry counts as public, so
    that reasons can be read.

    Args:
        entry: as proposed.
        root: dataset root.
        sheet: PNG to write, None for no picture.
        n: cases, and overlays.

    Raises:
        SammedError: the sheet cannot be written.
    """
    import yaml

    from sammed_data.build import build

    parsed = CatalogEntry.model_validate({**entry, "privacy": "public"})
    found = discover(parsed, root)
    chosen = _few(found.cases, n)
    unpaired = [p.reason for p in found.problems]
    said: dict[str, Any] = {
        "unpaired": len(unpaired),
        "unpaired_reason": unpaired[0] if unpaired else "",
    }
    with tempfile.TemporaryDirectory(prefix="sammed-init-") as folder:
        place = Path(folder)
        (place / "catalogs").mkdir()
        text = yaml.safe_dump({**entry, "privacy": "public"}, sort_keys=False, allow_unicode=True)
        (place / "catalogs" / f"{parsed.id}.yaml").write_text(text, encoding="utf-8")
        _link(chosen, root, place / "data")
        try:
            build(place / "catalogs", place / "data", place / "corpus", workers=1)
        except SammedError as err:
            why = str(err).replace(f"{place / 'data'}/", "").replace(str(place / "corpus"), "trial")
            why = why.removeprefix("no image was kept, nothing was written to trial: ")
            return Trial(cases=len(chosen), found=len(found.cases), failure=why, **said)
        return _result(place / "corpus", sheet, n, len(chosen), len(found.cases), said)


def _few(cases: Sequence[Case], n: int) -> list[Case]:
    """Up to n cases that do not come from one end of the list, within a budget of bytes."""
    chosen: list[Case] = []
    budget = _MAX_BYTES
    for case in ranked(cases, lambda c: c.case_id):
        if chosen and (len(chosen) == n or budget < 0):
            break
        paths = {case.image_path, *(x.path for x in case.labels)}
        budget -= sum(f.stat().st_size for p in paths for f in files_of(p))
        chosen.append(case)
    return chosen


def _link(cases: Sequence[Case], root: Path, place: Path) -> None:
    """A tree of links to the files of a few cases, and of nothing else."""
    base = root.resolve()
    for case in cases:
        folder = case.image_path if case.image_path.is_dir() else None
        for path in (case.image_path, *(x.path for x in case.labels)):
            if path != folder and folder is not None and path.is_relative_to(folder):
                continue  # reached through the link to its series folder
            wanted = [path] if path.is_dir() else files_of(path)
            for file in wanted:
                link = place / file.relative_to(root)
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists() and not write_items(file, link, cases):
                    link.symlink_to(base / file.relative_to(root))


def _result(
    corpus: Path, sheet: Path | None, n: int, tried: int, found: int, said: Mapping[str, Any]
) -> Trial:
    from sammed_data.corpus import Corpus
    from sammed_data.sheet import Wanted, contact_sheet

    opened = Corpus(corpus)
    shown = 0 if sheet is None else contact_sheet(opened, sheet, Wanted(n=n))
    counts = opened.manifest["counts"]
    return Trial(
        cases=tried,
        found=found,
        images=int(counts["images"]["kept"]),
        masks=int(counts["masks"]["kept"]),
        rejected=_rejected(corpus),
        shown=shown,
        **said,
    )


def _rejected(corpus: Path) -> tuple[Rejected, ...]:
    from sammed_data.shards import read_rejections

    totals: dict[tuple[str, str], tuple[int, str]] = {}
    for row in read_rejections(corpus).to_pylist():
        key = (row["level"], row["rule"])
        count, reason = totals.get(key, (0, row["reason"]))
        totals[key] = (count + row["count"], reason)
    return tuple(
        Rejected(level=level, rule=rule, count=count, reason=reason)
        for (level, rule), (count, reason) in sorted(totals.items())
    )
