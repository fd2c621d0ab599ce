"""Several processes that learn as one: what they exchange, and what is exchanged.

``torchrun`` starts the processes and says in the environment who they are. Each reads its own share
of the corpus; gradients are added up, not averaged over processes, because each loss is already
divided by the number of masks of all processes: the step is that of one process with the joint
batch. Numbers of the host (counts, losses, the wish to stop) go through gloo, on a GPU too, so that
asking does not wait for the GPU.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from sammed_data.types import SammedError, UsageError

# Validation and the writing of a state lie between two exchanges; no answer for so long is a death.
_TIMEOUT = timedelta(minutes=20)
_BUCKET_NUMBERS = 8 << 20
_BUCKETS_IN_FLIGHT = 8


class ParallelError(SammedError, RuntimeError):
    """The other processes of a run do not answer, or do something else."""


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among those of its run; the methods are called by all of them, in one order.

    Attributes:
        rank: from 0; process 0 alone writes and reports.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each number summed over all processes."""
        return self.added(np.array(values, np.float64)).tolist()

    def added(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """An array summed over all processes, element by element."""
        if self.size == 1:
            return values
        together = torch.from_numpy(values.copy())
        with _answers(self):
            distributed.all_reduce(together)
        return together.numpy()

    def any(self, said: bool) -> bool:  # noqa: FBT001 - a vote
        """Whether any process says so."""
        return self.sums([said])[0] > 0

    def text(self, of_leader: str) -> str:
        """What process 0 says; the others' argument does not count."""
        if self.size == 1:
            return of_leader
        said = of_leader.encode() if self.leads else b""
        length = int(self.sums([len(said)])[0])
        codes = np.zeros(length)
        codes[: len(said)] = np.frombuffer(said, np.uint8)
        return self.added(codes).astype(np.uint8).tobytes().decode()

    def same(self, what: str, value: str) -> None:
        """Refuse processes that differ.

        Raises:
            UsageError: this process has another value than process 0.
        """
        first = self.text(value)
        differs = self.any(first != value)
        if differs:
            raise UsageError(
                f"expected the same {what} in all {self.size} processes, found {value!r} in "
                f"process {self.rank} and {first!r} in process 0: start all by one command, on "
                "machines that see the same files"
            )

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Process 0 goes first: what it makes is there for the others."""
        if not self.leads:
            self.sums([0])
        yield
        if self.leads:
            self.sums([0])

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Put the sum over all processes into each gradient.

        One that no process has stays None, as it does in one process with the joint batch.
        """
        if self.size == 1:
            return
        present = self.added(np.array([p.grad is not None for p in parameters], np.float64))
        meant = [p for p, n in zip(parameters, present, strict=True) if n]
        for parameter in meant:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        with _answers(self):
            _sum_in_buckets([p.grad for p in meant if p.grad is not None])

    def start_equal(self, model: nn.Module) -> None:
        """Give every process the weights and buffers of process 0."""
        if self.size == 1:
            return
        with torch.no_grad(), _answers(self):
            for value in (*model.parameters(), *model.buffers()):
                whole = value.detach().contiguous()
                distributed.broadcast(whole, src=0)
                value.copy_(whole)


ALONE = World()


def _sum_in_buckets(gradients: list[Tensor]) -> None:
    """Sum tensors over processes, several buckets under way at a time."""
    waiting: deque[tuple[distributed.Work, Tensor, list[Tensor]]] = deque()

    def finish() -> None:
        work, flat, members = waiting.popleft()
        work.wait()
        first = 0
        for member in members:
            member.copy_(flat[first : first + member.numel()].view_as(member))
            first += member.numel()

    for members in _buckets(gradients):
        flat = torch.cat([member.reshape(-1) for member in members])
        work = distributed.all_reduce(flat, async_op=True)
        waiting.append((work, flat, members))
        if len(waiting) == _BUCKETS_IN_FLIGHT:
            finish()
    while waiting:
        finish()


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET_NUMBERS:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def _answers(world: World) -> Iterator[None]:
    """Errors of the exchange as a sentence."""
    try:
        yield
    except RuntimeError as err:  # torch has no narrower one for gloo
        raise ParallelError(
            f"process {world.rank} of {world.size} lost the others: one has ended or did not "
            f"answer for {_TIMEOUT.seconds // 60} minutes; its own message says why. Start the "
            f"same command with --resume RUN to continue ({str(err).splitlines()[0]})"
        ) from err


def rank() -> int:
    """Which process of its run this is, before it has joined the others."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The processes that ``torchrun`` started, or this one alone.

    Args:
        device: as ``--device``; each process of a machine takes the GPU of its local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or distributed.is_initialized():
        yield ALONE if size == 1 else World(rank=rank(), size=size)
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    world = World(rank=rank(), size=size)
    with _answers(world):
        if cuda:
            torch.cuda.set_device(_local_gpu())
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_TIMEOUT)
    try:
        yield world
    finally:
        distributed.destroy_process_group()


def _local_gpu() -> int:
    """The GPU of this process.

    Raises:
        UsageError: more processes than GPUs on this machine.
    """
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= there:
        raise UsageError(
            f"expected a GPU for each process, found {there} for process {local} of this machine: "
            f"give torchrun --nproc-per-node {there}, or train with --device cpu"
        )
    return local
