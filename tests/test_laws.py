"""The house's laws that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A room may import itself and the rooms below it.
ROOMS = ["sammed_data", "sammed_model", "sammed_bench", "sammed_app"]
HEAVY = [
    "torch",
    "pandas",
    "datasets",
    "SimpleITK",
    "matplotlib",
    "ray",
    "nibabel",
    "pydicom",
    "fastapi",
]
# A GPU machine need not have these: training and benchmark read the corpus through pyarrow.
NOT_ON_GPU = ["SimpleITK", "nibabel", "pydicom", "highdicom", "datasets", "pydantic"]


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room):
    above = set(ROOMS[ROOMS.index(room) + 1 :]) | {"sammed"}
    wrong = {
        str(path.relative_to(ROOT)): sorted(_imports(path) & above)
        for path in (ROOT / room).rglob("*.py")
        if _imports(path) & above
    }
    assert not wrong


def test_data_room_knows_nothing_of_torch():
    for path in (ROOT / "sammed_data").rglob("*.py"):
        assert "torch" not in _imports(path), path


def _loaded(code: str, watched: list[str]) -> list[str]:
    probe = f"import sys\n{code}\nprint([m for m in {watched!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return ast.literal_eval(run.stdout.strip().splitlines()[-1])


def test_help_loads_no_heavy_library():
    code = (
        "import sammed\nfrom typer.testing import CliRunner\n"
        "assert CliRunner().invoke(sammed.app, ['--help']).exit_code == 0"
    )
    assert _loaded(code, HEAVY) == []


def test_train_and_bench_need_no_data_libraries():
    code = (
        "import sammed_data.corpus, sammed_model.train, sammed_model.predictor\n"
        "import sammed_bench.run, sammed_bench.statistics, sammed_bench.tables"
    )
    assert _loaded(code, NOT_ON_GPU) == []


def test_no_global_random_state():
    """No module draws from a process-wide stream; seeds derive from ids."""
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert "random" not in {
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.Import)
                for alias in node.names
            }, path
