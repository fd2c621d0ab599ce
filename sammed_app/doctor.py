"""What `sammed doctor` looks at: libraries that work, devices, memory, disk, caches, left-overs.

Each check is a small function that gives findings and changes nothing; one that a broken library
stops is a finding too.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

State = Literal["ok", "note", "problem"]

_GB = 1e9
_DISK_GB, _MEMORY_GB, _SHARED_GB, _OPEN_FILES = 10.0, 8.0, 1.0, 1024
# What each extra brings, by the module that shows it is there.
_EXTRAS = {
    "app": ("fastapi", "sammed app"),
    "mat": ("h5py", "mat files of version 7.3"),
    "onnx": ("onnxruntime", "sammed export-onnx"),
    "ray": ("ray", "build and bench --engine ray"),
    "sam2": ("sam2", "SAM 2 as a model"),
    "tensorboard": ("tensorboard", "train --tensorboard"),
}
_CV2_PACKAGES = ("opencv-python", "opencv-python-headless", "opencv-contrib-python",
                 "opencv-contrib-python-headless")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        found: in words.
        advice: what to do; empty where all is well.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def examine(root: Path | None = None) -> list[Finding]:
    """All checks, in the order in which a user would mend things.

    Args:
        root: folder where work is done; default the current one.
    """
    here = (root or Path.cwd()).absolute()
    found: list[Finding] = []
    for check in _CHECKS:
        try:
            found += check(here)
        except (ImportError, OSError, RuntimeError, AttributeError, ValueError) as err:
            name = check.__name__.strip("_")
            text = f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}"
            advice = "install sammed in a fresh virtual environment: pip install sammed"
            found.append(Finding(name=name, state="problem", found=text, advice=advice))
    return found


# ---------------------------------------------------------------- software


def _python(here: Path) -> Iterator[Finding]:
    from sammed_data.manifest import sammed_version

    bits = 64 if sys.maxsize > 2**32 else 32
    found = f"Python {sys.version.split()[0]} ({bits} bit, {sys.platform}), sammed"
    found = f"{found} {sammed_version()} in {Path(__file__).parents[1]}"
    good = sys.version_info >= (3, 11) and bits == 64
    advice = "" if good else "use a 64-bit Python 3.11 or newer"
    yield Finding(name="python", state="ok" if good else "problem", found=found, advice=advice)


def _versions(here: Path) -> Iterator[Finding]:
    """Whether what sammed and torchvision ask for is what is installed."""
    from packaging.requirements import Requirement

    wrong = []
    for package in ("sammed", "torchvision"):
        for text in _required(package):
            need = Requirement(text)
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            has = _version_of(need.name)
            if has is None or not need.specifier.contains(has, prereleases=True):
                wrong.append(f"{package} wants {need.name}{need.specifier}, has {has or 'none'}")
    if wrong:
        advice = "pip install --upgrade sammed, or torch and torchvision as a pair"
        yield Finding(name="versions", state="problem", found="; ".join(wrong), advice=advice)
    elif not _required("sammed"):
        yield Finding(name="versions", state="note", found="sammed runs from its source tree",
                      advice="pip install -e . brings what it needs")  # fmt: skip
    else:
        yield Finding(name="versions", state="ok", found="all as the packages ask for")


def _required(package: str) -> list[str]:
    try:
        return metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return []


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch(here: Path) -> Iterator[Finding]:
    """Torch computes, and torchvision was built for it."""
    import torch

    text = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    if float((torch.ones(8, 8) @ torch.ones(8, 8)).sum()) != 512.0:
        advice = "install torch again: it computes wrong numbers"
        yield Finding(name="torch", state="problem", found=text, advice=advice)
        return
    yield Finding(name="torch", state="ok", found=text)
    try:
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([1.0]), 0.5)
    except (ImportError, RuntimeError, AttributeError) as err:
        advice = "install the torchvision of this torch: pip install --upgrade torch torchvision"
        said = str(err).splitlines()[0]
        yield Finding(name="torchvision", state="problem", found=said, advice=advice)
    else:
        yield Finding(name="torchvision", state="ok", found=torchvision.__version__)


def _cv2(here: Path) -> Iterator[Finding]:
    import cv2
    import numpy as np

    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    done, data = cv2.imencode(".png", image)
    back = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    packages = [name for name in _CV2_PACKAGES if _version_of(name)]
    text = f"{cv2.__version__} ({', '.join(packages) or 'no package of this name'})"
    if not done or back is None or not np.array_equal(image, back):
        yield Finding(name="cv2", state="problem", found=f"{text}: a PNG does not come back",
                      advice="pip install --force-reinstall opencv-python-headless")  # fmt: skip
    elif len(packages) > 1:
        keep = "opencv-python-headless"
        rest = " ".join(p for p in packages if p != keep)
        advice = f"they overwrite each other: pip uninstall {rest}, then install {keep} again"
        yield Finding(name="cv2", state="problem", found=text, advice=advice)
    else:
        yield Finding(name="cv2", state="ok", found=text)


def _readers(here: Path) -> Iterator[Finding]:
    """The libraries that read images and write corpora can be loaded."""
    from sammed_data import codecs, native

    names = ("nibabel", "SimpleITK", "pydicom", "highdicom", "tifffile", "imagecodecs", "skimage",
             "pyarrow", "pandas", "datasets", "safetensors", "segment_anything")  # fmt: skip
    broken = []
    for name in names:
        try:
            importlib.import_module(name)
        except (ImportError, OSError, AttributeError) as err:
            broken.append(f"{name}: {str(err).splitlines()[0]}")
    if broken:
        yield Finding(name="readers", state="problem", found="; ".join(broken),
                      advice="pip install --upgrade --force-reinstall those packages")  # fmt: skip
    else:
        yield Finding(name="readers", state="ok", found=", ".join(names))
    if importlib.util.find_spec("isal") is None:
        yield Finding(name="isal", state="note", found="not installed: .nii.gz opens by zlib",
                      advice="pip install isal reads gzip several times as fast")  # fmt: skip
    if native.planes() is None and not codecs.PLAIN:
        yield Finding(name="compiled loops", state="note", found="none: builds take a tenth longer",
                      advice="install a C compiler, then sammed again")  # fmt: skip


def _extras(here: Path) -> Iterator[Finding]:
    has = {name: importlib.util.find_spec(module) for name, (module, _) in _EXTRAS.items()}
    there = ", ".join(name for name, spec in has.items() if spec) or "none"
    missing = [f"{name} ({_EXTRAS[name][1]})" for name, spec in has.items() if not spec]
    text = f"installed: {there}" + (f"; not: {', '.join(missing)}" if missing else "")
    advice = "where wanted: pip install 'sammed[NAME]'" if missing else ""
    yield Finding(name="extras", state="note" if missing else "ok", found=text, advice=advice)


# ---------------------------------------------------------------- machine


def _gpu(here: Path) -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield _no_gpu(torch.version.cuda)
        return
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        text = f"{facts.name}, {free / _GB:.1f} of {total / _GB:.1f} GB free, {bf16}"
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        works = float((ones @ ones).sum()) == 64.0**3
        used = total - free > 0.5 * total
        advice = "something else uses most of its memory: see nvidia-smi" if used else ""
        if not works:
            advice = "it computes wrong numbers: install a torch for this card's CUDA"
        state: State = "problem" if not works else "note" if used else "ok"
        yield Finding(name=f"cuda:{number}", state=state, found=text, advice=advice)


def _no_gpu(built_for: str | None) -> Finding:
    driver = shutil.which("nvidia-smi")
    if driver and built_for is None:
        return Finding(name="gpu", state="problem",
                       found="an NVIDIA driver is here, but this torch is built without CUDA",
                       advice="install a CUDA build of torch")  # fmt: skip
    if driver:
        return Finding(name="gpu", state="problem",
                       found=f"torch (CUDA {built_for}) does not see the card of nvidia-smi",
                       advice="update the driver, or look at CUDA_VISIBLE_DEVICES")  # fmt: skip
    return Finding(name="gpu", state="note", found="none: everything runs on the CPU",
                   advice="train ViT-B on a machine with a GPU; vit_tiny trains here")  # fmt: skip


def _memory(here: Path) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    total = _physical_bytes()
    text = f"{cores} cores" + (f", {total / _GB:.1f} GB" if total else ", memory unknown")
    low = total is not None and total < _MEMORY_GB * _GB
    advice = "build with --workers 1, train vit_tiny or a small batch" if low else ""
    yield Finding(name="memory", state="note" if low else "ok", found=text, advice=advice)
    shared = Path("/dev/shm")  # noqa: S108 - asked for its size, nothing is written
    if shared.is_dir() and shutil.disk_usage(shared).total < _SHARED_GB * _GB:
        size = shutil.disk_usage(shared).total / 1e6
        yield Finding(name="shared memory", state="note", found=f"/dev/shm has {size:.0f} MB",
                      advice="in a container: docker run --shm-size 8g, for loader "
                      "processes")  # fmt: skip
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        yield Finding(name="open files", state="note", found=f"at most {soft}",
                      advice="ulimit -n 4096 before reading a large corpus")  # fmt: skip


def _physical_bytes() -> int | None:
    """Memory of the machine, or less where a container is held to less."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdecimal() else total


