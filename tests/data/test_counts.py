"""Counts from the index equal counts row by row; figures and pages hold them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from sammed_data.build import build
from sammed_data.cli import app
from sammed_data.corpus import VIEWS, Corpus
from sammed_data.counts import Counts
from sammed_data.describe import count_tables
from sammed_data.figures import write_figures
from sammed_data.index import open_index
from sammed_data.phantom import write_phantoms
from sammed_data.sheet import Wanted, contact_sheet
from sammed_data.types import CorpusError, UsageError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("counts")
    kinds = ("phantom_ct", "phantom_mr", "phantom_derm", "phantom_endo")
    write_phantoms(folder, n_patients=9, seed=4, only=kinds)
    build(folder / "catalogs", folder / "data", folder / "corpus")
    return Corpus(folder / "corpus")


def by_hand(corpus: Corpus, kind: str) -> dict[str, tuple[int, int, int, int]]:
    """images, masks, masks in view, patients of each group, one row after the other."""
    images, patients = defaultdict(set), defaultdict(set)
    masks, viewed = defaultdict(int), defaultdict(int)
    view = VIEWS["sam-med2d"]
    for row in corpus.index():
        for mask in row.masks:
            name = {
                "dataset": row.dataset,
                "modality": row.modality,
                "split": row.split,
                "organ": mask.organ or "(none)",
                "group": "lesion" if mask.kind == "lesion" else mask.group,
            }[kind]
            images[name].add(row.sample_id)
            patients[name].add((row.dataset, row.meta["patient_id"]))
            masks[name] += 1
            viewed[name] += view.keeps_image(row.height, row.width) and view.keeps_mask(
                mask, row.height, row.width
            )
    return {n: (len(images[n]), masks[n], viewed[n], len(patients[n])) for n in masks}


@pytest.mark.parametrize("kind", ["dataset", "modality", "organ", "group", "split"])
def test_tables_equal_a_count_by_hand(corpus: Corpus, kind: str) -> None:
    (table,) = [t for t in count_tables(Counts(corpus)) if t.columns[0] == kind]
    found = {row[0]: row[1:5] for row in table.rows}
    assert found == by_hand(corpus, kind)


def test_lesions_count_once_or_in_both(corpus: Corpus) -> None:
    counts = Counts(corpus)
    alone, both = counts.by_group(), counts.by_group(lesions_in_both=True)
    total = sum(len(row.masks) for row in corpus.index())
    assert sum(a.masks for a in alone.values()) == total
    assert alone["lesion"] == both["lesion"]
    assert sum(a.masks for a in both.values()) == total + alone["lesion"].masks
    assert "liver" in counts.lesion_organs()
    assert counts.structures_of("heart") == ["heart_myocardium", "heart_ventricle"]


def test_figures_are_valid_and_the_same_each_time(corpus: Corpus, tmp_path: Path) -> None:
    counts = Counts(corpus)
    paths = write_figures(counts, tmp_path / "a", count_tables(counts))
    again = write_figures(Counts(corpus), tmp_path / "b", count_tables(counts))
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]
    assert [p.name for p in paths] == [
        "modalities.svg", "groups.svg", "organs.svg", "sizes.svg", "describe.html",
    ]  # fmt: skip
    for path in paths[:-1]:
        ElementTree.parse(path)
    organs = paths[2].read_text()
    assert "liver*" in organs
    assert "(heart myocardium, heart ventricle)" in organs
    page = paths[-1].read_text()
    assert f"{counts.by_row('modality')['CT'].masks:,}" in page
    for word in ('src="http', 'href="http', "<link", "@import"):  # opens offline
        assert word not in page


def test_a_page_and_a_sheet_show_what_was_asked_for(corpus: Corpus, tmp_path: Path) -> None:
    page = tmp_path / "sheet.html"
    assert contact_sheet(corpus, page, Wanted(n=5, structures=("liver_tumor",))) == 5
    text = page.read_text()
    assert text.count("<figure") == 5
    assert text.count('data-set="phantom_ct"') == 5
    assert "liver_tumor" in text
    index = open_index(corpus)
    turns = [index.names["dataset"][index.rows_N["dataset"][n]]
             for n in Wanted(n=8).numbers(corpus, index)]  # fmt: skip
    assert sorted(turns[:4]) == sorted(turns[4:]) == sorted(set(turns))
    only = Wanted(n=100, splits=("test",), modalities=("MR",)).numbers(corpus, index)
    assert len(only) == sum(r.split == "test" and r.modality == "MR" for r in corpus.index())
    for wanted, said in (
        (Wanted(n=0), "--n"),
        (Wanted(structures=("livr",)), "liver"),
        (Wanted(datasets=("phantom_cx",)), "phantom_ct"),
    ):
        with pytest.raises(UsageError, match=said):
            contact_sheet(corpus, page, wanted)
    with pytest.raises(CorpusError, match="found none"):
        contact_sheet(corpus, page, Wanted(datasets=("phantom_endo",), splits=("train",)))


def test_describe_as_json_is_one_document(corpus: Corpus, tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["describe", str(corpus.root), "--json", "--out", str(tmp_path)])
    said = json.loads(run.stdout)
    assert said["hash"] == corpus.content_hash
    assert {r["split"]: r["images"] for r in said["tables"]["By split"]} == {
        name: amount.images for name, amount in Counts(corpus).by_row("split").items()
    }
    assert (tmp_path / "describe.html").is_file()
