"""Two processes by gloo: the step of one with the joint batch, one writer, one end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import parallel_worker
import pytest
import torch
from safetensors.torch import load_file
from tiny_corpus import write_corpus

from sammed_data.corpus import VIEWS, Corpus
from sammed_data.index import open_index
from sammed_data.types import UsageError
from sammed_model.ahead import one_ahead
from sammed_model.config import TrainConfig
from sammed_model.dataset import Draw
from sammed_model.feed import Loader, TrainingSet
from sammed_model.parallel import ALONE
from sammed_model.train import train

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("parallel_worker.py")


def log_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_s"} for line in lines]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    counts = {"train": 3, "validation": 2}
    return write_corpus(tmp_path_factory.mktemp("c") / "corpus", patients=counts, size=(30, 40))


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    return kept | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'model'}", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def pair(corpus, tmp_path_factory):
    """What two processes left, the second of which was killed at the end."""
    out = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, str(WORKER), str(corpus), str(out)]
    started = [
        subprocess.Popen(command, env=environment() | where | {"RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=180) for process in started] == [0, -9]
    return out


def test_two_processes_learn_as_one_with_the_joint_batch(corpus, pair):
    said = [json.loads((pair / f"said-{rank}.json").read_text()) for rank in range(2)]
    assert said[0]["text"] == said[1]["text"] == "of the leader"
    assert "expected the same thing" in said[1].pop("differs")
    assert "'0' in process 0" in said[0].pop("differs")
    assert said[0] == said[1]
    opened, model = Corpus(corpus), parallel_worker.model_of()
    parts = zip(*(parallel_worker.batches(opened, model, r) for r in range(2)), strict=True)
    # What one process has nothing to learn from, all leave out.
    both = [parallel_worker.joint(list(p)) for p in parts if all(len(b.keys) for b in p)]
    assert len(both) == parallel_worker.STEPS - 1
    assert len(both[0].masks_M1SS) == 4
    for recipe in ("mended", "released"):
        numbers, tensors = parallel_worker.learned(recipe, both, ALONE)
        of = [load_file(pair / f"{recipe}-{rank}.safetensors") for rank in range(2)]
        assert of[0].keys() == of[1].keys() == tensors.keys()
        for name, value in tensors.items():
            assert torch.equal(of[0][name], of[1][name]), name
            if name.startswith("gradient/"):
                torch.testing.assert_close(of[0][name], value, rtol=0, atol=1e-6, msg=name)
        torch.testing.assert_close(
            torch.tensor(said[0][recipe]["results"]),
            torch.tensor(numbers["results"]),
            rtol=1e-5,
            atol=1e-6,
        )
    alone = parallel_worker.scores(opened, ALONE)
    assert said[0]["scores"] == [pytest.approx(alone[0], abs=1e-12), *alone[1:]]


def test_one_writes_all_stop_and_resume_is_exact(pair):
    assert json.loads((pair / "wrote.json").read_text()) == [str(pair / "stopped-1")]
    for rank in range(2):
        assert "stopped after step 3" in (pair / f"stopped-{rank}").read_text()
    whole, parts = (pair / name / "001-ft-sam" for name in ("whole", "parts"))
    assert log_of(whole) == log_of(parts)
    assert len(log_of(whole)) == 9
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    record = json.loads((whole / "run.json").read_text())
    assert (record["processes"], record["images"], record["images_seen"]) == (2, 18, 18)


def test_a_process_that_dies_ends_the_others_with_a_sentence(corpus, pair):
    said = (pair / "died").read_text()
    assert said.startswith("ParallelError: process 0 of 2 lost the others: one has ended")
    assert "--resume" in said
    with pytest.raises(UsageError, match="its 2 processes, found 1: start it by torchrun"):
        train(corpus, TrainConfig(), resume=pair / "dies" / "001-ft-sam")


def test_torchrun_command_line(corpus, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += ["2", "-m", "sammed", "train", "--corpus", str(corpus), "--init", "random"]
    command += ["--image-size", "32", "--passes", "2", "--batch", "2", "--steps", "2"]
    command += ["--validation-images", "2", "--modes", "bbox", "--best", "bbox", "--method"]
    command += ["ft-sam", "--out", str(tmp_path / "runs")]
    done = subprocess.run(
        command,
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights in") == 1
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["001-ft-sam"]
    assert json.loads((tmp_path / "runs/001-ft-sam/run.json").read_text())["images_seen"] == 8


def _template() -> str:
    """The SLURM script for training in docs/cluster.md."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    return next(b for b in text.split("```bash\n")[1:] if "--nodes=2" in b).split("```")[0]


def _scheduler(folder: Path, torchrun: str) -> dict[str, str]:
    """Commands of a cluster that only write down what they are asked."""
    commands = {
        "srun": 'exec "$@"',
        "scontrol": f'echo "$*" >> {folder}/scontrol; [ "$1" = show ] && echo node7 || true',
        "torchrun": torchrun,
    }
    for name, body in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "41"}
    where = {"CORPUS": "corpus", "WEIGHTS": "sam.pth", "RUNS": str(folder / "runs")}
    return os.environ | job | where | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_slurm_template(tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(_template())
    subprocess.run(["bash", "-n", script], check=True)
    for name, files in {"001-sam-med2d": ["run.json"], "002-sam-med2d": ["state.json"]}.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        for file in files:
            (tmp_path / "runs" / name / file).write_text("{}")
    where = _scheduler(tmp_path, f'echo "$*" > {tmp_path}/asked; exit 7')
    assert subprocess.run(["bash", script], env=where, check=False).returncode == 7
    asked = (tmp_path / "asked").read_text()
    assert "--rdzv-endpoint node7:29500" in asked
    assert asked.rstrip().endswith(f"--resume {tmp_path}/runs/002-sam-med2d")
    assert "requeue" not in (tmp_path / "scontrol").read_text()
    stops = f"trap 'exit 1' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    where = _scheduler(tmp_path, stops)
    job = subprocess.Popen(["bash", script], env=where)
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=30) == 1
    assert "requeue 41" in (tmp_path / "scontrol").read_text()


def test_loader_threads_and_copies_ahead_do_not_change_the_order(corpus):
    opened, model = Corpus(corpus), parallel_worker.model_of()
    rows = TrainingSet(opened, open_index(opened).select(opened, ["train"], VIEWS["sam-med2d"]))
    draw = Draw(masks_per_image=2, seed=0)

    def first(workers: int) -> list:
        loader = Loader(rows, model.preprocessing, batch_images=2, draw=draw, workers=workers)
        moved = []

        def copied(batch):
            moved.append(batch.position)
            return batch, None

        source = one_ahead(loader.batches((0, 3)), copied)
        found = list(itertools.islice(source, 9))
        source.close()
        # One batch further, no more: it is on its way while the last is learned from.
        assert moved[:9] == [b.position for b in found]
        assert len(moved) <= 10
        return found

    wanted = first(0)
    assert wanted[0].position == (0, 3)
    for workers in (1, 3):
        for a, b in zip(wanted, first(workers), strict=True):
            assert (a.position, a.keys) == (b.position, b.keys)
            assert torch.equal(a.seeds_M, b.seeds_M)
            assert torch.equal(a.images_B3SS, b.images_B3SS)
            assert torch.equal(a.masks_M1SS, b.masks_M1SS)
