"""Embeddings of images while training: with a graph if the encoder learns, else made once and kept.

A frozen encoder's embeddings may also be kept in a folder, for later epochs, runs and validations:
``<folder>/<digest of encoder, preprocessing and precision>/<xx>/<digest of the prepared image>``.
The digests are of what is computed from, so a changed image, weight or convention is another file.
A file is written under another name and renamed, and carries a checksum: one that a crash or a full
disk left incomplete is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sammed_data.types import UsageError
from sammed_model.config import TrainConfig
from sammed_model.dataset import Batch
from sammed_model.sam import SamModel

_CHECKSUM_BYTES = 4
_ABANDONED_S = 3600.0


def precision_of(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where asked; weights and losses stay float32."""
    if config.precision == "bf16":
        # Casts are not kept: a step between two passes would leave them stale.
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    return nullcontext()


class EmbeddingFolder:
    """Embeddings of one encoder on disk, up to a number of bytes.

    Args:
        root: folder, shared by encoders.
        model: whose encoder and preprocessing are meant.
        precision: in which it is computed.
        limit_bytes: for all encoders together; when it is reached nothing more is written.
        writers: processes that fill it; each takes its part of what is left.

    Raises:
        UsageError: the folder cannot be made.
    """

    def __init__(
        self, root: Path, model: SamModel, precision: str, limit_bytes: int, writers: int = 1
    ) -> None:
        spec = model.spec
        self._shape = (spec.out_chans, spec.embedding_size, spec.embedding_size)
        self.folder = root / _encoder_digest(model, precision)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise UsageError(
                f"expected to keep embeddings under {root}, found {err.strerror}: give another "
                "--cache-embeddings"
            ) from err
        self._room = (limit_bytes - _used(root)) // writers

    def get(self, key: str) -> Tensor | None:
        """(C, h, w) float32, or None if it is not there complete."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        body, said = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if len(body) != 4 * int(np.prod(self._shape)) or _checksum(body) != said:
            return None
        return torch.from_numpy(np.frombuffer(bytearray(body), "<f4").reshape(self._shape))

    def put(self, key: str, embedding_Chw: Tensor) -> None:
        """Keep one, if there is room."""
        body = embedding_Chw.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes()
        if len(body) + _CHECKSUM_BYTES > self._room:
            return
        path = self._path(key)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            partial.write_bytes(body + _checksum(body))
            partial.replace(path)
        except OSError:  # a full disk costs time, not the run
            self._room = 0
            partial.unlink(missing_ok=True)
            return
        self._room -= len(body) + _CHECKSUM_BYTES

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little")


def _used(root: Path) -> int:
    """Bytes under a folder; what a killed run left half written is removed."""
    used = 0
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        found = path.stat()
        if path.suffix == ".partial" and time.time() - found.st_mtime > _ABANDONED_S:
            path.unlink(missing_ok=True)
        else:
            used += found.st_size
    return used


def _encoder_digest(model: SamModel, precision: str) -> str:
    digest = hashlib.sha256()
    about = model.preprocessing.to_dict() | {"precision": precision, "fast": str(model.fast)}
    digest.update(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(model.image_encoder.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _content(image_3SS: Tensor) -> str:
    return hashlib.sha256(image_3SS.cpu().contiguous().numpy().data).hexdigest()


class Embedder:
    """What the decoder of a run works on.

    Args:
        model: whose ``requires_grad`` flags are already set.
        cache_bytes: embeddings kept in memory up to this size.
        folder: where they are kept too.
    """

    def __init__(
        self, model: SamModel, cache_bytes: int, folder: EmbeddingFolder | None = None
    ) -> None:
        self.model = model
        self.learns = any(p.requires_grad for p in model.image_encoder.parameters())
        self._room = cache_bytes
        self._folder = folder
        self._cache: dict[str, Tensor] = {}
        self.encoded = 0  # images that went through the encoder

    def __call__(self, batch: Batch) -> Tensor:
        """(B, C, h, w) embeddings of the batch's images."""
        if self.learns:
            self.encoded += len(batch.keys)
            return self.model.encode(batch.images_B3SS)
        return self.embed(batch.images_B3SS, batch.keys)

    @torch.no_grad()
    def embed(self, images_B3SS: Tensor, keys: tuple[str, ...]) -> Tensor:
        """Embeddings without a graph; found again by ``keys`` and by what the images hold."""
        missing = [i for i, key in enumerate(keys) if key not in self._cache]
        contents = {}
        fresh: dict[str, Tensor] = {}
        if self._folder is not None:
            contents = {i: _content(images_B3SS[i]) for i in missing}
            for i in missing:
                found = self._folder.get(contents[i])
                if found is not None:
                    fresh[keys[i]] = found.to(images_B3SS.device)
            missing = [i for i in missing if keys[i] not in fresh]
        # One image at a time on the CPU: the last bits must not depend on its company, or a
        # resumed run, which starts with an empty cache, would differ.
        chunk = 1 if images_B3SS.device.type == "cpu" else max(1, len(missing))
        for first in range(0, len(missing), chunk):
            index = missing[first : first + chunk]
            made = self.model.encode(images_B3SS[index]).float()
            self.encoded += len(index)
            for i, embedding in zip(index, made.unbind(), strict=True):
                fresh[keys[i]] = embedding
                if self._folder is not None:
                    self._folder.put(contents[i], embedding)
        together = torch.stack([fresh.get(k, self._cache.get(k)) for k in keys])  # type: ignore[misc]
        for key, value in fresh.items():
            size = value.numel() * value.element_size()
            if size <= self._room:
                self._room -= size
                self._cache[key] = value.clone()
        return together
