"""The worst of an audit as one HTML file with its pictures inside. It holds images: keep it so."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sammed_data.audit.findings import Audit, Defect, Pair
from sammed_data.audit.scan import CaseKey
from sammed_data.audit.words import sentences, tables
from sammed_data.corpus import Corpus, Row
from sammed_data.describe import Table
from sammed_data.types import CorpusError

SHOWN = 60
_PER_KIND = 12
_SIDE_PX = 224
_RIM, _LINE = (0, 0, 0), (255, 170, 40)
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem;
color:#1c2330;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;margin:.6rem 0 1.2rem}caption{text-align:left;font-weight:600}
td,th{border-bottom:1px solid #d8dde6;padding:.2rem .9rem .2rem 0;text-align:left}
.grid{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;padding:.6rem;background:#f3f5f8;border-radius:6px;width:464px}
figure.leak{background:#fbe9e7}
figure img{width:224px;height:224px;object-fit:contain;background:#000;margin-right:6px}
figcaption{font-size:.82rem;overflow-wrap:anywhere}
"""


def write_gallery(audit: Audit, corpus: Corpus, path: Path) -> int:
    """Write the page; returns how many findings it shows.

    Raises:
        CorpusError: the page cannot be written.
    """
    pairs = [p for p in audit.pairs if p.places][:SHOWN]
    defects = list(_some_of_each(audit.defects))[:SHOWN]
    parts = [f"<p>{html.escape(line)}</p>" for line in sentences(audit)]
    parts += [_table(t) for t in tables(audit)]
    parts += _section("Cases that show the same", [_pair(p, corpus) for p in pairs])
    parts += _section("Defects", [_defect(d, corpus) for d in defects])
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Audit</title>"
        f"<style>{_STYLE}</style></head><body><h1>Audit of a corpus</h1>{''.join(parts)}"
        "</body></html>\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as err:
        raise CorpusError(f"cannot write {path} ({err.strerror}): choose another --out") from err
    return len(pairs) + len(defects)


def _some_of_each(defects: Iterable[Defect]) -> Iterable[Defect]:
    shown: dict[str, int] = {}
    for defect in defects:
        shown[defect.kind] = shown.get(defect.kind, 0) + 1
        if shown[defect.kind] <= _PER_KIND:
            yield defect


def _section(title: str, figures: list[str]) -> list[str]:
    return [f"<h2>{title}</h2><div class='grid'>", *figures, "</div>"] if figures else []


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row) + "</tr>"
        for row in table.rows
    )
    return f"<table><caption>{html.escape(table.title)}</caption><tr>{head}</tr>{rows}</table>"


def _pair(pair: Pair, corpus: Corpus) -> str:
    assert pair.places is not None  # chosen for having them
    pictures = [_fitted(corpus.image(*place)) for place in pair.places]
    said = f"{pair.kind}{', ' + pair.how if pair.how else ''}; {pair.slices} pictures"
    if pair.kind in ("near", "same volume"):
        said += f"; correlation {pair.whole:.2f}, of detail {pair.detail:.2f}"
    names = f"{_name(pair.a)}<br>{_name(pair.b)}"
    return _figure(pictures, f"{html.escape(said)}<br>{names}", leak=pair.leaks)


def _defect(defect: Defect, corpus: Corpus) -> str:
    row = corpus.at(*defect.place)
    assert row.image is not None  # rows come with pixels
    pictures = [_fitted(row.image), _overlay(row, defect.mask)]
    said = f"{defect.kind}: {defect.detail}" if defect.detail else defect.kind
    return _figure(pictures, f"{html.escape(said)}<br>{_name(defect.case)}", leak=False)


def _name(case: CaseKey) -> str:
    return f"<b>{html.escape(case.dataset)}</b> {html.escape(case.case_id)} ({case.split})"


def _figure(pictures: list[NDArray[np.uint8]], caption: str, *, leak: bool) -> str:
    images = "".join(f"<img alt='' src='{_data(p)}'>" for p in pictures)
    kind = " class='leak'" if leak else ""
    return f"<figure{kind}>{images}<figcaption>{caption}</figcaption></figure>"


def _fitted(image: NDArray[Any]) -> NDArray[np.uint8]:
    import cv2

    scale = _SIDE_PX / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(image, size, interpolation=kind), np.uint8)


def _overlay(row: Row, mask: int) -> NDArray[np.uint8]:
    """The picture with the outline of one mask, or of all."""
    import cv2

    assert row.image is not None  # rows come with pixels
    shown = _fitted(row.image)
    drawn = np.ascontiguousarray(shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, 2))
    size = (drawn.shape[1], drawn.shape[0])
    for one in row.masks if mask < 0 else row.masks[mask : mask + 1]:
        plane = np.asarray(one.mask_HW, np.uint8)
        fitted = np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST))
        lines, _ = cv2.findContours(fitted, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, lines, -1, _RIM, 3)
        cv2.drawContours(drawn, lines, -1, _LINE, 1)
    return drawn


def _data(image: NDArray[np.uint8]) -> str:
    import cv2

    stored = image[..., ::-1] if image.ndim == 3 else image
    _, data = cv2.imencode(".png", np.ascontiguousarray(stored))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
