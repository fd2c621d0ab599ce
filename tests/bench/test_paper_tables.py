"""The paper's tables: means recomputed with pandas, published values apart unless masks agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_rows import small_rows

from sammed_bench import tables
from sammed_bench.paper_tables import (
    MICCAI,
    MODALITY,
    OTHERS,
    OVER_MODALITIES,
    PRINTED,
    TEST_SET,
    UNWEIGHTED,
    WEIGHTED,
    joined_gains,
    paper_tables,
)
from sammed_bench.paper_values import STAMPS, published
from sammed_bench.text import cell, latex, markdown
from sammed_data.lineage import bundled_catalogs, bundled_lineage, joined
from sammed_data.types import UsageError

RECORD = {
    "conditions": {"protocol": {"name": "sam-med2d"}},
    "models": [{"name": "sam", "image_px": 256}],
}


@pytest.fixture(scope="module")
def rows():
    return tables.prepare(small_rows())


def _tables(rows, record=RECORD, **more):
    found = paper_tables(rows, ["sam", "ft-sam", "sam-med2d"], record=record, **more)
    return {table.name: table for table in found}


def _view(rows, **where):
    part = rows[rows["in_view"] & rows["scored"]]
    for column, value in where.items():
        part = part[part[column] == value]
    return part


def test_table_2_is_the_mean_over_the_masks_of_the_view(rows):
    speed = [{"model": "sam", "images_per_second": 7.5}]
    table = _tables(rows, speed=speed)[TEST_SET]
    assert [r["model"] for r in table.rows] == ["sam", "ft-sam", "sam-med2d"]
    whole = rows[rows["set"] == "test"].drop_duplicates(["sample_id", "mask_index"])
    for line in table.rows:
        for mode in ("bbox", "1pt", "5pt"):
            part = _view(rows, set="test", model=line["model"], mode=mode)
            assert line[mode] == pytest.approx(part["dice"].mean())
            assert line["masks"] == len(part)
        assert line["3pt"] is None  # was not asked
        assert line["left_out"] == pytest.approx(1 - whole["in_view"].mean())
    assert (table.rows[0]["image_px"], table.rows[0]["images_per_second"]) == (256, 7.5)
    assert table.rows[1]["images_per_second"] is None


def test_table_3_adds_what_five_clicks_gain_and_both_means(rows):
    table = _tables(rows)[MODALITY]
    assert [r["modality"] for r in table.rows][:2] == ["CT", "MR"]
    by = {row["modality"]: row for row in table.rows}
    for modality in ("CT", "MR"):
        one, five = (
            _view(rows, set="test", model="sam-med2d", modality=modality, mode=mode)["dice"].mean()
            for mode in ("1pt", "5pt")
        )
        assert by[modality]["sam-med2d"] == pytest.approx(one)
        assert by[modality]["sam-med2d gain"] == pytest.approx(five - one)
    macro = (by["CT"]["sam"] + by["MR"]["sam"]) / 2
    assert by[OVER_MODALITIES]["sam"] == pytest.approx(macro)
    shown = joined_gains(table)
    assert "sam gain" not in shown.columns
    one = cell("dice", by["CT"]["sam"])
    assert shown.rows[0]["sam"].startswith(f"{one} (")
    assert "r" in latex(shown).splitlines()[3]


def test_table_4_weights_by_masks_and_by_dataset(rows):
    found = _tables(rows)
    table = found[MICCAI]
    assert [r["dataset"] for r in table.rows] == ["KiTS23", "LNQ2023", WEIGHTED, UNWEIGHTED]
    both = rows["dataset"].isin(["kits23", "lnq2023"])
    part = _view(rows[both], model="ft-sam", mode="bbox")
    by = {row["dataset"]: row["bbox: ft-sam"] for row in table.rows}
    assert by[WEIGHTED] == pytest.approx(part["dice"].mean())
    assert by[UNWEIGHTED] == pytest.approx(part.groupby("dataset")["dice"].mean().mean())
    assert "Here are 2 of the 9" in table.note
    assert [r["dataset"] for r in found[OTHERS].rows] == ["gamma"]
    assert table.rows[0]["seen"] == "unknown"  # nothing recorded is never clean


def test_seen_is_said_per_model(rows):
    seen = [
        {"model": m, "set": "held_out", "dataset": "kits23", "state": s}
        for m, s in (("sam", "not seen"), ("ft-sam", "seen"), ("sam-med2d", "seen"))
    ]
    line = _tables(rows, seen=seen)[MICCAI].rows[0]
    assert line["seen"] == "not seen: sam; seen: ft-sam, sam-med2d"


def test_another_protocol_fills_none_of_them(rows):
    record = {"conditions": {"protocol": {"name": "centre-click"}}}
    assert _tables(rows, record) == {}


def test_published_values_stand_apart_as_they_were_printed(rows):
    found = _tables(rows)
    whole = found[TEST_SET + PRINTED]
    assert whole.rows[-1]["3pt"] == "76.35"
    assert {row["stamp"] for row in whole.rows} == {"in-sample"}
    assert "20.87 (+18.62)" in markdown(found[MODALITY + PRINTED])
    by = {row["dataset"]: row for row in found[MICCAI + PRINTED].rows}
    assert by["KiTS23"]["stamp"] == "overlapping"
    assert by["LNQ2023"]["stamp"] == "gated"
    assert by[WEIGHTED]["bbox: SAM-Med2D"] == "84.88"
    assert not any("published" in column for column in found[MICCAI].columns)


def test_values_over_the_same_masks_stand_beside_ours(rows):
    printed = published()
    masks = len(_view(rows, dataset="kits23", model="sam", mode="bbox"))
    sets = tuple(replace(p, masks=masks if p.key == "kits23" else None) for p in printed.miccai2023)
    test = len(_view(rows, set="test", model="sam", mode="bbox"))
    whole = (replace(printed.test_set[0], masks=test), replace(printed.test_set[1], masks=test + 1))
    found = _tables(rows, printed=replace(printed, miccai2023=sets, test_set=whole))
    kits, lnq, *_ = found[MICCAI].rows
    assert kits["published bbox: SAM"] == pytest.approx(0.8152)
    assert "published bbox: SAM" not in lnq
    assert [r["model"] for r in found[TEST_SET].rows][3:] == ["published: SAM"]


def test_stamps_are_those_that_the_catalogue_gives():
    import yaml

    lineages = bundled_lineage()
    groups = joined({name: item.overlaps for name, item in lineages.items()})
    pool = {name for name, item in lineages.items() if "sa_med2d_20m" in item.used_by}
    for line in published().miccai2023:
        entry = yaml.safe_load((bundled_catalogs() / f"{line.key}.yaml").read_text())
        overlaps = bool(set(groups[line.key]) & pool)
        gated = entry["access"] != "open"
        assert line.stamp == ("overlapping" if overlaps else "gated" if gated else ""), line.name
        assert line.stamp in STAMPS
        assert ("registration" in line.why) == gated


def test_a_damaged_file_is_a_sentence(tmp_path):
    path = tmp_path / "paper.yaml"
    path.write_text("paper: x\n")
    with pytest.raises(UsageError, match="expected the published values"):
        published(path)
