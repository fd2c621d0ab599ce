"""``--part i/N``: which share of the shards a machine builds, said by hand or by the scheduler."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sammed_data.plan import ShardPlan
from sammed_data.types import UsageError

_FORMS = "--part is i/N with 0 <= i < N, 'auto' or 'auto/N'"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Share ``index`` of ``count``, from 0."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_part(text: str, environment: Mapping[str, str]) -> Part:
    """``i/N``, or ``auto`` / ``auto/N`` from a SLURM array or a Kubernetes Indexed Job.

    Raises:
        UsageError: another form, a number out of range, or ``auto`` where no scheduler speaks.
    """
    found = re.fullmatch(r"(\d+|auto)(?:/([1-9]\d*))?", text.strip())
    if found is None or (found[1] != "auto" and found[2] is None):
        raise UsageError(f"{_FORMS}, not {text!r}")
    count = int(found[2]) if found[2] else None
    if found[1] != "auto":
        return _checked(int(found[1]), int(found[2]), text)
    if "SLURM_ARRAY_TASK_ID" in environment:
        return _slurm(count, environment)
    if "JOB_COMPLETION_INDEX" in environment:
        said = count or _number("JOB_COMPLETIONS", environment)
        if said is None:
            raise UsageError(
                "--part auto in a Kubernetes Indexed Job needs the number of parts, which "
                "Kubernetes does not tell: write auto/N, or set JOB_COMPLETIONS to `completions`"
            )
        return _checked(_number("JOB_COMPLETION_INDEX", environment) or 0, said, text)
    raise UsageError(
        "--part auto found neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX: run it in a "
        "SLURM array or a Kubernetes Indexed Job, or write --part i/N"
    )


def _slurm(count: int | None, environment: Mapping[str, str]) -> Part:
    task = _number("SLURM_ARRAY_TASK_ID", environment) or 0
    first = _number("SLURM_ARRAY_TASK_MIN", environment) or 0
    step = _number("SLURM_ARRAY_TASK_STEP", environment) or 1
    tasks = _number("SLURM_ARRAY_TASK_COUNT", environment)
    if tasks is None and count is None:
        raise UsageError("--part auto found no SLURM_ARRAY_TASK_COUNT: write auto/N")
    if count is None or count == tasks:
        return _checked((task - first) // step, tasks or 1, f"auto (task {task})")
    # Some tasks of an array sent again (`--array=3,7` of 0-39): its own numbers count from 0.
    return _checked(task, count, f"auto/{count} (task {task}, in an array of {tasks})")


def _number(name: str, environment: Mapping[str, str]) -> int | None:
    said = environment.get(name)
    if said is None:
        return None
    if not said.isdecimal():
        raise UsageError(f"expected a number in ${name}, found {said!r}")
    return int(said)


def _checked(index: int, count: int, said: str) -> Part:
    if not 0 <= index < count:
        raise UsageError(f"{_FORMS}: {said} gives part {index} of {count}")
    return Part(index=index, count=count)


def shares(shards: Sequence[ShardPlan], count: int) -> list[list[ShardPlan]]:
    """The shards of every part, balanced by source bytes; the same on every machine.

    Largest first, each to the part that has least so far; inside a part the order of the plan.
    """
    part_of: dict[str, int] = {}
    load = [(0, index) for index in range(count)]
    for shard in sorted(shards, key=lambda s: (-s.source_bytes, s.stem)):
        held, index = load[0]
        part_of[shard.stem] = index
        heapq.heapreplace(load, (held + shard.source_bytes + 1, index))
    parts: list[list[ShardPlan]] = [[] for _ in range(count)]
    for shard in shards:
        parts[part_of[shard.stem]].append(shard)
    return parts
