"""The results view, clicked through in a browser, and the routes behind it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
from browser import free_port, until

from sammed_bench.scores import read_scores


@pytest.fixture(scope="module")
def rows(world):
    return read_scores(world.results)


def test_from_the_table_to_a_replay_of_two_models(open_page, settings, rows):
    page, base = open_page(settings)
    page.goto(f"{base}/#/results")
    page.wait_for_selector("table.scores tbody tr")
    assert page.inner_text("#total").startswith("25" if len(rows) == 25 else f"{len(rows):,} of")
    page.select_option("#f-model", "first")
    until(page, "location.hash.includes('model=first')")
    page.wait_for_selector("#f-mode")
    page.select_option("#f-mode", "3pt")
    until(page, "location.hash.includes('mode=3pt')")
    page.wait_for_selector("table.scores tbody tr")
    own = rows[(rows["model"] == "first") & (rows["mode"] == "3pt")]
    shown = [float(t) for t in page.locator("tbody td:first-child").all_inner_texts()]
    assert shown == sorted(shown)
    assert shown[0] == round(100 * own["dice"].min(), 1)

    page.click("tbody tr >> nth=0")
    page.wait_for_selector("#step")
    until(page, "document.querySelector('#step').max === '2'")
    score = page.locator(".panel .score").first
    until(
        page,
        "[...document.querySelectorAll('.score')].every(s => s.textContent.includes('Dice'))",
    )
    assert score.inner_text().startswith("3 clicks: Dice ")
    assert f"Dice {100 * own['dice'].min():.1f} %" in score.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert score.inner_text().startswith("1 click: Dice ")
    assert page.locator(".panel select").nth(1).input_value() != ""
    assert page.locator(".panel").count() == 2
    assert "Computed again from the weights" in page.locator(".panel .note").first.inner_text()
    page.click("#play")
    until(page, "document.querySelector('#step').value === '2'")
    page.keyboard.press("n")
    until(page, "location.hash.includes('at=1')")


def test_kept_predictions_are_shown_without_weights(open_page, settings, world, tmp_path, rows):
    """A copy of the results that lies where no weights are."""
    shutil.copytree(world.results, tmp_path / "copy" / "001")
    record = tmp_path / "copy" / "001" / "bench.json"
    plain = json.loads(record.read_text())
    for model in plain["models"]:
        model["source"] = "gone.safetensors"
    record.write_text(json.dumps(plain))
    page, base = open_page(replace(settings, results=tmp_path / "copy" / "001", models=()))
    page.goto(f"{base}/#/results?model=second&mode=bbox")
    page.click("tbody tr >> nth=0")
    note = page.locator(".panel .note").first
    until(page, "document.querySelector('.panel .note').textContent !== ''")
    assert "Kept predictions" in note.inner_text()
    page.goto(f"{base}/#/results?model=second&mode=3pt")
    until(page, "location.hash.includes('3pt')")
    page.click("tbody tr:has(td:text('3pt')) >> nth=0")
    until(page, "document.querySelector('.panel .note')?.textContent.includes('weights')")
    assert "not where the benchmark found them" in note.inner_text()
    score = page.locator(".panel .score").first
    assert "3 clicks" in score.inner_text()  # the last answer was kept
    assert "not kept" not in score.inner_text()
    page.keyboard.press("ArrowLeft")
    assert "2 clicks" in score.inner_text()
    assert "not kept" in score.inner_text()


def test_cases_and_report(open_page, settings):
    page, base = open_page(settings)
    page.goto(f"{base}/#/results/cases")
    page.wait_for_selector("button.case img")
    page.click("button.case >> nth=0")
    page.wait_for_selector("#step")
    page.goto(f"{base}/#/results/report")
    frame = page.frame_locator("iframe.report")
    assert frame.locator("h1").inner_text() == "Benchmark"
    until(page, "document.querySelector('iframe')")
    while not [f for f in page.frames if f.url.endswith("/report")]:
        page.wait_for_timeout(50)
    next(f for f in page.frames if f.url.endswith("/report")).wait_for_load_state("load")
    heading = frame.locator("thead th.number").first
    heading.locator("button").click()  # its own script sorts the table
    assert heading.get_attribute("aria-sort") == "descending"


def test_a_page_without_results_says_what_to_do(open_page, settings):
    page, base = open_page(replace(settings, results=None, port=free_port()))
    answer = page.request.get(f"{base}/api/results/facets")
    assert answer.status == 400
    assert "sammed app --results" in answer.json()["error"]


def test_every_row_replays_to_its_score(settings, world, rows):
    """Kept or computed again, the last answer scores what the row says."""
    from starlette.testclient import TestClient

    from sammed_app.page.server import create_app

    client = TestClient(create_app(settings), base_url=f"http://127.0.0.1:{settings.port}")
    listed = client.get("/api/results/rows", params={"per": 100, "status": "ok"}).json()
    assert listed["total"] == (rows["status"] == "ok").sum()
    hows = set()
    for row in listed["rows"]:
        told = client.get(f"/api/results/rows/{row['number']}/replay").json()
        hows.add(told["how"])
        assert told["same"], (row, told["note"])
        assert told["steps"][-1]["dice"] == pytest.approx(row["dice"], abs=1e-4)
        clicks = len([p for p in told["steps"][-1]["points"] if p[2] >= 0])
        assert clicks == row["n_clicks"]
    assert hows == {"kept", "model"}
    assert re.fullmatch(r"\d+", str(listed["total"]))


def test_the_model_that_was_looked_at_answers_the_clicks(open_page, settings, world):
    second = replace(settings.models[0], label="second", path=world.root / "second.safetensors")
    page, base = open_page(replace(settings, models=(*settings.models, second)))
    page.goto(f"{base}/#/results?model=second")
    page.wait_for_selector("table.scores tbody tr")
    page.click("tbody tr >> nth=0")
    page.click("text=Click in this image")
    until(page, "location.hash.startsWith('#/try') && location.hash.includes('model=second')")
    page.locator("text=ready").first.wait_for()
    assert page.get_by_label("Model").input_value() == "second"
