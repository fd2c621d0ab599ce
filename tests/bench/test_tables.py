"""Tables are views of the rows: recomputed here independently."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest

from sammed_bench import tables, text
from sammed_data.types import UsageError


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    structures = [
        ("liver", "liver", "abdomen", "organ"),
        ("liver_tumour", "liver", "abdomen", "lesion"),
        ("lung", "lung", "thorax", "organ"),
        ("thing", "", "unheard", "organ"),
    ]
    made = []
    for split, dataset, n in (("test", "d1", 30), ("test", "d2", 25), ("held_out", "d3", 8)):
        for patient in range(n):
            for index, (structure, organ, group, kind) in enumerate(structures):
                share = float(rng.choice([0.0005, 0.004, 0.03, 0.1, 0.5]))
                for model, model_kind in (
                    ("sam", "sam"),
                    ("ft-sam", "ft-sam"),
                    ("ft-sam-permuted", "ft-sam"),
                    ("boxes only", "medsam"),
                    ("box-full", "trivial"),
                    ("box-ellipse", "trivial"),
                    ("click-disc", "trivial"),
                ):
                    for mode in ("1pt", "bbox"):
                        made.append(
                            {
                                "model": model, "kind": model_kind, "mode": mode,
                                "recipe": "trivial" if model_kind == "trivial" else "tiny",
                                "split": split, "dataset": dataset,
                                "modality": "ct" if patient % 2 else "mr",
                                "patient_id": f"p{patient}", "case_id": "", "cluster": "patient",
                                "sample_id": f"{dataset}/{patient}", "mask_index": index,
                                "structure": structure, "organ": organ, "group": group,
                                "kind_of_structure": kind, "area_fraction": share,
                                "in_view": share >= 0.00153,
                            }
                        )  # fmt: skip
    frame = pd.DataFrame(made)
    frame["dice"] = rng.uniform(0, 1, len(frame))
    frame["iou"] = frame["dice"] / (2 - frame["dice"])
    frame["status"] = "ok"
    off = (frame["model"].isin(["boxes only", "box-full", "box-ellipse"])) & (
        frame["mode"] == "1pt"
    )
    off |= (frame["model"] == "click-disc") & (frame["mode"] == "bbox")
    frame.loc[off, ["status", "dice", "iou"]] = ["unsupported", np.nan, np.nan]
    failed = (frame["model"] == "sam") & (rng.uniform(size=len(frame)) < 0.05)
    frame.loc[failed, ["status", "dice", "iou"]] = ["failed", 0.0, 0.0]
    frame["error"] = ""
    return frame


def _line(table, **where):
    found = [r for r in table.rows if all(r[k] == v for k, v in where.items())]
    assert len(found) == 1, (where, found)
    return found[0]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("overall", None),
        ("modality", "modality"),
        ("dataset", "dataset"),
        ("structure", "structure"),
    ],
)
def test_means_and_counts_are_those_of_a_group_by(rows, name, column):
    table = tables.long_table(tables.prepare(rows), name)
    for view, kept in (("all", rows), ("sam-med2d", rows[rows["in_view"]])):
        keys = ["split", "mode", "model", *([column] if column else [])]
        for key, part in kept[kept["status"] != "unsupported"].groupby(keys):
            where = {"set": key[0], "view": view, "mode": key[1], "model": key[2]}
            line = _line(table, **where, **({name: key[3]} if column else {}))
            assert line["dice"] == pytest.approx(part["dice"].mean())
            assert line["iou"] == pytest.approx(part["iou"].mean())
            assert line["median"] == pytest.approx(part["dice"].median())
            assert line["masks"] == len(part)
            assert line["patients"] == (part["dataset"] + part["patient_id"]).nunique()
            assert line["failed"] == (part["status"] == "failed").sum()
            over = part.groupby("dataset")["dice"].mean()
            assert line["dice_over_datasets"] == pytest.approx(over.mean())
            few = line["patients"] < 20
            assert (line["low"] is None) == few
            assert few or line["low"] < line["dice"] < line["high"]


def test_gain_is_over_the_best_baseline_that_applies(rows):
    table = tables.long_table(tables.prepare(rows), "overall")
    for mode, names in (("bbox", ["box-full", "box-ellipse"]), ("1pt", ["click-disc"])):
        lines = [_line(table, set="test", view="all", mode=mode, model=m) for m in names]
        sam = _line(table, set="test", view="all", mode=mode, model="sam")
        assert sam["gain"] == pytest.approx(sam["dice"] - max(r["dice"] for r in lines))
    assert not [r for r in table.rows if r["model"] == "click-disc" and r["mode"] == "bbox"]


def test_not_supported_is_said(rows):
    table = tables.long_table(tables.prepare(rows), "overall")
    line = _line(table, set="test", view="all", mode="1pt", model="boxes only")
    assert (line["dice"], line["recipe"]) == (None, "not supported")
    wide = tables.wide_table(table, "all", ["sam", "boxes only"])
    assert _line(wide, set="test", mode="1pt")["boxes only"] == "not supported"


def test_lesions_are_apart_and_groups_add_up(rows):
    made = tables.prepare(rows)
    group = tables.long_table(made, "group")
    where = {"set": "test", "view": "all", "mode": "bbox", "model": "sam"}
    chosen = [r for r in group.rows if where.items() <= r.items()]
    assert [r["group"] for r in chosen] == ["thorax", "abdomen", "lesion", "other"]
    whole = _line(tables.long_table(made, "overall"), **where)
    assert sum(r["masks"] for r in chosen) == whole["masks"]
    organs = {r["organ"] for r in tables.long_table(made, "organ").rows}
    assert organs == {"liver", "liver (lesion)", "lung", "thing"}


def test_sizes_are_ordered_and_the_small_ones_are_what_the_view_leaves_out(rows):
    table = tables.long_table(tables.prepare(rows), "size")
    chosen = [r for r in table.rows if (r["set"], r["mode"], r["model"]) == ("test", "bbox", "sam")]
    everything = [r["size"] for r in chosen if r["view"] == "all"]
    assert everything == [name for _, name in tables.SIZE_BINS]
    assert [r["size"] for r in chosen if r["view"] == "sam-med2d"] == everything[1:]


def test_comparisons_know_start_control_and_baseline(rows):
    table = tables.comparison_table(tables.prepare(rows))
    found = {(r["model"], r["against"], r["what"]) for r in table.rows if r["mode"] == "bbox"}
    trained = rows[(rows["split"] == "test") & (rows["mode"] == "bbox")]
    pivot = trained.pivot_table(index=["sample_id", "mask_index"], columns="model", values="dice")
    best = pivot[["box-full", "box-ellipse"]].mean().idxmax()
    assert {
        ("ft-sam", "sam", "over the start"),
        ("ft-sam", "ft-sam-permuted", "over its control"),
        ("ft-sam-permuted", "sam", "prompt-only"),
        ("ft-sam", best, "over the best trivial baseline"),
    } <= found
    line = _line(table, set="test", mode="bbox", model="ft-sam", against="sam")
    assert line["difference"] == pytest.approx((pivot["ft-sam"] - pivot["sam"]).mean())
    assert line["masks"] == len(pivot)


def test_text_forms(rows):
    made = tables.all_tables(rows, ["ft-sam", "sam"])
    overall = made[0]
    assert overall.rows[0]["model"] == "ft-sam"
    read = list(csv.DictReader(io.StringIO(text.csv_text(overall))))
    assert len(read) == len(overall.rows)
    assert float(read[0]["dice"]) == overall.rows[0]["dice"]
    shown = text.markdown(text.with_interval(overall))
    assert "| test | all | bbox | ft-sam | 220 | 55 | patient | 0 |" in shown
    assert " to " in shown
    assert text.cell("gain", -0.0001) == "+0.0"
    assert text.cell("dice", 0.5555) == "55.5"
    assert text.cell("masks", 7) == "7"
    with pytest.raises(UsageError, match="found none"):
        tables.all_tables(rows.iloc[:0])
