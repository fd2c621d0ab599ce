"""The page in a real browser with the network off: no script error, no request, sortable."""

from __future__ import annotations

import base64
import json

import pytest
from report_rows import small_rows, write_results

from sammed_bench.report import write_report

# One pixel of PNG.
_PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154"
        "789c6360606060000000050001a5f645400000000049454e44ae426082"
    )
).decode()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, small_rows())
    case = {"model": "sam", "mode": "bbox", "rank": "worst", "png": _PNG, "dice": 0.1}
    case |= {"sample_id": "alpha/p0/liver", "mask_index": 2, "caption": "liver, CT, alpha"}
    (folder / "gallery").mkdir()
    (folder / "gallery" / "gallery.json").write_text(json.dumps([case]))
    write_report(folder)
    return folder / "report" / "report.html"


@pytest.fixture
def opened(chrome, page_file):
    """The page at 1280 x 800, what it asked for and what went wrong."""
    context = chrome.new_context(viewport={"width": 1280, "height": 800})
    context.set_offline(True)
    asked, wrong = [], []

    def refuse(route):
        asked.append(route.request.url)
        route.abort()

    context.route(lambda url: not url.startswith(("file:", "data:")), refuse)
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda r: asked.append(r.url) if not _own(r.url, page_file) else None)
    page.goto(page_file.as_uri())
    yield page, asked, wrong
    context.close()


def _own(url, page_file):
    return url == page_file.as_uri() or url.startswith("data:")


def _column(table, number):
    return table.locator(f"tbody td:nth-child({number})").all_inner_texts()


def test_it_opens_without_a_network(opened, tmp_path):
    page, asked, wrong = opened
    assert page.title() == "Benchmark"
    assert (asked, wrong) == ([], [])
    assert page.locator("svg").count() > 10
    # Nothing is wider than the window; wide tables scroll in their own frame.
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.locator("figure img").first.evaluate("image => image.naturalWidth") == 1
    assert "alpha/p0/liver, mask 2, bbox" in page.locator("figcaption").first.inner_text()
    shot = tmp_path / "report.png"
    page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 50_000


def test_a_heading_sorts_by_mouse_and_by_keyboard(opened):
    page, _, wrong = opened
    table = page.locator("#overall ~ div.scroll table").first
    names = table.locator("thead th").all_inner_texts()
    place = next(i for i, name in enumerate(names, start=1) if name.strip() == "Dice %")
    heading = table.locator(f"thead th:nth-child({place})")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    shown = [float(text) for text in _column(table, place)]
    assert shown == sorted(shown, reverse=True)
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in _column(table, place)] == sorted(shown)
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "descending"
    model = table.locator("thead th:nth-child(2)")
    model.locator("button").click()
    assert model.get_attribute("aria-sort") == "ascending"
    assert heading.get_attribute("aria-sort") == "none"
    labels = _column(table, 2)
    assert labels == sorted(labels)
    assert wrong == []


def test_missing_values_stay_last_either_way(opened):
    page, _, _ = opened
    table = page.locator("#comparisons ~ div.scroll table").nth(1)
    names = [name.strip() for name in table.locator("thead th").all_inner_texts()]
    place = names.index("difference of Dice %") + 1
    button = table.locator(f"thead th:nth-child({place}) button")
    for _ in range(2):
        button.click()
        values = _column(table, place)
        gaps = [text == "\u2013" for text in values]
        assert gaps == sorted(gaps)


@pytest.mark.parametrize("width", [480, 1280, 1920])
def test_figures_fit_any_window(chrome, page_file, width):
    page = chrome.new_page(viewport={"width": width, "height": 800})
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    rights = page.locator(".charts svg").evaluate_all(
        "found => found.map(svg => svg.getBoundingClientRect().right)"
    )
    assert max(rights) <= width
    page.close()
