"""Compiles `sammed_data/_planes.c` at installation, where the machine has a C compiler.

Without one nothing is missing but speed: `sammed_data/native.py` falls back to numpy.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The last row: floats are multiplied and added one by one, as numpy does it, but several at a time.
FLAGS = (
    "-O3", "-std=c99", "-shared", "-fPIC", "-fvisibility=hidden",
    "-ffp-contract=off", "-fno-trapping-math", "-fno-signed-zeros", "-ffinite-math-only",
)  # fmt: skip


class CompiledLoops(BuildHookInterface):
    """``CC`` as everywhere; ``SAMMED_NO_COMPILER=1`` makes a wheel for every machine."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Leave the library beside its source, and say that the wheel is of this machine."""
        folder = Path(self.root) / "sammed_data"
        library = folder / "_planes.so"
        command = shlex.split(os.environ.get("CC", "cc"))
        if os.environ.get("SAMMED_NO_COMPILER") or not shutil.which(command[0]):
            self.app.display_info("no C compiler: builds run without the compiled loops")
            return
        made = folder / f"_planes.{os.getpid()}.tmp"
        call = [*command, *FLAGS, "-o", str(made), str(folder / "_planes.c")]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            self.app.display_warning(f"{shlex.join(call)} failed: {done.stderr.strip()[-400:]}")
            return
        made.replace(library)
        build_data["artifacts"].append("sammed_data/_planes.so")
        build_data["pure_python"], build_data["infer_tag"] = False, True
