"""README and docs: every command exists, every block runs or says why it does not."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from docs_blocks import PAGES, ROOT, Block, Command, blocks, commands, inline_code
from typer.testing import CliRunner

import sammed

BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [b for b in BLOCKS if b.language == "bash"]
# A test has seconds where a reader has minutes: the same command, shorter.
SHORTER = {
    "train": ("--steps", "2", "--validation-images", "4", "--passes", "2", "--batch", "2"),
    "bench": ("--limit", "2"),
    "demo": ("--quick",),
}
# Pages also speak of options of benchmarks/ and of the tests.
_ARGUMENT = re.compile(r"add_?(?:option|argument)\(\s*\"(--[a-z-]+)")
OF_SCRIPTS = {
    option
    for script in [*(ROOT / "benchmarks").glob("*.py"), ROOT / "tests" / "conftest.py"]
    for option in _ARGUMENT.findall(script.read_text(encoding="utf-8"))
}
GROUP = typer.main.get_command(sammed.app)


def named(items):
    return {"argvalues": items, "ids": [b.name for b in items]}


def verb_of(words):
    """The command that the words after `sammed` name, and the words left for it."""
    found, rest = GROUP, list(words)
    while hasattr(found, "commands") and rest and rest[0] in found.commands:
        found = found.commands[rest.pop(0)]
    return found, rest


def options_of(command):
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {
        "--help",
        "-h",
        "--version",
        "--install-completion",
        "--show-completion",
    }


def wrong_in(words) -> str:
    """What is wrong with a call of `sammed`; empty = nothing that its help would tell."""
    verb, rest = verb_of(words)
    if hasattr(verb, "commands") and rest and not rest[0].startswith("-"):
        return f"no verb {rest[0]!r}"
    unknown = [
        w for w in rest if re.match(r"--?[a-z]", w) and w.split("=")[0] not in options_of(verb)
    ]
    return f"unknown options {unknown}" if unknown else ""


def test_every_page_has_blocks_with_a_language():
    assert [b.name for b in BLOCKS if not b.language] == []


@pytest.mark.parametrize("block", **named(SHELL))
def test_the_commands_of_a_block_exist(block: Block):
    calls = [c.sammed for c in commands(block.body) if c.sammed is not None]
    assert [f"{' '.join(c)}: {wrong_in(c)}" for c in calls if wrong_in(c)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_commands_and_options_in_the_text_exist(page: Path):
    wrong = []
    everywhere = {name for verb in all_verbs(GROUP) for name in options_of(verb)} | OF_SCRIPTS
    for code in inline_code(page):
        if code.startswith("sammed ") and not re.match(r"sammed [A-Z.]", code):
            words = re.sub(r"[\[\]|]", " ", code).split()[1:]
            if wrong_in(words):
                wrong.append(f"{code}: {wrong_in(words)}")
        elif re.match(r"--[a-z]", code) and code.split()[0].split("=")[0] not in everywhere:
            wrong.append(f"{code}: no verb has this option")
    assert wrong == []


def all_verbs(command):
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from all_verbs(each)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert [t for t in targets if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("block", **named([b for b in BLOCKS if b.language == "yaml"]))
def test_yaml_is_yaml(block: Block):
    assert list(yaml.safe_load_all(block.body))


def test_scripts_that_pages_call_exist():
    called = [
        (b.name, word)
        for b in SHELL
        for c in commands(b.body)
        for word in c.words[1:2]
        if c.words[0] == "python" and word.endswith(".py")
    ]
    assert [where for where in called if not (ROOT / where[1]).is_file()] == []
    assert called


EVIDENCE = [c for c in inline_code(ROOT / "docs" / "evidence.md") if re.match("pytest|python", c)]


@pytest.mark.parametrize("call", EVIDENCE)
def test_the_evidence_names_tests_and_scripts_that_exist(call: str):
    program, path, *rest = shlex.split(call)
    assert (ROOT / path).exists()
    if program == "pytest":
        wanted = rest[rest.index("-k") + 1].split(" or ") if "-k" in rest else [""]
        names = list(names_below(ROOT / path))
        assert [word for word in wanted if not any(word in name for name in names)] == []


def names_below(path: Path):
    """Names as `-k` sees them: file and function."""
    for file in sorted(path.rglob("test_*.py")) if path.is_dir() else [path]:
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            yield f"{file.name}::{name}".lower()


def test_the_jobs_for_kubernetes_call_what_exists():
    jobs = [j for b in BLOCKS if b.language == "yaml" for j in yaml.safe_load_all(b.body)]
    pods = [j["spec"]["template"]["spec"] for j in jobs if j.get("kind") == "Job"]
    assert len(pods) == 2
    for words in (p["containers"][0]["command"] + p["containers"][0]["args"] for p in pods):
        script = words[-1] if words[0] == "bash" else shlex.join(words)
        (call,) = [c.sammed for c in commands(script) if c.sammed is not None]
        assert wrong_in(call) == ""


# ---------------------------------------------------------------- run


@pytest.fixture(scope="session")
def demo_once(tmp_path_factory):
    """A folder as `sammed demo` leaves it, from a quick one."""
    folder = tmp_path_factory.mktemp("docs") / "demo"
    result = CliRunner().invoke(sammed.app, ["demo", "--dir", str(folder), "--quick", "-q"])
    assert result.exit_code == 0, result.exception
    return folder


@pytest.fixture
def demo_folder(demo_once, tmp_path, monkeypatch):
    """That folder for one page alone: what a page writes or withdraws, no other page sees."""
    monkeypatch.delenv("SAMMED_DATA", raising=False)
    monkeypatch.setenv("SAMMED_WEIGHTS", str(tmp_path / "weights"))
    return shutil.copytree(demo_once, tmp_path / "demo", copy_function=_copy)


def _copy(source, target):
    """Weights are never changed in place, so they are shared."""
    if source.endswith(".safetensors"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def run(command: Command, here: Path) -> Path:
    """Run one command in a folder; gives the folder of the next one."""
    if command.words[0] == "cd":
        there = (here / command.words[1]).resolve()
        # `cd demo` leads to where a reader's demo lies: here.
        return there if there.is_dir() else here
    if command.words[0] in ("cp", "head"):
        done = subprocess.run(command.words, cwd=here, capture_output=True, check=True)
        if command.out:
            (here / command.out).write_bytes(done.stdout)
        return here
    assert command.words[0] == "sammed", f"only sammed, cd, cp, head run, not {command.words}"
    words = command.words[1:]
    # Of `bench`, but not of `bench verify`; a suite is frozen and takes no limit.
    if (len(words) == 1 or words[1].startswith("-")) and "--suite" not in words:
        words += SHORTER.get(words[0], ())
    with contextlib.chdir(here), environment(command.env):
        result = CliRunner().invoke(sammed.app, list(words))
    assert result.exit_code in (0, 3), (words, result.output, result.exception)
    if command.out:
        (here / command.out).write_text(result.stdout, encoding="utf-8")
    return here


@contextlib.contextmanager
def environment(values):
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def runnable(page: Path) -> list[Block]:
    return [b for b in blocks(page) if b.language in ("bash", "python") and not b.why_not]


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda p: p.name)
def test_the_blocks_of_a_page_run_one_after_the_other(page: Path, demo_folder: Path):
    here, names = demo_folder, {"__name__": "docs"}
    for block in runnable(page):
        if block.language == "bash":
            for command in commands(block.body):
                here = run(command, here)
        else:
            code = compile(block.body, block.name, "exec")
            with contextlib.chdir(here), contextlib.redirect_stdout(io.StringIO()):
                exec(code, names)  # noqa: S102 - our own pages


def test_a_block_that_does_not_run_says_why():
    short = [b.name for b in BLOCKS if b.why_not and len(b.why_not.split()) < 3]
    assert short == []


def test_the_readme_names_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in PAGES[1:] if f"docs/{p.name}" not in text] == []
