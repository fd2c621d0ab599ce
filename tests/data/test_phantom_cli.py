"""`sammed data phantom` writes what `build` takes."""

from __future__ import annotations

import json

from typer.testing import CliRunner

import sammed


def test_phantoms_are_drawn_and_build(tmp_path):
    out = tmp_path / "ph"
    made = CliRunner().invoke(
        sammed.app,
        ["data", "phantom", str(out), "--patients", "4", "--only", "phantom_us", "--json"],
    )
    assert json.loads(made.stdout)["datasets"] == ["phantom_us"]
    words = ["data", "build", "--source", out / "catalogs", "--root", out / "data"]
    built = CliRunner().invoke(
        sammed.app, [*map(str, words), "--out", str(tmp_path / "corpus"), "--json"]
    )
    assert built.exit_code == 0
    assert json.loads(built.stdout)["counts"]["cases"]["found"] >= 4
