"""The Ray engine: the same bytes, also where a node is lost; a sentence where there is no Ray."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sammed_data.build import Order, build_order
from sammed_data.run_shards import How
from sammed_data.types import UsageError
from tests.data import build_fakes as fakes


def _source(tmp_path, count):
    names = [f"d{i}_mr" for i in range(count)]
    for name in names:
        fakes.write_source(tmp_path / "data", n=4, name=name)
    return fakes.write_catalog(tmp_path / "cat", *map(fakes.entry_dict, names)), tmp_path / "data"


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    source, root = _source(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"sammed\[ray\].*--part"):
        build_order(Order(source=source, root=root), tmp_path / "c", How(engine="ray"))


def test_an_unknown_engine_names_the_known(tmp_path):
    source, root = _source(tmp_path, 1)
    with pytest.raises(UsageError, match="did you mean 'ray'"):
        build_order(Order(source=source, root=root), tmp_path / "c", How(engine="rey"))
    how = How(engine="ray", timeout_s=5)
    with pytest.raises(UsageError, match="--shard-timeout"):
        build_order(Order(source=source, root=root), tmp_path / "c", how)


@pytest.mark.slow
def test_a_node_killed_in_the_middle_changes_no_byte(tmp_path):
    pytest.importorskip("ray", reason="the extra sammed[ray] is not installed")
    source, root = _source(tmp_path, 6)
    script = fakes.REPO / "benchmarks/ray_kill.py"
    run = subprocess.run(
        [sys.executable, script, root, "--source", source, "--kills", "1"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 builds differ" in run.stdout
