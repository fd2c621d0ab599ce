"""Images beside their masks, to be looked at: one PNG, or one HTML page that opens offline."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sammed_data.corpus import SPLITS, Corpus, Row
from sammed_data.index import CorpusIndex, open_index, turns
from sammed_data.types import CorpusError, UsageError, nearest

_COLOURS = ((40, 210, 240), (90, 230, 60), (255, 200, 30), (230, 80, 230), (90, 120, 255),
            (255, 70, 60))  # fmt: skip
_TILE_PX = 192
_PAGE_PX = 320


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which images to show.

    Attributes:
        n: how many; datasets take turns, each in the order of its hashed ids, so that a sheet is
            the same each time.
        splits, datasets, modalities, structures: only these; empty = all.
    """

    n: int = 24
    splits: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()

    def numbers(self, corpus: Corpus, index: CorpusIndex) -> NDArray[np.int64]:
        """Rows of the index.

        Raises:
            UsageError: an unknown name, or no image asked for.
            CorpusError: no image fits.
        """
        if self.n < 1:
            raise UsageError(f"--n must be at least 1, found {self.n}")
        _check(self.splits, SPLITS, "split")
        rows = index.rows_N
        keep = ~rows["excluded"]
        if self.splits:
            of_shard = np.array([path.parent.name in self.splits for path in corpus.shards], bool)
            keep &= of_shard[rows["shard"]]
        for kind, names in (("dataset", self.datasets), ("modality", self.modalities)):
            if names:
                keep &= np.isin(rows[kind], _codes(index, kind, names))
        if self.structures:
            fits = np.isin(index.masks_M["structure"], _codes(index, "structure", self.structures))
            before = np.concatenate([[0], np.cumsum(fits)])
            first = rows["first_mask"]
            keep &= before[first + rows["n_masks"].astype(np.int64)] > before[first]
        found = np.flatnonzero(keep)
        if not len(found):
            where = f"the splits {', '.join(self.splits)}" if self.splits else "any split"
            raise CorpusError(
                f"expected images in {corpus.root}, found none in {where} with what was asked "
                "for: ask for less, or build more"
            )
        turn = turns(rows["dataset"][found], rows["sample"][found])
        return found[np.lexsort((rows["dataset"][found], turn))][: self.n]


