from __future__ import annotations

import time

from sammed_data.stages import FLOOR, REST, profile_lines, stage, watch
from tests.data import build_fakes as fakes


def _burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@stage("inner")
def _inner():
    _burn(0.02)


@stage("outer")
def _outer():
    _burn(0.01)
    _inner()


def test_a_stage_excludes_those_inside_it():
    began = time.process_time()
    with watch() as seconds:
        _burn(0.01)
        _outer()
    spent = time.process_time() - began
    assert 0.01 <= seconds["outer"] < 0.02 <= seconds["inner"]
    assert seconds[REST] >= 0.01
    assert sum(seconds.values()) <= spent
    _outer()
    assert seconds["inner"] < 0.035  # nobody measures any more


def test_the_profile_states_the_ratio():
    lines = profile_lines(dict.fromkeys(FLOOR, 0.5) | {"Parquet": 1.0})
    assert lines[-1].endswith("3.000 s, 1.50 x the floor, CPU time")
    assert profile_lines({}) == ["profile: no shard was built, so nothing was measured"]


def test_build_profile_prints_every_stage(tmp_path):
    fakes.write_source(tmp_path / "data", n=2)
    catalogs = fakes.write_catalog(tmp_path / "catalogs")
    line = ["data", "build", "--source", catalogs, "--root", tmp_path / "data", "--out",
            tmp_path / "corpus", "--workers", 1, "--profile"]  # fmt: skip
    run = fakes.call_cli(*line)
    assert run.returncode == 0, run.stderr
    for name in (*FLOOR, "components", "Parquet", "content digest"):
        assert f"\n{name} " in run.stdout
    assert "x the floor" in run.stdout
    assert "nothing was measured" in fakes.call_cli(*line).stdout
