"""Shared fixtures: the samples folder (absent on a user's machine), a browser, the slow switch."""

from __future__ import annotations

import locale
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# One thread a test process: the suite runs in two processes on two cores.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# The library of weights of whoever runs the tests has no say in them.
os.environ["SAMMED_WEIGHTS"] = str(Path(__file__).parent / "no-weights")

# A deadline by the wall would fail on a busy machine for no fault of the code.
settings.register_profile("sammed", deadline=None)
settings.load_profile("sammed")

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--runslow") or os.environ.get("SAMMED_SLOW"):
        return
    skip = pytest.mark.skip(reason="slow: run with --runslow or SAMMED_SLOW=1")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _locale_stays():
    """GDCM, by which SimpleITK writes DICOM, leaves the process in the locale C."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real sample images; skips where it is absent."""
    if not SAMPLES.is_dir():
        pytest.skip(f"real sample images are not at {SAMPLES}")
    return SAMPLES


@pytest.fixture(scope="session")
def chrome():
    """A headless browser, one a process (two at once do not go together); or a skip, and why."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
