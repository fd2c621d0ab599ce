"""Build those shards that are not there yet, on this machine or on a Ray cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from sammed_data.engine import fail_point, run_tasks
from sammed_data.plan import ShardPlan
from sammed_data.pool import Failure
from sammed_data.publish import Batch, first_of
from sammed_data.readers import inflate
from sammed_data.rows import ShardTask
from sammed_data.staging import failure_of, forget_failure, is_done, note_failure
from sammed_data.stores import is_remote, shared_by_processes
from sammed_data.types import CorpusError
from sammed_data.work import Timed, build_shard, timed_shard


def _no_progress(done: int, total: int) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class How:
    """How shards are run; nothing here changes a byte of them.

    Attributes:
        workers: processes.
        engine: 'local' or 'ray'.
        timeout_s: a shard that takes longer counts as failed.
        retry_failed: only shards that failed before, each alone in a process of its own.
        progress: called with (finished shards, all shards).
        profile: called with the CPU seconds of every stage of a shard; None = not measured.
    """

    workers: int = 1
    engine: str = "local"
    timeout_s: float | None = None
    retry_failed: bool = False
    progress: Callable[[int, int], object] = _no_progress
    profile: Callable[[Mapping[str, float]], object] | None = None


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run of shards came to.

    Attributes:
        built: shards built now.
        reused: shards that were there before.
        failed: stem -> why it could not be built.
        left: shards that this run was not asked to build (``retry_failed``).
    """

    built: int
    reused: int
    failed: Mapping[str, str]
    left: int = 0

    def refuse_gaps(self, out: Path) -> None:
        """Nothing is published while a shard is missing.

        Raises:
            CorpusError: some failed, or were not asked for.
        """
        total = self.built + self.reused + len(self.failed) + self.left
        if self.failed:
            reasons = [f"{stem}: {reason}" for stem, reason in sorted(self.failed.items())]
            raise CorpusError(
                f"{len(self.failed)} of {total} shards failed, {first_of(reasons)}; the others are "
                f"kept: `sammed data status {quote(str(out))}` lists them, "
                f"{out}/.partial/SHARD.failed.json has the traceback, the same command with "
                f"--retry-failed tries them again, one at a time"
            )
        if self.left:
            raise CorpusError(
                f"{self.left} of {total} shards have not been built yet: run the same command "
                f"without --retry-failed"
            )


def run_shards(
    batch: Batch,
    shards: Sequence[ShardPlan],
    staging: Path,
    out: Path,
    strict: bool,  # noqa: FBT001 - of the order, not a mode of this function
    how: How,
) -> Ran:
    """Build what of ``shards`` is not done; a shard that fails is recorded, the others go on.

    Raises:
        InterruptedRun: a signal; finished shards stay.
        SammedError: under ``strict``, or the folder cannot be written.
    """
    todo = [s for s in shards if not is_done(s, staging, out, strict=strict)]
    done = len(shards) - len(todo)
    if how.retry_failed:
        todo = [s for s in todo if failure_of(s.stem, s.plan_hash, staging) is not None]
    left = len(shards) - done - len(todo)
    # The cases of the whole dataset are in its shards already.
    plans = {d.entry.id: replace(d, cases=(), unpaired=()) for d in batch.datasets}
    failed: dict[str, str] = {}

    def fail(task: ShardTask, failure: Failure) -> None:
        if task.dataset.secret is not None:  # an unforeseen message may quote a name
            failure = Failure(reason=failure.reason.split(":")[0])
        note_failure(staging, task.shard, failure)
        failed[task.shard.stem] = failure.reason

    with ExitStack() as held:
        scratch = None
        if is_remote(out):
            scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="sammed-")))
        tasks = [
            ShardTask(
                shard=shard,
                dataset=plans[shard.dataset],
                options=batch.options,
                staging=staging,
                strict=strict,
                scratch=scratch,
            )
            for shard in todo
        ]
        built = 0
        how.progress(done, len(shards))
        work: Callable[[ShardTask], str | Timed] = timed_shard if how.profile else build_shard
        for found in run_tasks(
            work,
            tasks,
            how.workers if shared_by_processes(out) and not how.retry_failed else 1,
            on_failure=fail,
            timeout_s=_limit(how, out),
            engine=how.engine,
        ):
            built += 1
            if how.profile is not None and isinstance(found, Timed):
                how.profile(found.seconds)
            forget_failure(found.stem if isinstance(found, Timed) else found, staging)
            how.progress(done + built, len(shards))
            fail_point("after_shard")
    inflate.forget()
    return Ran(built=built, reused=done, failed=failed, left=left)


def _limit(how: How, out: Path) -> float | None:
    """A time limit makes even one worker a process of its own, which a retry wants anyway."""
    if not shared_by_processes(out):
        return None
    return how.timeout_s or (float("inf") if how.retry_failed else None)
