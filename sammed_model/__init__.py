"""Adapter SAM: models, prompts, training. ``from sammed_model import load_model``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sammed_model.checkpoint import load_model
    from sammed_model.predictor import SammedPredictor
    from sammed_model.torch_data import CorpusDataset, CorpusStream
    from sammed_model.torch_items import CorpusBatch, CorpusItem, collate

# What is for others -> its module.
_PUBLIC = {
    "load_model": "checkpoint",
    "SammedPredictor": "predictor",
    **dict.fromkeys(("CorpusDataset", "CorpusStream"), "torch_data"),
    **dict.fromkeys(("CorpusBatch", "CorpusItem", "collate"), "torch_items"),
}
__all__ = [
    "CorpusBatch",
    "CorpusDataset",
    "CorpusItem",
    "CorpusStream",
    "SammedPredictor",
    "collate",
    "load_model",
]


def __getattr__(name: str) -> Any:
    """A public name, whose import brings torch, on first use: `sammed --help` needs none."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
