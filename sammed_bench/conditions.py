"""Everything but the model that a score depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from sammed_bench import metrics
from sammed_bench.editions import NATIVE
from sammed_bench.metric_cards import ALWAYS
from sammed_bench.openings import needed
from sammed_bench.protocols import SAM_MED2D, Protocol
from sammed_bench.surface import TOLERANCE

# What is not written where it has its usual value: results made before it came stay the same.
_LATER: dict[str, Any] = {
    "edition": NATIVE,
    "datasets": [],
    "timeout": None,
    "suite": "",
    "suite_sha256": "",
}


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Everything but the model that a score depends on.

    Attributes:
        corpus_sha256: content hash of the corpus.
        splits: which of its splits.
        modes: prompt modes.
        limit: only the first so many images, for a quick look; None = all.
        metrics: what is measured.
        tolerance: of the normalised surface Dice, in mm, or px where the spacing is unknown.
        edition: ``native`` or ``as-released``, how models are fed (``editions``).
        datasets: only these; empty = all of the corpus.
        timeout: seconds that a model may take for one image; None = as long as it wants.
        suite: name of the suite that says all this, and its digest; empty = none.
    """

    corpus_sha256: str
    splits: tuple[str, ...]
    modes: tuple[str, ...]
    protocol: Protocol = SAM_MED2D
    seed: int = 0
    limit: int | None = None
    metrics: tuple[str, ...] = ALWAYS
    tolerance: float = TOLERANCE
    edition: str = NATIVE
    datasets: tuple[str, ...] = ()
    timeout: float | None = None
    suite: str = ""
    suite_sha256: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the hash of the protocol; what came later only where it says something."""
        found = asdict(self) | {"splits": list(self.splits), "modes": list(self.modes)}
        found |= {"metrics": list(self.metrics), "protocol": self.protocol.as_dict()}
        found["datasets"] = list(self.datasets)
        for name, usual in _LATER.items():
            if found[name] == usual:
                del found[name]
        return found | {"protocol_hash": self.protocol.hash, "metrics_version": metrics.VERSION}

    def prompts_digest(self) -> str:
        """Names everything that the prompts of the first round depend on."""
        about: list[Any] = [
            self.corpus_sha256,
            self.splits,
            self.limit,
            self.protocol.hash,
            self.seed,
        ]
        about += [list(self.datasets)] if self.datasets else []
        text = json.dumps([*about, needed(self.protocol, self.modes)])
        return hashlib.sha256(text.encode()).hexdigest()[:12]
