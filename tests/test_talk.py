"""What `--json`, `--quiet`, `--verbose` and `--help` mean, verb by verb."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import sammed
from sammed_data import talk
from sammed_data.phantom import write_phantoms
from sammed_data.types import UsageError

WIDTH = 80


def verbs(app: typer.Typer = sammed.app, path: tuple[str, ...] = ()):
    for info in app.registered_commands:
        yield (*path, info.name or info.callback.__name__.strip("_").replace("_", "-"))
    for group in app.registered_groups:
        yield (*path, group.name)
        yield from verbs(group.typer_instance, (*path, group.name))


VERBS = sorted(verbs())
LEAVES = [v for v in VERBS if not any(other[: len(v)] == v and other != v for other in VERBS)]


def shown(*words: str) -> str:
    env = {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1"}
    return CliRunner().invoke(sammed.app, [*words, "--help"], env=env, terminal_width=WIDTH).output


@pytest.mark.parametrize("verb", [(), *VERBS], ids=" ".join)
def test_every_help_fits_and_has_an_example(verb):
    text = shown(*verb)
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "…" not in text
    assert re.search(r"sammed (?!\S*\[)[a-z-]+", text.replace("Usage: sammed", ""))


@pytest.mark.parametrize("verb", LEAVES, ids=" ".join)
def test_every_verb_has_the_same_three_options(verb):
    text = shown(*verb)
    assert "--json" in text
    assert "--quiet" in text
    assert "--verbose" in text


def test_prose_flows_and_commands_keep_their_lines():
    app = typer.Typer()

    @app.command()
    def count() -> None:
        """Count.

        A sentence that goes on
        in a second line of the source.

          sammed count
          sammed count again

        \b
        Kept:
        as written
        """

    @app.callback()
    def _all() -> None:
        """Verbs."""

    talk.give_options(app)
    text = CliRunner().invoke(app, ["count", "--help"], terminal_width=WIDTH).output
    lines = [line.strip() for line in text.splitlines()]
    assert "A sentence that goes on in a second line of the source." in lines
    assert lines.count("sammed count") == lines.count("sammed count again") == 1
    assert lines.count("Kept:") == lines.count("as written") == 1


@pytest.mark.parametrize("verb", ["audit", "trace", "export", "push", "exclude"])
def test_the_corpus_taken_by_default_is_said(verb):
    assert "default: corpus" in " ".join(re.sub("[│╭╰]", "", shown("data", verb)).split())


def test_the_extra_that_onnx_needs_is_not_taken_for_markup():
    assert "sammed[onnx]" in "".join(shown("export-onnx").split())


def a_verb(said: list[str]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def count(n: int = 2, fail: bool = False, own: bool = typer.Option(False, "--own")) -> None:
        typer.echo(f"counted {n}")
        said.append("quiet" if talk.is_quiet() else "loud")
        if fail:
            raise UsageError("no such number")
        talk.answer({"n": n, "where": Path("a") / "b"})

    @app.command()
    def other(as_json: bool = typer.Option(False, "--json")) -> None:
        typer.echo('{"own": true}' if as_json else "plain")

    talk.give_options(app)
    return app


def test_json_is_one_document_and_lines_go_to_stderr():
    result = CliRunner().invoke(a_verb([]), ["count", "--n", "3", "--json"])
    assert json.loads(result.stdout) == {"n": 3, "where": "a/b"}
    assert "counted 3" in result.stderr


def test_quiet_prints_nothing_but_a_document_that_was_asked_for():
    said: list[str] = []
    app = a_verb(said)
    assert CliRunner().invoke(app, ["count", "-q"]).output == ""
    assert said == ["quiet"]
    assert json.loads(CliRunner().invoke(app, ["count", "-q", "--json"]).stdout)["n"] == 2
    assert CliRunner().invoke(app, ["other", "-q"]).output == ""
    assert json.loads(CliRunner().invoke(app, ["other", "-q", "--json"]).stdout) == {"own": True}


def test_verbose_tells_options_and_cost_on_stderr():
    result = CliRunner().invoke(a_verb([]), ["count", "-v"])
    assert result.stdout == "counted 2\n"
    assert "  n: 2" in result.stderr
    assert re.search(r"took \d+\.\d s", result.stderr)
    assert talk.is_verbose()  # where the front door asks, a traceback is shown


def test_an_error_under_json_leaves_stdout_empty():
    result = CliRunner().invoke(a_verb([]), ["count", "--fail", "--json"])
    assert result.stdout == ""
    assert isinstance(result.exception, UsageError)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk") / "phantoms"
    return write_phantoms(folder, n_patients=4, seed=3, only=("phantom_ct",))


def run(*words: str | Path, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(sammed.app, [str(w) for w in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def test_a_dry_run_counts_what_the_run_does_and_writes_nothing(phantoms, tmp_path):
    out = tmp_path / "corpus"
    order = ("data", "build", "--source", phantoms / "catalogs", "--root", phantoms / "data",
             "--out", out)  # fmt: skip
    planned = json.loads(run(*order, "--dry-run", "--json")[0])
    assert not out.exists()
    built = json.loads(run(*order, "--json")[0])
    assert (
        sum(d["cases"] for d in planned["datasets"].values()) == built["counts"]["cases"]["found"]
    )
    assert sum(d["shards"] for d in planned["datasets"].values()) == built["shards_built"]
    again = json.loads(run(*order, "--dry-run", "--json")[0])
    assert all(d["there already"] == d["shards"] for d in again["datasets"].values())

    export = ("data", "export", tmp_path / "json", "--corpus", out)
    counted = json.loads(run(*export, "--dry-run", "--json")[0])
    assert not (tmp_path / "json").exists()
    written = json.loads(run(*export, "--json")[0])
    assert {k: counted[k] for k in ("images", "masks", "splits")} == {
        k: written[k] for k in ("images", "masks", "splits")
    }
    left = json.loads((tmp_path / "json" / talk.RECORD).read_text())
    assert left["command"] == "sammed data export"
    assert left["options"]["corpus"] == str(out)


def test_a_dry_exclusion_and_withdrawal_leave_the_corpus_as_it_was(phantoms, tmp_path):
    out = tmp_path / "corpus"
    run("data", "build", "--source", phantoms / "catalogs", "--root", phantoms / "data",
        "--out", out, "-q")  # fmt: skip
    from sammed_data.corpus import Corpus

    rows = Corpus(out).index()
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    listed = tmp_path / "bad.csv"
    listed.write_text(f"sample_id,reason\n{rows[0].sample_id},blurred\nnobody,blurred\n")
    found = json.loads(run("data", "exclude", out, listed, "--dry-run", "--json")[0])
    assert (found["known"], found["unknown"]) == (1, 1)
    patient = rows[0].meta["patient_id"]
    name = f"{rows[0].dataset}:{patient}"
    held = json.loads(
        run("data", "withdraw", out, "--patient", name, "--reason", "asked", "--dry-run", "--json")[
            0
        ]
    )
    own = [r for r in rows if r.dataset == rows[0].dataset and r.meta["patient_id"] == patient]
    assert (held["images"], held["masks"]) == (len(own), sum(len(r.masks) for r in own))
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    done = json.loads(
        run("data", "withdraw", out, "--patient", name, "--reason", "asked", "--json")[0]
    )
    assert (done["images"], done["shards"]) == (held["images"], held["shards"])


def test_a_dry_training_leaves_no_run(phantoms, tmp_path):
    out, runs = tmp_path / "corpus", tmp_path / "runs"
    run("data", "build", "--source", phantoms / "catalogs", "--root", phantoms / "data",
        "--out", out, "-q")  # fmt: skip
    train = ("train", "--corpus", out, "--out", runs, "--steps", "7")
    found = json.loads(run(*train, "--dry-run", "--json")[0])
    assert found["steps"] == 7
    assert not runs.exists()


def test_no_colour_and_no_bar_where_nobody_looks(phantoms, tmp_path):
    words = ["data", "build", "--source", phantoms / "catalogs", "--root", phantoms / "data",
             "--out", tmp_path / "corpus"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "sammed", *map(str, words)], capture_output=True, check=True
    )
    assert b"\x1b" not in done.stdout + done.stderr
    assert done.stderr == b""
