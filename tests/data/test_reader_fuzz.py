"""Damaged files end in a sentence: every format x 6 kinds of damage, under a memory limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
FORMATS, DAMAGES = 36, 6


def test_damaged_files_end_in_a_sentence(tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.data.test_reader_fuzz", str(tmp_path)],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert run.stdout.strip().splitlines()[-1] == f"{FORMATS * DAMAGES} read or refused"


def _main(folder: Path) -> None:
    import resource

    import numpy as np

    from sammed_data.types import SammedError
    from tests.data.fuzz_files import damaged, whole_files

    files = list(whole_files(folder))
    resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000, 6_000_000_000))
    rng = np.random.default_rng(20)
    n = 0
    for _, path, read in files:
        data = path.read_bytes()
        for k in range(DAMAGES):
            target = path.with_name("x_" + path.name)
            target.write_bytes(damaged(data, k, rng))
            try:
                read(target)
            except SammedError as err:
                sentence = str(err)
                assert ": expected" in sentence, sentence
                assert "; " in sentence, sentence
            n += 1
    sys.stdout.write(f"{n} read or refused\n")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