def _disk(here: Path) -> Iterator[Finding]:
    from sammed_model.cards import weights_folder

    places = {
        "work folder": here,
        "weights": weights_folder(),
        "scratch": Path(tempfile.gettempdir()),
    }
    if os.environ.get("SAMMED_DATA"):
        places["$SAMMED_DATA"] = Path(os.environ["SAMMED_DATA"])
    for name, place in places.items():
        if name == "$SAMMED_DATA" and not place.is_dir():
            yield Finding(name=name, state="problem", found=f"{place} is no folder",
                          advice="point it at the folder of datasets, or unset it")  # fmt: skip
            continue
        there = next(p for p in (place, *place.parents) if p.exists())
        free = shutil.disk_usage(there).free / _GB
        text = f"{place}: {free:.1f} GB free"
        if not os.access(there, os.W_OK) and name != "$SAMMED_DATA":
            yield Finding(name=name, state="problem", found=f"{text}, cannot be written",
                          advice="work in another folder, or mend its rights")  # fmt: skip
            continue
        low = free < _DISK_GB
        advice = "a corpus of 100,000 images takes about 10 GB" if low else ""
        yield Finding(name=name, state="note" if low else "ok", found=text, advice=advice)


def _left_overs(here: Path) -> Iterator[Finding]:
    """Work that was interrupted, and how to go on."""
    for note in sorted(here.glob("*/.partial/plan.json")):  # notes of shards stay, this one goes
        name = note.parent.parent.name
        advice = f"sammed data status {name}; the same build command goes on"
        yield Finding(name="unfinished build", state="note", found=name, advice=advice)
    for run in sorted((here / "runs").glob("*/config.json")):
        if not (run.parent / "run.json").exists():
            yield Finding(name="unfinished training", state="note", found=str(run.parent.name),
                          advice=f"sammed train --resume runs/{run.parent.name}")  # fmt: skip


def _catalogue(here: Path) -> Iterator[Finding]:
    from sammed_data.catalog import load_catalogs
    from sammed_model.cards import load_cards, place_of

    weights = [name for name, card in load_cards().items() if place_of(card) is not None]
    text = f"{len(load_catalogs(None))} datasets; weights here: {', '.join(weights) or 'none'}"
    yield Finding(name="catalogue", state="ok", found=text)


_CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    _python, _versions, _torch, _cv2, _readers, _extras, _gpu, _memory, _disk, _catalogue,
    _left_overs,
)  # fmt: skip
