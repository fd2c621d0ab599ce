"""What the tests of the page share: a served page, a browser that watches, a phantom world.

``pages`` opens pages that fail their test on any console error, any error in a script and any
request to another host. Without chromium or playwright the tests are skipped with a reason.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sammed_app.page.settings import PageSettings

SIZE = {"width": 1280, "height": 800}


@dataclass(frozen=True, kw_only=True)
class World:
    """Phantoms, their corpus, a benchmark of two models with kept predictions, and the weights."""

    root: Path
    corpus: Path
    results: Path
    weights: Path


def make_world(root: Path) -> World:
    """Two phantoms, a corpus, and the shipped small weights beside a changed copy."""
    from sammed_bench.bench import BenchConfig, bench
    from sammed_bench.choose import Wanted
    from sammed_bench.report import write_report
    from sammed_data.build import build
    from sammed_data.phantom import write_phantoms
    from sammed_model.setup import SHIPPED

    weights = SHIPPED / "vit_tiny_scenes.safetensors"
    write_phantoms(root, n_patients=4, seed=0, only=["phantom_ct", "phantom_derm"])
    build(root / "catalogs", root / "data", root / "corpus")
    wanted = [
        Wanted(label="first", path=weights, kind="sam"),
        Wanted(label="second", path=_another(weights, root / "second.safetensors")),
    ]
    config = BenchConfig(modes=("bbox", "3pt"), limit=3, threads=1, keep_predictions=True)
    scored = bench(root / "corpus", wanted, config, out=root / "results" / "001")
    write_report(scored.out)
    return World(root=root, corpus=root / "corpus", results=scored.out, weights=weights)


def _another(weights: Path, path: Path) -> Path:
    """A model of its own: the decoder's hypernetworks a little louder."""
    from sammed_model.checkpoint import load_model, save_model

    model = load_model(weights, device="cpu")
    for name, value in model.named_parameters():
        if "output_hypernetworks" in name:
            value.data.mul_(1.05)
    save_model(model, path)
    return path


def free_port() -> int:
    """A loopback port that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(settings: PageSettings):
    """The address of a page served from a thread of this process."""
    from sammed_app.page.server import server_of

    server = server_of(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > until:
            raise TimeoutError("the page did not start within 20 s")
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{settings.port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@contextmanager
def watched(browser, base: str):
    """A page in a context of its own, and the check that it stayed clean and at home."""
    context = browser.new_context(viewport=SIZE)
    faults: list[str] = []

    def asked(request):
        if not request.url.startswith((base, "blob:", "data:")):
            faults.append(f"a request to {request.url}")

    def heard(message):
        if message.type == "error":
            faults.append(f"console: {message.text}")

    context.on("request", asked)
    context.on("console", heard)
    context.on("weberror", lambda error: faults.append(f"script: {error.error}"))
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()
    assert faults == []


def until(page, script: str, seconds: float = 15.0) -> None:
    """Wait until a script is true; playwright's own waiting needs `eval`, which is forbidden."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"() => {{ try {{ return !!({script}) }} catch {{ return false }} }}"):
        assert time.monotonic() < end, f"not within {seconds} s: {script}"
        time.sleep(0.03)
