"""The templates of docs/cluster.md: parsed, and the SLURM one run with a scheduler that is not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from sammed_data.recipe import read_recipe
from tests.data import build_fakes as fakes

DOCS = fakes.REPO / "docs"


def _block(document, language, holding=""):
    """The first block of a language that holds a text."""
    found = re.findall(rf"```{language}\n(.*?)```", (DOCS / document).read_text(), re.DOTALL)
    return next(block for block in found if holding in block)


@pytest.fixture
def job(tmp_path):
    """The script, a `sammed` that is this tree, a `scontrol` that notes what it is told."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in (
        ("sammed", f'exec "{sys.executable}" -m sammed "$@"'),
        ("scontrol", f'echo "$@" >> "{tmp_path}/scontrol.log"'),
    ):
        (bin_ / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin_ / name).chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(_block("cluster.md", "bash", "#SBATCH --array").replace("auto/40", "auto"))
    return script


def _run(job, source, task, **more):
    environment = {
        "PATH": f"{job.parent / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(fakes.REPO),
        "ARCHIVES": str(source[1]),
        "CORPUS": str(job.parent / "corpus"),
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_MIN": "0",
        "SLURM_ARRAY_TASK_COUNT": "2",
    }
    return subprocess.Popen(
        ["bash", job],
        env=os.environ | environment | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def source(tmp_path):
    fakes.write_source(tmp_path / "data", n=20, name="hippo")
    return fakes.write_catalog(tmp_path / "cat", fakes.entry_dict("hippo")), tmp_path / "data"


def test_the_sbatch_script_is_bash_and_asks_for_the_warning():
    script = _block("cluster.md", "bash", "#SBATCH --array")
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True,
                             check=False)  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert "#SBATCH --signal=B:USR1@120" in script
    wanted = int(re.search(r"--array=0-(\d+)", script)[1]) + 1
    assert f"--part auto/{wanted}" in script


def test_the_array_builds_the_corpus_and_a_warning_requeues(source, job):
    job.write_text(job.read_text().replace("--root", f"--source {source[0]} --root"))
    first = _run(job, source, 0)
    staging = job.parent / "corpus/.partial"
    for _ in range(6000):
        if list(staging.glob("*--*.tmp")):
            break
        time.sleep(0.01)
    first.send_signal(signal.SIGUSR1)
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 130, said
    assert (job.parent / "scontrol.log").read_text() == "requeue 77_0\n"
    for task in (0, 1):
        again = _run(job, source, task)
        said = again.communicate(timeout=60)[0]
        assert again.returncode == 0, said
    merged = fakes.call_cli("data", "merge", job.parent / "corpus")
    assert merged.returncode == 0, merged.stderr


def test_the_kubernetes_job_is_indexed_and_its_command_is_one_of_ours(source, tmp_path):
    job = yaml.safe_load(_block("cluster.md", "yaml"))
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    (container,) = spec["template"]["spec"]["containers"]
    line = [*container["command"], *container["args"]]
    assert line[:3] == ["sammed", "data", "build"]
    assert f"auto/{spec['completions']}" in line
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [130]
    places = {"/archives": str(source[1]), "/shared/corpus": str(tmp_path / "c"), "4": "1"}
    run = fakes.run_cli(
        *(places.get(word, word) for word in line[1:]), "--source", source[0],
        JOB_COMPLETION_INDEX="39",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "part 39/40" in run.stdout


def test_the_recipe_of_the_guide_is_read(tmp_path):
    path = tmp_path / "corpus.yaml"
    path.write_text(_block("recipe.md", "yaml"))
    recipe = read_recipe(path)
    assert recipe.sources == {"hc18": None, "msd_task04_hippocampus": 1}
    assert recipe.options.axes == ("axial",)
