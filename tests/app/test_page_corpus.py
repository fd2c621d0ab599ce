"""The corpus view, clicked through in a browser."""

from __future__ import annotations

import re

import pytest
from browser import until

from sammed_data.corpus import Corpus
from sammed_data.exclude import read_list


def _total(page) -> int:
    return int(re.match(r"[\d,]+", page.inner_text("#total"))[0].replace(",", ""))


def _pixels(page) -> str:
    """What the canvas shows."""
    return page.evaluate("document.querySelector('canvas').toDataURL()")


def test_browse_filter_open_flag_and_take_back(open_page, settings):
    page, base = open_page(settings)
    rows = Corpus(settings.corpus).index(with_excluded=True)
    page.goto(base)
    page.wait_for_selector("a.card")
    assert _total(page) == len(rows)
    assert page.locator("a.card img").first.get_attribute("alt")

    page.select_option("#f-organ", "skin")
    skin = [row for row in rows if row.dataset == "phantom_derm"]
    until(page, f"document.querySelectorAll('a.card').length === {len(skin)}")
    assert "organ=skin" in page.url
    page.click("text=Clear")
    page.select_option("#f-split", "train")
    until(page, "location.hash.includes('split=train')")
    page.wait_for_selector("#f-split")
    assert _total(page) == sum(row.split == "train" for row in rows)

    page.click("a.card >> nth=0")
    page.wait_for_selector("#flag")
    assert page.inner_text("h1") in {row.sample_id for row in rows}
    facts = page.inner_text("table.facts")
    assert "sha256" in facts
    assert "patient" in facts

    with_masks = _pixels(page)
    page.click("text=None")
    plain = _pixels(page)
    assert plain != with_masks
    page.check(".masks input >> nth=0")
    assert _pixels(page) != plain

    name = page.inner_text("h1")
    page.fill("#reason", "a bad, 'crooked' mask")
    page.click("#flag")
    page.wait_for_selector("#unflag")
    (entry,) = read_list(settings.exclude)
    assert (entry.level, entry.id, entry.reason) == ("sample", name, "a bad, 'crooked' mask")
    page.goto(f"{base}/#/corpus?flagged=yes")
    page.wait_for_selector(".badge")
    assert _total(page) == 1
    page.click("a.card")
    page.click("#unflag")
    page.wait_for_selector("#flag")
    assert read_list(settings.exclude) == []


def test_keys_alone_go_everywhere(open_page, settings):
    page, base = open_page(settings)
    page.goto(base)
    page.wait_for_selector("a.card")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.querySelector('.name').textContent")
    assert second == page.locator("a.card .name").nth(1).inner_text()
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert ring == "3px"
    page.keyboard.press("Enter")
    page.wait_for_selector("#flag")
    assert page.inner_text("h1") == second
    page.keyboard.press("ArrowRight")
    until(page, f"document.querySelector('h1').textContent !== '{second}'")
    page.keyboard.press("Escape")
    page.wait_for_selector("a.card")
    page.keyboard.press("/")
    page.keyboard.type("skin_lesion")
    page.keyboard.press("Enter")
    until(page, "location.hash.includes('q=skin_lesion')")
    until(page, "document.querySelectorAll('a.card').length === 4")
    page.keyboard.press("Escape")  # out of the field, if the search kept it
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    assert "image below" in page.inner_text("dialog dl")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.wait_for_selector("table.scores")


@pytest.mark.parametrize("path", ["#/corpus", "#/corpus/row/0"])
def test_nothing_runs_out_of_a_small_screen(open_page, settings, path):
    page, base = open_page(settings)
    page.goto(f"{base}/{path}")
    page.wait_for_selector("a.card, canvas")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 1280


def test_a_strange_name_is_text_on_the_page(open_page, settings):
    """What stands in a list of exclusions may come from anybody."""
    page, base = open_page(settings)
    page.goto(f"{base}/#/corpus/row/0")
    page.fill("#reason", "<img src=x onerror=alert(1)>")
    page.click("#flag")
    page.wait_for_selector("#unflag")
    assert "<img src=x" in page.inner_text("#flag-state")
    assert page.locator("#flag-state img").count() == 0
