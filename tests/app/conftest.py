"""Fixtures of the page: one phantom world a process, a server a test module (browser: tests/)."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from browser import World, free_port, make_world, serving, watched

from sammed_app.page.settings import PageSettings


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def settings(world, tmp_path) -> PageSettings:
    """Of a page over the phantom world; flags go to a list of their own."""
    from sammed_bench.choose import Wanted

    return PageSettings(
        corpus=world.corpus,
        results=world.results,
        models=(Wanted(label="first", path=world.weights, kind="sam"),),
        exclude=tmp_path / "exclude.csv",
        port=free_port(),
    )


@pytest.fixture
def open_page(chrome):
    """``open_page(settings)`` -> (page, address); more than one page may be opened."""
    with ExitStack() as stack:

        def opened(settings: PageSettings):
            base = stack.enter_context(serving(settings))
            return stack.enter_context(watched(chrome, base)), base

        yield opened
