"""Two results folders: paired on what both hold, refused where they asked different questions."""

from __future__ import annotations

import json

import bench_fakes
import pytest
import tiny_corpus
from typer.testing import CliRunner

import sammed
from sammed_bench.bench import BenchConfig, bench
from sammed_bench.compare import compare, seeds_of
from sammed_bench.models import Oracle, renamed
from sammed_bench.report import write_report
from sammed_bench.scores import read_scores
from sammed_bench.tables import Table
from sammed_bench.text import latex
from sammed_data.types import CorpusError, UsageError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    corpus = tiny_corpus.write_corpus(root / "c", patients={"train": 1, "test": 9}, slices=1)

    def run(name, model, **more):
        config = BenchConfig(gallery=False, **({"modes": ("bbox", "1pt")} | more))
        return bench(corpus, [renamed(model, "mine")], config, out=root / name).out

    return (
        run("a", Oracle()),
        run("b", bench_fakes.Bright()),
        run("seed", bench_fakes.Bright(), seed=1),
        run("protocol", bench_fakes.Bright(), modes=("bbox",)),
    )


def test_differences_are_those_of_the_common_rows(folders):
    a, b, _, box = folders
    table = compare(a, b)
    lines = {(line["model"], line["mode"]): line for line in table.rows}
    rows = [read_scores(r) for r in (a, b)]
    for mode in ("bbox", "1pt"):
        means = [r[(r["model"] == "mine") & (r["mode"] == mode)]["dice"].mean() for r in rows]
        assert lines["mine", mode]["difference"] == pytest.approx(means[0] - means[1])
        assert lines["mine", mode]["weights"] == "other"
        assert lines["mine", mode]["low"] is not None
    assert lines["box-full", "bbox"]["difference"] == 0
    assert lines["box-full", "bbox"]["p"] == 1
    assert {line["mode"] for line in compare(a, box).rows} == {"bbox"}


def test_other_questions_are_refused(folders, tmp_path):
    a, b, seed, _ = folders
    with pytest.raises(UsageError, match="one prompt seed"):
        compare(seed, b)
    with pytest.raises(CorpusError, match="results folder"):
        compare(a, tmp_path)


def test_prompt_seeds_over_folders(folders, tmp_path):
    _, b, seed, _ = folders
    with pytest.raises(UsageError, match="training seed"):
        seeds_of([b, seed])
    with pytest.raises(UsageError, match="a prompt seed for each"):
        seeds_of([b, b])
    for folder in (b, seed):
        records = json.loads((folder / "lineage.json").read_text())
        for record in records:
            if record["model"] == "mine":
                record |= {"method": "m", "training_seed": 0}
        (folder / "lineage.json").write_text(json.dumps(records))
    lines = {line["mode"]: line for line in seeds_of([b, seed]).rows}
    assert (lines["1pt"]["prompt_seeds"], lines["1pt"]["result_of"]) == (2, "weights")
    assert lines["bbox"]["sd_prompts"] == 0 < lines["1pt"]["sd_prompts"]


def test_the_verb(folders):
    a, b, _, _ = folders
    found = CliRunner().invoke(sammed.app, ["compare", str(a), str(b), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["name"] == "compare"
    assert "minus" in CliRunner().invoke(sammed.app, ["compare", str(a), str(b)]).stdout


def test_latex_tables_lie_beside_the_others(folders):
    write_report(folders[1])
    made = folders[1] / "report" / "tables"
    assert r"\toprule" in (made / "overall.tex").read_text()
    assert (made / "modality.tex").is_file()
    table = Table(name="t", title="A & B", columns=("model", "dice"), rows=[{"model": "a_b & 5%"}])
    assert r"a\_b \& 5\% & -- \\" in latex(table)
    assert r"\begin{tabular}{ll}" in latex(table)
