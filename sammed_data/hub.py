"""A corpus to the Hugging Face Hub: shards first, the manifest last, nothing sent twice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

from sammed_data.hub_plan import HubFile, PushPlan
from sammed_data.types import CorpusError, FetchError, UsageError

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES_TOGETHER, _BYTES_TOGETHER = 64, 4 << 30
_BLOCK = 1 << 20


class Hub(Protocol):
    """What is asked of ``huggingface_hub.HfApi``."""

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        """Make the repository, or find it."""

    def list_repo_tree(self, repo_id: str, **options: Any) -> Any:
        """What lies there."""

    def create_commit(self, repo_id: str, operations: Any, **options: Any) -> Any:
        """Add files."""


def check_repo(repo_id: str) -> None:
    """Refuse what cannot be a repository.

    Raises:
        UsageError: not OWNER/NAME.
    """
    if not _REPO.fullmatch(repo_id) or ".." in repo_id:
        raise UsageError(f"expected a repository as OWNER/NAME, found {repo_id!r}")


def open_hub(token: str | None) -> Hub:
    """The Hub, with the token of the environment; none is looked for elsewhere.

    Raises:
        UsageError: no token.
    """
    if not token:
        raise UsageError(
            "expected a token of the Hub in $HF_TOKEN, found none: make one with write access at "
            "https://huggingface.co/settings/tokens and export it; --dry-run needs none"
        )
    from huggingface_hub import HfApi

    return cast(Hub, HfApi(token=token))


def push(
    plan: PushPlan,
    repo_id: str,
    hub: Hub,
    *,
    private: bool = False,
    leave_out: bool = False,
    tell: Callable[[HubFile, bool], None] = lambda file, new: None,
) -> int:
    """Upload what may be; files that lie there already are left, the manifest is the last.

    Args:
        plan: of ``plan_push``.
        repo_id: OWNER/NAME of a dataset repository, made if needed.
        hub: where to.
        private: of a repository that is made.
        leave_out: push the datasets that may be although others may not.
        tell: gets each file, and whether it was uploaded now.

    Returns:
        Bytes that were uploaded.

    Raises:
        CorpusError: a dataset may not be pushed, or nothing is left.
        FetchError: the Hub refused it, or cannot be reached.
    """
    check_repo(repo_id)
    refuse(plan, leave_out=leave_out)
    sent = 0
    with _in_words(repo_id):
        hub.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        there = _there(hub, repo_id)
        for number, group in enumerate(_groups(plan.files), 1):
            new = [file for file in group if there.get(file.path) != _sha256(file)]
            if new:
                hub.create_commit(
                    repo_id,
                    [_operation(file) for file in new],
                    commit_message=f"sammed corpus {plan.content_sha256[:12]}, part {number}",
                    repo_type="dataset",
                )
            sent += sum(file.bytes for file in new)
            for file in group:
                tell(file, file in new)
    return sent


@contextmanager
def _in_words(repo_id: str) -> Iterator[None]:
    """What the Hub or the line to it says, as a sentence.

    Raises:
        FetchError: it said no, or nothing.
    """
    from huggingface_hub.errors import HfHubHTTPError

    # The client's own base (httpx or requests, by version) covers a dead line too.
    failures: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)
    try:
        yield
    except failures as err:
        said = next(iter(str(err).strip().splitlines()), type(err).__name__)
        raise FetchError(
            f"expected the Hub to take the corpus as {repo_id}, found: {said}; mend it (token, "
            "name, line) and run the same command again: shards that are there are not sent twice"
        ) from err


def refuse(plan: PushPlan, *, leave_out: bool) -> None:
    """Refuse a push with datasets that may not be passed on.

    Raises:
        CorpusError: there are some, or nothing is left.
    """
    if plan.refused and not (leave_out and plan.files):
        words = "; ".join(f"{each.dataset}: {each.refused}" for each in plan.refused)
        hint = "" if not plan.files else "; --leave-out pushes the others"
        raise CorpusError(f"expected a corpus that may be passed on, found {words}{hint}")


def _there(hub: Hub, repo_id: str) -> dict[str, str]:
    """Path -> SHA-256 of the large files that the repository has."""
    found = {}
    for item in hub.list_repo_tree(repo_id, repo_type="dataset", recursive=True):
        large = getattr(item, "lfs", None)
        if large is not None:
            found[str(item.path)] = str(
                large["sha256"] if isinstance(large, dict) else large.sha256
            )
    return found


def _groups(files: Sequence[HubFile]) -> Iterator[list[HubFile]]:
    """Files that are committed together; what makes it a corpus is a group of its own."""
    group: list[HubFile] = []
    for file in files:
        size = sum(f.bytes for f in group)
        made = isinstance(file.source, str)
        apart = bool(group) and made and not isinstance(group[-1].source, str)
        if group and (apart or len(group) == _FILES_TOGETHER or size > _BYTES_TOGETHER):
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _sha256(file: HubFile) -> str:
    if isinstance(file.source, str):
        return hashlib.sha256(file.source.encode()).hexdigest()
    digest = hashlib.sha256()
    with file.source.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _operation(file: HubFile) -> Any:
    from huggingface_hub import CommitOperationAdd

    data = file.source.encode() if isinstance(file.source, str) else str(file.source)
    return CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=data)
