"""An audit as tables and sentences, files of rows, and one JSON document."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sammed_data.audit.findings import Audit, Pair, Search
from sammed_data.audit.planted import Recall, wilson
from sammed_data.audit.spoilt import KINDS, Spoilt
from sammed_data.audit.unlike import MIN_PEERS
from sammed_data.corpus import Corpus
from sammed_data.describe import Table
from sammed_data.types import CorpusError

#: Files of :func:`write_tables`, without `.csv`.
TABLES = ("pairs", "defects", "exclude-proposal")
_PROPOSAL = ("dataset", "patient_id", "reason")


def tables(audit: Audit) -> list[Table]:
    """What was found, counted, and how the searches do on what was planted."""
    found = [
        _recall_table("Planted pictures: copies found by the same search", audit.search.recalls)
    ]
    if any(r.planted for r in audit.search.volumes):
        title = "Planted volumes: fingerprints that stay near (restacked from stored slices)"
        found.append(_recall_table(title, audit.search.volumes))
    found.append(_spoilt_table(audit.spoilt))
    if audit.pairs:
        found.append(_pair_table(audit.pairs))
    if audit.two_sides:
        counts = Counter((t.dataset, " and ".join(t.splits)) for t in audit.two_sides)
        rows = tuple((d, s, n) for (d, s), n in sorted(counts.items()))
        columns = ("dataset", "splits", "patients")
        found.append(Table(title="Patients on two sides", columns=columns, rows=rows))
    if audit.groups:
        rows_ = tuple(
            (", ".join(g.datasets), ", ".join(g.trained), ", ".join(g.tested), g.found)
            for g in audit.groups
        )
        heads = ("datasets that share patients", "train", "test or held out", "same cases found")
        found.append(Table(title="Overlap groups of the catalogue", columns=heads, rows=rows_))
    if audit.defects:
        kinds = Counter((d.kind, d.case.dataset) for d in audit.defects)
        listed = tuple((k, d, n) for (k, d), n in sorted(kinds.items()))
        found.append(Table(title="Defects", columns=("kind", "dataset", "found"), rows=listed))
    return found


def _recall_table(title: str, recalls: Sequence[Recall]) -> Table:
    return Table(
        title=title,
        columns=("alteration", "planted", "found", "recall", "95 % interval"),
        rows=tuple(
            (r.kind, r.planted, r.found, _share(r.found, r.planted), _interval(r.interval))
            for r in recalls
        ),
    )


def _spoilt_table(spoilt: Sequence[Spoilt]) -> Table:
    return Table(
        title="Planted defects: found by the same checks",
        columns=("defect", "planted as", "planted", "found", "recall", "95 % interval",
                 "found untouched"),
        rows=tuple(
            (s.defect, s.how, s.planted, s.found, _share(s.found, s.planted),
             s.why_not or _interval(s.interval), f"{s.alarms} of {s.untouched}")
            for s in spoilt
        ),
    )  # fmt: skip


def _pair_table(pairs: Sequence[Pair]) -> Table:
    counts = Counter(
        (p.kind, p.a.dataset, p.b.dataset, f"{p.a.split} / {p.b.split}",
         "LEAK" if p.leaks else "no") for p in pairs
    )  # fmt: skip
    ordered = sorted(counts.items(), key=lambda item: (item[0][4] == "no", item[0]))
    return Table(
        title="Cases that show the same",
        columns=("kind", "dataset", "and dataset", "splits", "leak", "pairs of cases"),
        rows=tuple((*key, n) for key, n in ordered),
    )


def _share(hits: int, n: int) -> str:
    return f"{hits / n:.2f}" if n else "-"


def _interval(bounds: tuple[float, float]) -> str:
    low, high = math.floor(100 * bounds[0]) / 100, math.ceil(100 * bounds[1]) / 100
    return f"{low:.2f} to {min(high, 1.0):.2f}"  # rounded outwards: never surer than it is


def sentences(audit: Audit) -> list[str]:
    """The verdict; what was not found is said with the recall of the search."""
    leaks, search = audit.leaking_pairs, audit.search
    at = recall_words(search)
    near = [p for p in audit.pairs if not p.leaks]
    lines = [
        f"looked at {audit.images:,} images and {audit.masks:,} masks of {audit.cases:,} cases"
        + (f" ({audit.excluded:,} images are excluded by exclude.csv)" if audit.excluded else ""),
        f"same cases across splits: {_count(len(leaks))} found {at}",
        f"same cases of two patients within a split: {_count(len(near))} found {at}",
        f"patients on two sides: {_count(len(audit.two_sides))} found (by patient_id, exact)",
    ]
    lines += [_defect_words(kind, audit) for kind in KINDS]
    lines += [
        f"may leak: {', '.join(g.trained)} (train) and {', '.join(g.tested)} share patients by "
        f"their catalogue entries; {_count(g.found)} of their cases found to be the same"
        for g in audit.groups
        if g.may_leak
    ]
    if search.crowded:
        lines.append(
            f"{search.crowded:,} look-ups met more pictures than were looked at: pictures that "
            f"many others resemble may have further copies"
        )
    if search.flat:
        lines.append(f"{search.flat:,} images have no shape and were not compared")
    return [*lines, *audit.notes]


def _defect_words(kind: str, audit: Audit) -> str:
    """`kind: none found at recall x (low to high): n of m planted ones are`, and what was not."""
    own = [s for s in audit.spoilt if s.defect == kind]
    planted, hits = sum(s.planted for s in own), sum(s.found for s in own)
    words = f"{kind}: {_count(sum(d.kind == kind for d in audit.defects))} found"
    if not planted:
        return f"{words} (recall not measured: {own[0].why_not})"
    words += (
        f" at recall {_share(hits, planted)} ({_interval(wilson(hits, planted))}): {hits} of "
        f"{planted} planted ones are, and {own[0].alarms} of {own[0].untouched} untouched ones"
    )
    beside = sum(s.beside for s in own)
    if 0 < beside < planted:
        words += (
            f"; in datasets of {MIN_PEERS} cases or more {sum(s.beside_found for s in own)} of "
            f"{beside}"
        )
    lacking = [f"; {s.how}: not planted, {s.why_not}" for s in own if s.why_not]
    return words + "".join(lacking)


def _count(n: int) -> str:
    return f"{n:,}" if n else "none"


def recall_words(search: Search) -> str:
    """`at recall x (low to high), precision y (low to high)`."""
    single = [r for r in search.recalls if r.kind != "all together"]
    if search.recall is None:
        return "(recall not measured: nothing was planted)"
    planted = Recall(
        kind="", planted=sum(r.planted for r in single), found=sum(r.found for r in single)
    )
    words = f"at recall {search.recall:.2f} ({_interval(planted.interval)})"
    if search.precision is None:
        return words
    bounds = _interval(search.precision_interval)
    return f"{words} and precision {search.precision:.2f} ({bounds}) on planted copies"


def document(audit: Audit) -> dict[str, Any]:
    """The audit as one JSON document."""
    search = audit.search
    return {
        "exit_code": audit.exit_code,
        "images": audit.images,
        "masks": audit.masks,
        "cases": audit.cases,
        "excluded": audit.excluded,
        "verdict": sentences(audit),
        "search": {
            "recall": search.recall,
            "precision": search.precision,
            "right": search.right,
            "wrong": search.wrong,
            "candidates": search.candidates,
            "confirmed": search.confirmed,
            "crowded": search.crowded,
            "flat": search.flat,
            "planted": [_recall_row("picture", r) for r in search.recalls]
            + [_recall_row("volume", r) for r in search.volumes],
        },
        "planted_defects": [_spoilt_row(s) for s in audit.spoilt],
        "pairs": [_pair_row(p) for p in audit.pairs],
        "two_sides": [
            {"dataset": t.dataset, "patient_id": t.patient_id, "splits": list(t.splits)}
            for t in audit.two_sides
        ],
        "overlap_groups": [
            {"datasets": list(g.datasets), "train": list(g.trained), "test": list(g.tested),
             "same_cases": g.found, "may_leak": g.may_leak}
            for g in audit.groups
        ],
        "defects": [
            {"kind": d.kind, "dataset": d.case.dataset, "case_id": d.case.case_id,
             "split": d.case.split, "mask": d.mask, "detail": d.detail}
            for d in audit.defects
        ],
        "seconds": {k: round(v, 2) for k, v in audit.seconds.items()},
    }  # fmt: skip


def _recall_row(what: str, recall: Recall) -> dict[str, Any]:
    low, high = recall.interval
    return {"what": what, "kind": recall.kind, "planted": recall.planted, "found": recall.found,
            "low": low, "high": high}  # fmt: skip


def _spoilt_row(spoilt: Spoilt) -> dict[str, Any]:
    low, high = spoilt.interval
    return {"defect": spoilt.defect, "how": spoilt.how, "planted": spoilt.planted,
            "found": spoilt.found, "low": low, "high": high, "untouched": spoilt.untouched,
            "flagged_untouched": spoilt.alarms, "planted_beside_peers": spoilt.beside,
            "found_beside_peers": spoilt.beside_found, "why_not": spoilt.why_not}  # fmt: skip


def _pair_row(pair: Pair) -> dict[str, Any]:
    sides = {
        f"{name}_{side}": getattr(case, name)
        for side, case in (("a", pair.a), ("b", pair.b))
        for name in ("dataset", "case_id", "patient_id", "split")
    }
    return {
        "kind": pair.kind, "leaks": pair.leaks, "how": pair.how, "slices": pair.slices,
        "whole": round(pair.whole, 3), "detail": round(pair.detail, 3), **sides,
    }  # fmt: skip


def write_tables(audit: Audit, corpus: Corpus, out: Path) -> None:
    """``pairs.csv``, ``defects.csv``, and ``exclude-proposal.csv`` for `build --exclude`.

    Raises:
        CorpusError: the folder cannot be written.
    """
    pairs = [_pair_row(p) for p in audit.pairs]
    defects = [
        {"kind": d.kind, "dataset": d.case.dataset, "case_id": d.case.case_id,
         "split": d.case.split, "sample_id": corpus.at(*d.place).sample_id, "mask": d.mask,
         "detail": d.detail}
        for d in audit.defects
    ]  # fmt: skip
    proposal = [
        {"dataset": drop.dataset, "patient_id": drop.patient_id,
         "reason": f"{p.kind} as {keep.dataset} {keep.case_id} in {keep.split}"}
        for p in audit.leaking_pairs
        for drop, keep in [_dropped(p)]
    ]  # fmt: skip
    proposal = list({(r["dataset"], r["patient_id"]): r for r in reversed(proposal)}.values())
    named = dict(zip(TABLES, (pairs, defects, proposal), strict=True))
    empty = {"pairs": ["kind"], "defects": ["kind"], "exclude-proposal": list(_PROPOSAL)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in named.items():
            text = io.StringIO()
            writer = csv.DictWriter(
                text, list(rows[0]) if rows else empty[name], lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(rows)
            (out / f"{name}.csv").write_text(text.getvalue(), encoding="utf-8")
    except OSError as err:
        raise CorpusError(f"cannot write to {out} ({err.strerror}): choose another --out") from err


def _dropped(pair: Pair) -> tuple[Any, Any]:
    """Which side of a leak to leave out: the one in training, so that tests stay as they are."""
    rank = {"train": 0, "validation": 1, "test": 2, "held_out": 3}
    drop, keep = sorted((pair.a, pair.b), key=lambda c: rank.get(c.split, 0))
    return drop, keep
