"""Two processes by gloo: the step of one with the joint batch, one writer, one end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import parallel_worker
import pytest
import torch
from safetensors.torch import load_file
from tiny_corpus import write_corpus

from sammed_data.corpus import Corpus
from sammed_data.types import UsageError
from sammed_model.config import TrainConfig
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
