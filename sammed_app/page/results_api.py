"""Routes of the results view."""

from __future__ import annotations

from fastapi import APIRouter

from sammed_app.page.library import Library
from sammed_app.page.settings import PageSettings


def router(settings: PageSettings, library: Library) -> APIRouter:
    """The routes over one results folder."""
    return APIRouter()
