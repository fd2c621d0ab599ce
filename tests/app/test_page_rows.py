"""The routes of the corpus against a reading of every row, the exclude list, and whose weights."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from sammed_app.page.asked_models import AskedModels
from sammed_app.page.filters import Filter, Finder
from sammed_app.page.library import Library
from sammed_app.page.pictures import thumbnail
from sammed_app.page.server import create_app
from sammed_bench.choose import Wanted
from sammed_bench.openings import filled
from sammed_bench.scores import read_scores
from sammed_bench.tables import SIZE_BINS
from sammed_data.codecs import decode_image
from sammed_data.corpus import Corpus
from sammed_data.exclude import FILE, read_list
from sammed_data.types import ModelError, UsageError

CHANGE = {"X-Sammed": "1"}


@pytest.fixture(scope="module")
def library(world):
    return Library(world.corpus)


@pytest.fixture(scope="module")
def rows(world):
    return Corpus(world.corpus).index(with_excluded=True)


def _of_size(row, name):
    edges = [0.0, *(edge for edge, _ in SIZE_BINS)]
    place = [n for _, n in SIZE_BINS].index(name)
    shares = [np.float32(m.area_px / (row.height * row.width)) for m in row.masks]
    return any(edges[place] <= share < edges[place + 1] for share in shares)


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ({}, lambda row: True),
        ({"dataset": "phantom_derm"}, lambda row: row.dataset == "phantom_derm"),
        ({"modality": "CT"}, lambda row: row.modality == "CT"),
        ({"organ": "kidney"}, lambda row: any(m.organ == "kidney" for m in row.masks)),
        ({"split": "test"}, lambda row: row.split == "test"),
        ({"size": "1 to 5 %"}, lambda row: _of_size(row, "1 to 5 %")),
        ({"size": "20 % and more"}, lambda row: _of_size(row, "20 % and more")),
        ({"text": "aor"}, lambda row: any("aorta" in m.structure for m in row.masks)),
        ({"organ": "spleen", "split": "train"}, lambda row: row.split == "train"
         and any(m.organ == "spleen" for m in row.masks)),
        ({"flagged": "yes"}, lambda row: False),
        ({"flagged": "no"}, lambda row: True),
    ],
)  # fmt: skip
def test_filters_say_what_a_reading_of_all_rows_says(library, rows, asked, fits):
    found = Finder(library).numbers(Filter(**asked))
    assert [rows[n].sample_id for n in found] == [row.sample_id for row in rows if fits(row)]


def test_whole_ids_are_found(library, rows):
    finder = Finder(library)
    some = rows[7]
    assert finder.numbers(Filter(text=some.sample_id)).tolist() == [7]
    patient = some.meta["patient_id"]
    found = finder.numbers(Filter(text=patient)).tolist()
    assert found == [n for n, row in enumerate(rows) if row.meta["patient_id"] == patient]
    assert library.number(some.sample_id) == 7
    assert library.number("nobody") is None
    assert library.row(7).sample_id == some.sample_id


@pytest.mark.parametrize("kind", ["dataset", "modality", "organ", "split", "size", "flagged"])
def test_an_unknown_name_lists_its_neighbours(library, kind):
    with pytest.raises(UsageError, match=f"unknown {kind} 'tset'"):
        Finder(library).numbers(Filter(**{kind: "tset"}))


def test_pages_go_through_all_rows_once(settings, rows):
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")
    seen, page = [], 0
    while True:
        found = client.get("/api/corpus/rows", params={"page": page, "per": 7}).json()
        if not found["rows"]:
            break
        seen += found["rows"]
        page += 1
    assert [row["sample_id"] for row in seen] == [row.sample_id for row in rows]
    assert [row["number"] for row in seen] == list(range(len(rows)))


def test_pixels_come_as_they_are_stored(settings, library, rows):
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")
    for number in (0, len(rows) - 1):
        row = library.row(number)
        sent = client.get(f"/api/corpus/rows/{number}/image.png")
        assert sent.headers["content-type"] == "image/png"
        assert np.array_equal(decode_image(sent.content), row.image)
        masks = client.get(f"/api/corpus/rows/{number}/masks").json()
        shape = masks["height"], masks["width"]
        assert shape == (row.height, row.width)
        assert shape[0] != shape[1]
        for runs, mask in zip(masks["runs"], row.masks, strict=True):
            assert np.array_equal(filled(runs, shape), mask.mask_HW)


def test_a_thumbnail_shows_even_a_single_pixel(library):
    row = library.row(0)
    speck = np.zeros((row.height, row.width), bool)
    speck[20, 31] = True
    one = replace(row, masks=(replace(row.masks[0], mask_HW=speck),))
    plain = decode_image(thumbnail(replace(row, masks=()), 40))
    assert max(plain.shape[:2]) == 40
    assert (decode_image(thumbnail(one, 40)) != plain).any()


def test_the_list_of_the_corpus_is_kept_and_honoured(world, settings, tmp_path):
    """Entries about cases and patients stay; what somebody else adds meanwhile stays too."""
    root = tmp_path / "corpus"
    shutil.copytree(world.corpus, root)
    case = Corpus(root).index()[0].meta["case_id"]
    (root / FILE).write_text(f"level,dataset,id,reason\ncase,phantom_ct,{case},blurred\n")
    client = TestClient(create_app(replace(settings, corpus=root, exclude=None)))
    client.base_url = "http://127.0.0.1"
    hidden = client.get("/api/corpus/rows", params={"flagged": "yes", "per": 100}).json()
    assert {row["excluded"] for row in hidden["rows"]} == {"blurred"}
    last = client.get("/api/corpus/facets").json()["rows"] - 1
    flag = f"/api/corpus/rows/{last}/flag"
    with (root / FILE).open("a") as file:
        csv.writer(file).writerow(["patient", "phantom_ct", "px", "left the study"])
    said = client.post(flag, json={"reason": "  cut \n off "}, headers=CHANGE).json()
    assert said["excluded"] == "cut off"
    assert {e.level for e in read_list(root / FILE)} == {"case", "patient", "sample"}
    now = client.get("/api/corpus/rows", params={"flagged": "yes"}).json()
    assert now["total"] == hidden["total"] + 1
    opened = Corpus(root)
    assert len(opened.index()) == len(opened.index(with_excluded=True)) - now["total"]
    again = client.post(flag, json={"reason": "worse"}, headers=CHANGE).json()
    assert again["excluded"] == "worse"
    assert client.delete(flag, headers=CHANGE).json()["excluded"] is None
    assert {e.level for e in read_list(root / FILE)} == {"case", "patient"}
    assert not client.delete("/api/corpus/rows/0/flag", headers=CHANGE).json()["own_flag"]
    assert client.get("/api/corpus/rows/0").json()["excluded"] == "blurred"


def test_two_people_flag_at_once_and_neither_is_lost(settings, rows):
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")

    def flag(number):
        client.post(f"/api/corpus/rows/{number}/flag", json={"reason": "r"}, headers=CHANGE)

    threads = [threading.Thread(target=flag, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {e.id for e in read_list(settings.exclude)} == {row.sample_id for row in rows[:8]}


def test_an_exclude_list_of_another_ending_is_refused(settings, tmp_path):
    with pytest.raises(UsageError, match=r"\.csv file"):
        create_app(replace(settings, exclude=tmp_path / "exclude.yaml"))


def test_weights_are_those_that_were_scored_or_none(world, library):
    rows = read_scores(world.results)
    score = rows[rows["model"] == "second"].iloc[0].to_dict()
    record = json.loads((world.results / "bench.json").read_text())
    models = AskedModels(world.results, record, (), library)
    assert models.load(score, "native").facts.weights_sha256 == score["weights_sha256"]
    # The user points to other weights, and the record to none.
    given = [Wanted(label="second", path=world.weights)]
    models = AskedModels(world.results, {}, given, library)
    with pytest.raises(ModelError, match="is not what was scored as 'second'"):
        models.load(score, "native")
    with pytest.raises(ModelError, match="--model second=PATH"):
        AskedModels(world.results, {}, (), library).load(score, "native")
    disc = rows[rows["model"] == "click-disc"].iloc[0].to_dict()
    assert models.load(disc, "native").facts.weights_sha256 == disc["weights_sha256"]
