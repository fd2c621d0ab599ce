"""Advice where a corpus is small for a method: printed, never enforced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sammed_model.optim import trainable

if TYPE_CHECKING:
    from sammed_model.config import Method
    from sammed_model.sam import SamModel

# A rule of thumb: ViT-B's adapters want some 1,800 patients, LoRA or a decoder alone some 40.
PARAMETERS_PER_PATIENT = 100_000
_LIGHTER: dict[str, str] = {
    "sam-med2d": "--method lora or --method ft-sam",
    "full": "--method lora or --method ft-sam",
    "lora": "--method ft-sam, or a smaller --lora-rank",
    "ft-sam": "--augment light and --patience 3",
}


def advice_on_size(n_patients: int, model: SamModel, method: Method) -> Iterator[str]:
    """A sentence if more learns than the patients can teach, by a rule of thumb.

    Args:
        n_patients: in the training rows.
        model: with its trainable parts chosen.
        method: that chose them.
    """
    learning = sum(p.numel() for p in trainable(model).values())
    if learning <= PARAMETERS_PER_PATIENT * n_patients:
        return
    yield (
        f"advice: {learning / 1e6:.1f} M parameters learn from {n_patients} "
        f"patient{'' if n_patients == 1 else 's'}, more than {PARAMETERS_PER_PATIENT // 1000} k "
        f"each: likely to learn them by heart; consider {_LIGHTER[method]}, and compare with "
        "the held-out patients of a lighter run"
    )
