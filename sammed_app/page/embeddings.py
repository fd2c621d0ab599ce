"""Slices that went through the encoder, shared by all tabs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from sammed_model.predictor import SammedPredictor


@dataclass(frozen=True, kw_only=True)
class EmbeddingKey:
    """What an embedding is of.

    Attributes:
        model: label.
        image: content of the image, see ``Opened.key``.
        window: policy and bounds in grey values.
    """

    model: str
    image: str
    axis: str
    index: int
    window: str


class Embeddings:
    """Predictors with their slice set, the least used dropped above a size.

    Args:
        most_bytes: of all embeddings together; the last one is kept whatever its size.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: OrderedDict[EmbeddingKey, tuple[SammedPredictor, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: EmbeddingKey) -> SammedPredictor | None:
        """The predictor of a slice, or None."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: EmbeddingKey, predictor: SammedPredictor) -> None:
        """Keep a predictor."""
        tensor = predictor.get_image_embedding()
        size = tensor.numel() * tensor.element_size()
        with self._lock:
            if key in self._held:
                self.bytes -= self._held.pop(key)[1]
            self._held[key] = (predictor, size)
            self.bytes += size
            while self.bytes > self._most and len(self._held) > 1:
                self.bytes -= self._held.popitem(last=False)[1][1]
