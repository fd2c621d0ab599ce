"""Adapter SAM: models, prompts, training. ``from sammed_model import load_model``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sammed_model.checkpoint import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """``load_model``, whose import brings torch, on first use: `sammed --help` needs none."""
    if name != "load_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sammed_model.checkpoint import load_model

    return load_model
