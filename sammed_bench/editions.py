"""Two ways to feed models: each as its own weights want it, or all by one convention.

``native``: each model's own input size, channel order, mask feedback and choice among its masks,
as its weight file or model card says. ``as-released``: what SAM-Med2D's released evaluation does
with every model: 256 x 256, channels BGR, probabilities fed back, the mask of the highest predicted
IoU of three. Models of other families come with their own two methods and are always native.
"""

from __future__ import annotations

from sammed_data.types import UsageError, nearest
from sammed_model.frame import Preprocessing

NATIVE, AS_RELEASED = "native", "as-released"
EDITIONS = {
    NATIVE: "each model with its own input size, channel order, mask feedback and multimask rule",
    AS_RELEASED: "every SAM by one convention, that of the released evaluation: 256 px, BGR, "
    "probabilities as mask feedback, best of three masks",
}
RELEASED = Preprocessing.named("released", 256)


def parse_edition(text: str) -> str:
    """An edition by name.

    Raises:
        UsageError: unknown.
    """
    if text not in EDITIONS:
        raise UsageError(
            f"expected --edition {' or '.join(EDITIONS)}, found {text!r} "
            f"({nearest(text, EDITIONS)})"
        )
    return text


def caption(edition: str) -> str:
    """What a reader must know."""
    return f"Edition {edition}: {EDITIONS.get(edition, 'unknown')}."
