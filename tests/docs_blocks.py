"""Fenced blocks, inline code and commands of the Markdown pages."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# A block that cannot run here says why, in a comment on the line above it.
_BLOCK = re.compile(
    r"^(?:[ ]*<!-- not run: (?P<why>[^\n]+?) -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^[ ]*```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_COMMENT = re.compile(r"(?:^|\s+)#\s.*$|\s{3,}\([^)]*\)$")
_ASSIGNMENT = re.compile(r"^[A-Z][A-Z0-9_]*=")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes:
        why_not: reason not to run it; empty = it runs.
    """

    page: Path
    line: int
    language: str
    body: str
    why_not: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A line of shell: assignments before it, words, a file that takes its output."""

    env: dict[str, str]
    words: tuple[str, ...]
    out: str | None = None

    @property
    def sammed(self) -> tuple[str, ...] | None:
        """The words after `sammed` or `-m sammed`; None = another command."""
        for n, word in enumerate(self.words):
            if word == "sammed" and (n == 0 or self.words[n - 1] == "-m"):
                return self.words[n + 1 :]
        return None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        width = len(match["indent"])
        body = "\n".join(line[width:] for line in match["body"].splitlines())
        found.append(
            Block(
                page=page,
                line=text[: match.start("indent")].count("\n") + 1,
                language=match["language"],
                body=body,
                why_not=match["why"] or "",
            )
        )
    return found


def inline_code(page: Path) -> list[str]:
    """Code between single backticks, outside of blocks."""
    return _INLINE.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))


def commands(body: str) -> list[Command]:
    """The commands of a bash block, without comments and here-documents."""
    lines = re.sub(r"\\\n\s*", " ", body).splitlines()
    found: list[Command] = []
    end = None  # of a here-document
    for line in lines:
        if end is not None:
            end = None if line.strip() == end else end
            continue
        here = re.search(r"<<\s*'?(\w+)'?", line)
        end = here[1] if here else None
        for part in re.split(r"\s+&&\s+", _COMMENT.sub("", line.strip())):
            if part:
                found.append(_command(part))
    return found


def _command(text: str) -> Command:
    words = shlex.split(text)
    env = {}
    while words and _ASSIGNMENT.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    out = None
    if ">" in words:
        place = words.index(">")
        out, words = words[place + 1], words[:place]
    return Command(env=env, words=tuple(words), out=out)
