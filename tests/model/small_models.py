"""A tiny SAM made ready for a method, for tests of training."""

from __future__ import annotations

from sammed_model.adapters import add_adapters, train_only
from sammed_model.lora import add_lora
from sammed_model.sam import SamModel, build_sam, spec_for


def small(method: str, image_size: int = 64) -> SamModel:
    """``vit_tiny`` from random numbers with the parts of ``method``."""
    model = build_sam(spec_for("vit_tiny", image_size=image_size), seed=1)
    if method == "sam-med2d":
        add_adapters(model)
    if method == "lora":
        add_lora(model, rank=2, alpha=4.0)
    train_only(model, method)
    return model
