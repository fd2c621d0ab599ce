"""Batches on their device one ahead: the next is made and copied while this one is learned from."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import torch

from sammed_model.dataset import Batch

Copied = tuple[Batch, "torch.cuda.Event | None"]


def on_device(
    batches: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    """The same batches in the same order on a device; closes the source when it is closed.

    Copies to a GPU run on a stream of their own; pinned batches (see ``feed.Loader``) are copied
    without the CPU. On the CPU there is nothing to copy, and the loader's threads look ahead.
    """
    if device.type == "cpu":
        return batches
    return one_ahead(batches, _copier(device))


def one_ahead(
    batches: Generator[Batch, None, None], copied: Callable[[Batch], Copied]
) -> Generator[Batch, None, None]:
    """Batches through ``copied``, which runs in a thread, one batch ahead of the caller."""

    def fetch() -> Copied | None:
        batch = next(batches, None)
        return None if batch is None else copied(batch)

    try:
        with ThreadPoolExecutor(1, thread_name_prefix="copier") as thread:
            coming = thread.submit(fetch)
            while (found := coming.result()) is not None:
                coming = thread.submit(fetch)
                yield _handed_over(*found)
    finally:
        batches.close()


def _copier(device: torch.device) -> Callable[[Batch], Copied]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copied(batch: Batch) -> Copied:
        with torch.cuda.stream(stream):
            return batch.to(device), stream.record_event()

    return copied


def _handed_over(batch: Batch, ready: torch.cuda.Event | None) -> Batch:
    """The caller's stream waits for the copy, and its memory is not given away before use ends."""
    if ready is not None:
        stream = torch.cuda.current_stream(batch.images_B3SS.device)
        stream.wait_event(ready)
        for value in batch.large.values():
            value.record_stream(stream)
    return batch
