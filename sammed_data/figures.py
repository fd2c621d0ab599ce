"""The figures of a corpus: what the paper's Figure 3 shows of SA-Med2D-20M, and sizes.

Organs with their structures and a star where they have lesions; modalities on a log scale; images
and masks by group; image sizes, mask areas, spacings. SVG files, and one page that holds them all.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sammed_data.corpus import VIEWS
from sammed_data.counts import GROUPS, NO_ORGAN, Amount, Counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sammed_data.describe import Table

# Okabe and Ito's colours: told apart by colour-blind readers, and by their lightness in grey.
_IMAGES, _MASKS, _LINE = "#0072B2", "#E69F00", "#D55E00"
_NAMED = 8  # structures named beside an organ; the rest is counted


#: Files of :func:`write_figures`.
FIGURES = ("modalities.svg", "groups.svg", "organs.svg", "sizes.svg", "describe.html")


def write_figures(
    counts: Counts, out: Path, tables: Sequence[Table], *, lesions_in_both: bool = False
) -> list[Path]:
    """Write every figure as SVG, and ``describe.html`` with figures and tables.

    Args:
        counts: of the corpus.
        out: folder.
        tables: shown below the figures.
        lesions_in_both: count lesions in their organ's group as well.
    """
    out.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, tuple[str, Callable[[Figure], None]]] = {
        "modalities": (
            "Images and masks by modality (log scale)",
            lambda f: _bars(f.subplots(), counts.by_row("modality")),
        ),
        "groups": (
            "Images and masks by group; lesions are "
            + ("counted in both" if lesions_in_both else "a group of their own"),
            lambda f: _groups(f, counts.by_group(lesions_in_both=lesions_in_both)),
        ),
        "organs": (
            "Organs by group, with their structures; * = has lesion labels",
            lambda f: _organs(f, counts),
        ),
        "sizes": ("Image sizes, mask areas, spacings", lambda f: _sizes(f, counts)),
    }
    pictures, paths = {}, []
    for name, (title, draw) in drawn.items():
        pictures[title] = _svg(draw)
        paths.append(out / f"{name}.svg")
        paths[-1].write_text(pictures[title], encoding="utf-8")
    page = out / "describe.html"
    page.write_text(_page(counts, pictures, tables), encoding="utf-8")
    return [*paths, page]


def _svg(draw: Callable[[Figure], None]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text, and ids are a function of the content: same corpus, same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sammed", "font.size": 9}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    found = text.getvalue()
    return found[found.index("<svg") :]


def _bars(
    axes: Axes,
    amounts: Mapping[str, Amount],
    labels: Mapping[str, str] | None = None,
    most: int = 0,
) -> None:
    """Images and masks side by side, the largest on top, numbers at the ends."""
    names = sorted(amounts, key=lambda n: (amounts[n].masks, n))
    height = np.arange(len(names))
    for shift, colour, label in ((0.2, _IMAGES, "images"), (-0.2, _MASKS, "masks")):
        values = [getattr(amounts[n], label) for n in names]
        axes.barh(height + shift, values, 0.38, color=colour, label=label)
        for place, value in zip(height + shift, values, strict=True):
            axes.text(value * 1.1, place, f"{value:,}", va="center", fontsize=7)
    axes.set_yticks(height, [(labels or {}).get(n, n) for n in names])
    axes.set_xscale("log")
    most = max(most, *(a.masks for a in amounts.values()))
    axes.set_xlim(0.8, max(10, most) * 4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)


def _groups(figure: Figure, amounts: Mapping[str, Amount]) -> None:
    present = [g for g in GROUPS if g in amounts]
    left, right = figure.subplots(1, 2)
    for axes, what, colour in ((left, "images", _IMAGES), (right, "masks", _MASKS)):
        values = [getattr(amounts[g], what) for g in present]
        axes.bar([g.replace("_", " and ") for g in present], values, color=colour)
        for place, value in enumerate(values):
            axes.text(place, value, f"{value:,}", ha="center", va="bottom", fontsize=8)
        axes.set_title(what)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", labelrotation=20)


def _organs(figure: Figure, counts: Counts) -> None:
    by_group: dict[str, dict[str, Amount]] = {}
    for organ, amount in counts.by_organ().items():
        if organ != NO_ORGAN:
            by_group.setdefault(counts.group_of(organ), {})[organ] = amount
    groups = [g for g in GROUPS if g in by_group]
    rows = [len(by_group[g]) for g in groups]
    if not groups:
        figure.text(0.5, 0.5, "no mask belongs to an organ", ha="center")
        return
    figure.set_size_inches(9, 1.2 * len(groups) + 0.42 * sum(rows))
    most = max(a.masks for organs in by_group.values() for a in organs.values())
    panels = np.atleast_1d(figure.subplots(len(groups), 1, height_ratios=rows, sharex=True))
    stars = counts.lesion_organs()
    for axes, group in zip(panels, groups, strict=True):
        labels = {o: _organ_label(o, o in stars, counts.structures_of(o)) for o in by_group[group]}
        _bars(axes, by_group[group], labels, most)
        axes.set_title(group.replace("_", " and "), loc="left", fontweight="bold")
        if axes is not panels[-1]:
            axes.get_legend().remove()


def _organ_label(organ: str, star: bool, structures: Sequence[str]) -> str:
    name = organ.replace("_", " ") + ("*" if star else "")
    if not structures:
        return name
    named = [s.replace("_", " ") for s in structures[:_NAMED]]
    more = [f"{len(structures) - _NAMED} more"] if len(structures) > _NAMED else []
    text, lines = [*named, *more], [""]
    for part in text:
        if len(lines[-1]) + len(part) > 44:
            lines.append("")
        lines[-1] += f"{part}, "
    inside = "\n".join(line.rstrip() for line in lines).rstrip(",")
    return f"{name}\n({inside})"


def _sizes(figure: Figure, counts: Counts) -> None:
    sides, areas, spacings = figure.subplots(1, 3)
    size = counts.sizes_K2
    found, number = np.unique(size, axis=0, return_counts=True)
    sides.scatter(found[:, 1], found[:, 0], s=8 + 60 * np.sqrt(number / number.max()), alpha=0.5,
                  color=_IMAGES, linewidths=0)  # fmt: skip
    sides.set(title="image size", xlabel="width, px", ylabel="height, px")
    share = 100 * counts.area_fractions_M
    low = max(float(share.min(initial=100.0)), 1e-4)
    areas.hist(share, bins=np.geomspace(low, 100, 40), color=_MASKS)
    limit = 100 * VIEWS[counts.corpus.manifest["default_view"]].min_area_fraction
    areas.axvline(limit, color=_LINE, linestyle="--")
    below = float(np.mean(share < limit)) if len(share) else 0.0
    areas.set(xscale="log", xlabel="% of the image", ylabel="masks")
    areas.set_title(f"mask area; {below:.1%} below the view's {limit:.3g} %", fontsize=9)
    known = counts.spacings_mm()
    if known:
        spacings.boxplot(list(known.values()), tick_labels=list(known), showfliers=False)
        spacings.set(ylabel="mm")
    else:
        spacings.text(0.5, 0.5, "no spacing is known", ha="center")
    spacings.set(title="in-plane spacing")
    spacings.tick_params(axis="x", labelrotation=30)
    for axes in (sides, areas, spacings):
        axes.spines[["top", "right"]].set_visible(False)


_STYLE = """body{font:15px/1.45 system-ui,sans-serif}
body{margin:2rem auto;max-width:62rem;padding:0 1rem}
svg{width:100%;height:auto}table{border-collapse:collapse;margin:1rem 0}
th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}figure{margin:2rem 0}figcaption{font-weight:600}"""


def _page(counts: Counts, pictures: Mapping[str, str], tables: Sequence[Table]) -> str:
    from sammed_data.describe import counts_lines

    lines = "".join(f"<p>{html.escape(line)}</p>" for line in counts_lines(counts.corpus.manifest))
    figures = "".join(
        f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>"
        for title, svg in pictures.items()
    )
    shown = "".join(_html_table(table) for table in tables)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>corpus</title>'
        f"<style>{_STYLE}</style><h1>What this corpus holds</h1>{lines}{figures}{shown}"
        f"<p>content hash {counts.corpus.content_hash}</p></html>\n"
    )


def _html_table(table: Table) -> str:
    def cell(value: Any) -> str:
        return f"{value:,}" if isinstance(value, int) else html.escape(str(value))

    head = "".join(f"<th>{html.escape(c)}</th>" for c in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell(v)}</td>' for v in r)}</tr>" for r in table.rows)
    return f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>{body}</table>"
