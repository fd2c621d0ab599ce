"""The record of a run: what was trained on what, by which code, under which licences."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sammed_data.corpus import Corpus
from sammed_model.cards import SHIPPED, bundled_cards
from sammed_model.checkpoint import weight_digest
from sammed_model.setup import Run

_COMMIT_LENGTH = 40


def manifest(run: Run, recipe: str) -> dict[str, Any]:
    """What ``run.json`` holds, of a model that has its final weights."""
    rows = run.loader.rows
    corpus = rows.corpus
    return {
        "method": run.config.method,
        "model": run.model.spec.name,
        "recipe": recipe,
        "mends": list(run.config.mends),
        "control": run.config.control,
        "corpus_sha256": run.base["corpus"],
        "corpus_manifest_sha256": _file_digest(corpus.root / "manifest.json"),
        "init": _start(run.base),
        "base_sha256": run.base["digest"],
        "weights_sha256": weight_digest(run.model),
        "datasets": rows.datasets,
        "licenses": _licenses(corpus, rows.datasets),
        "modalities": rows.modalities,
        "structures": rows.structures,
        "patients": rows.n_patients,
        "images": rows.n_images,
        "masks": rows.n_masks,
        "steps": run.progress.step,
        "images_seen": run.progress.images,
        "masks_seen": run.progress.masks,
        "processes": run.world.size,
        "seconds": round(run.progress.seconds, 2),
        "start_dice": run.progress.start,
        "best_dice": run.progress.best_dice,
        "best_step": run.progress.best_step,
        "best_modes": list(run.config.best),
        "config": asdict(run.config),
        "code_version": _code_version(),
        "code_commit": _commit(Path(__file__).resolve().parents[1]),
        "torch": torch.__version__,
        "device": str(run.model.device),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _start(base: Mapping[str, str]) -> str:
    """What was given as the start; weights of the package by name, which is the same anywhere."""
    path = Path(base["path"])
    return path.stem if path.parent == SHIPPED and path.stem in bundled_cards() else base["init"]


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _licenses(corpus: Corpus, datasets: list[str]) -> dict[str, str]:
    """Dataset -> its licence, as the corpus' manifest says it."""
    said = {d.get("id", ""): d.get("license") for d in corpus.manifest.get("datasets", [])}
    return {name: said.get(name) or "unknown" for name in datasets}


def _code_version() -> str:
    try:
        return version("sammed")
    except PackageNotFoundError:  # run from a folder that was not installed
        return "unknown"


def _commit(root: Path) -> str:
    """The commit of a checkout, '' where the code is no checkout."""
    try:
        said = (root / ".git" / "HEAD").read_text(encoding="utf-8").strip()
        if said.startswith("ref: "):
            said = (root / ".git" / said.removeprefix("ref: ")).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return said if len(said) == _COMMIT_LENGTH else ""