def _check(names: Sequence[str], known: Sequence[str], kind: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {kind} {name!r}; {nearest(name, known)}")


def _codes(index: CorpusIndex, kind: str, names: Sequence[str]) -> list[int]:
    _check(names, index.names[kind], kind)
    return [index.names[kind].index(name) for name in names]


def contact_sheet(corpus: Corpus, out: Path, wanted: Wanted | None = None) -> int:
    """Write a PNG of images beside their overlays, or an HTML page of them.

    Args:
        corpus: opened corpus.
        out: ``.png`` or ``.html``.
        wanted: which images.

    Returns:
        How many images are shown.

    Raises:
        UsageError: an unknown name, no image asked for, or another ending.
        CorpusError: nothing to show, or the file cannot be written.
    """
    rows = [corpus.at(*place) for place in sheet_rows(corpus, out, wanted or Wanted())]
    data = _page(rows) if out.suffix.lower() == ".html" else _sheet(rows)
    try:
        out.write_bytes(data)
    except OSError as err:
        raise CorpusError(f"cannot write {out} ({err.strerror}): choose another --out") from err
    return len(rows)


def sheet_rows(
    corpus: Corpus, out: Path, wanted: Wanted, *, keep: bool = True
) -> list[tuple[int, int]]:
    """Where the rows of a sheet lie: shard and number; ``keep`` as for the index.

    Raises:
        UsageError, CorpusError: see :func:`contact_sheet`.
    """
    if out.suffix.lower() not in (".png", ".html"):
        raise UsageError(
            f"expected a file ending in .png or .html, found {out}: write --out {out}.png"
        )
    index = open_index(corpus, keep=keep)
    return [index.place(int(number)) for number in wanted.numbers(corpus, index)]


def _sheet(rows: Sequence[Row]) -> bytes:
    tiles = [_captioned(row) for row in rows]
    columns = min(4, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    lines = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return _png(np.vstack(lines))


def _png(image_HW3: NDArray[np.uint8]) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", image_HW3[..., ::-1])[1].tobytes())


def _jpeg(image_HW3: NDArray[np.uint8]) -> str:
    """For the page alone, where forty lossless pictures would be 10 MB."""
    import cv2

    data = cv2.imencode(".jpg", image_HW3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return base64.b64encode(data.tobytes()).decode()


def _captioned(row: Row) -> NDArray[np.uint8]:
    """(T + caption, 2 T, 3): image left, overlay right, name below."""
    import cv2

    plain, drawn = overlay(row, _TILE_PX)
    height, width = plain.shape[:2]
    tile = np.zeros((_TILE_PX + 32, 2 * _TILE_PX, 3), np.uint8)
    tile[:height, :width] = plain
    tile[:height, _TILE_PX : _TILE_PX + width] = drawn
    names = ", ".join(sorted({m.structure for m in row.masks}))
    for line, text in enumerate((row.sample_id, f"{row.modality}: {names}")):
        place = (3, _TILE_PX + 12 + 14 * line)
        cv2.putText(tile, text[:62], place, cv2.FONT_HERSHEY_SIMPLEX, 0.34, (255, 255, 255), 1)
    return tile


def overlay(row: Row, side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image with its longer side at ``side`` pixels, plain and with its masks outlined."""
    import cv2

    assert row.image is not None  # Corpus.at gives pixels
    rgb = row.image if row.image.ndim == 3 else np.repeat(row.image[..., None], 3, axis=2)
    scale = side / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    plain = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    drawn = plain.copy()
    for number, mask in enumerate(row.masks):
        outline(drawn, np.asarray(mask.mask_HW, np.uint8), _COLOURS[number % len(_COLOURS)])
    return np.asarray(plain, np.uint8), np.asarray(drawn, np.uint8)


def outline(
    drawn: NDArray[np.uint8], mask_HW: NDArray[np.uint8], colour: tuple[int, int, int]
) -> None:
    """Draw the edge of a mask with a dark rim, at the size of the tile; no mask is too small."""
    import cv2

    height, width = drawn.shape[:2]
    # A share of the area, so that a part below one pixel of the tile still leaves its mark.
    share = cv2.resize(mask_HW * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    inside = (share >= np.uint8(min(128, max(1, int(share.max()))))).astype(np.uint8)
    found, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, found, -1, (0, 0, 0), 3)
    cv2.drawContours(drawn, found, -1, colour, 1, cv2.LINE_8)


_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<title>sammed: images and masks</title>
<style>
body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem;background:#111;color:#eee}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1rem}
figure{margin:0;background:#1c1c1c;padding:.6rem;border-radius:.3rem}
figure div{display:flex;gap:2px}img{width:50%;height:auto;object-fit:contain}
figcaption{overflow-wrap:anywhere;font-size:.85rem;margin-top:.4rem}
li{display:inline;margin-right:.8rem;white-space:nowrap}ul{padding:0;margin:.3rem 0 0}
label{margin-right:1.5rem}select,input{font:inherit}
</style>
"""
_FILTER = """<p><label>dataset <select id="d"><option value="">all</option></select></label>
<label>name or structure <input id="t" type="search"></label><span id="n"></span></p>
"""
_SCRIPT = """<script>
const all=[...document.querySelectorAll('figure')],d=document.getElementById('d'),
t=document.getElementById('t'),n=document.getElementById('n');
for(const x of [...new Set(all.map(f=>f.dataset.set))].sort())d.add(new Option(x,x));
function show(){let k=0;for(const f of all){const on=(!d.value||f.dataset.set===d.value)&&
f.textContent.toLowerCase().includes(t.value.toLowerCase());f.hidden=!on;k+=on}
n.textContent=k+' of '+all.length+' images'}
d.onchange=t.oninput=show;show()</script>
"""


def _page(rows: Sequence[Row]) -> bytes:
    figures = "\n".join(_figure(row) for row in rows)
    title = f"<h1>{len(rows)} images with their masks</h1>"
    return f"{_HEAD}{title}{_FILTER}<main>{figures}</main>{_SCRIPT}</html>".encode()


def _figure(row: Row) -> str:
    pictures = "".join(
        f'<img alt="{alt}" src="data:image/jpeg;base64,{_jpeg(image)}">'
        for alt, image in zip(("image", "image with masks"), overlay(row, _PAGE_PX), strict=True)
    )
    masks = "".join(
        f'<li><span style="color:rgb{_COLOURS[n % len(_COLOURS)]}">&#9632;</span> '
        f"{html.escape(m.structure)} {m.area_px} px</li>"
        for n, m in enumerate(row.masks)
    )
    about = f"{row.modality}, {row.split}, {row.height} x {row.width}"
    return (
        f'<figure data-set="{html.escape(row.dataset)}"><div>{pictures}</div><figcaption>'
        f"{html.escape(row.sample_id)}<br>{html.escape(about)}<ul>{masks}</ul></figcaption></figure>"
    )
