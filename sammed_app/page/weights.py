"""The models that may be asked on the page: loaded when first wanted, a few kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from sammed_app.predict.run import load_predictor
from sammed_bench.choose import Wanted
from sammed_data.types import ModelError, UsageError, nearest
from sammed_model.predictor import SammedPredictor
from sammed_model.sam import SamModel
from sammed_model.tensorfile import read_metadata

_KEPT = 2


class Weights:
    """Weight files by label.

    Args:
        wanted: those of the command line; models without a file are left out.
        load: how a file becomes a predictor.
    """

    def __init__(
        self,
        wanted: Sequence[Wanted],
        load: Callable[[Path, str | None], SammedPredictor] = load_predictor,
    ) -> None:
        self._wanted = {w.label: (w.path, w.kind) for w in wanted if w.path is not None}
        self._load = load
        self._kept: OrderedDict[str, SamModel] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def labels(self) -> list[str]:
        """What may be chosen; the first is the default."""
        return list(self._wanted)

    def policy(self, label: str) -> str:
        """The intensity policy that a model was trained with."""
        path, _ = self._place(label)
        if path.is_dir() or not path.is_file():
            return "auto"
        return read_metadata(path).get("intensity_policy", "auto")

    def model(self, label: str) -> SamModel:
        """A model, loaded if it is not there.

        Raises:
            UsageError: unknown label.
            ModelError: it cannot be loaded.
        """
        path, kind = self._place(label)
        with self._lock:
            if label not in self._kept:
                self._kept[label] = self._load(path, kind).model
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(label)
            return self._kept[label]

    def _place(self, label: str) -> tuple[Path, str | None]:
        if not self._wanted:
            raise ModelError(
                "expected weights to ask, found none: train (`sammed train`), or start the page "
                "with --model LABEL=PATH[:KIND]"
            )
        if label not in self._wanted:
            raise UsageError(f"unknown model {label[:80]!r}: {nearest(label, self._wanted)}")
        return self._wanted[label]
