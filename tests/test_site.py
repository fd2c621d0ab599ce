"""The web site of docs/: it builds without a warning, and its API pages say something."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What each page of the API must describe.
API = {"data": "Corpus", "model": "load_model", "bench": "BenchConfig"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for module in ("mkdocs", "material", "mkdocstrings"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'sammed[docs]'")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_there(site):
    for page in (ROOT / "docs").glob("*.md"):
        folder = site if page.stem == "index" else site / page.stem
        assert (folder / "index.html").is_file()


@pytest.mark.parametrize("area", API)
def test_the_api_comes_from_the_docstrings(site, area):
    text = (site / "api" / area / "index.html").read_text(encoding="utf-8")
    assert f">{API[area]}<" in text.replace("</span>", "<")
    assert text.count("doc-object") > 5
    assert "Parameters:" in text or "Attributes:" in text


def test_the_site_loads_nothing_from_elsewhere(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r"<(?:script|img)[^>]+src=\"([^\"]+)\"", text)
    loaded += re.findall(r"<link[^>]+rel=\"stylesheet\"[^>]+href=\"([^\"]+)\"", text)
    assert loaded
    assert [address for address in loaded if re.match(r"https?:|//", address)] == []
