"""A new user's path by commands: the demo and its page, own PNG pairs, own DICOM + RTSTRUCT.

    python benchmarks/walk.py --demo quick --out /tmp/walk

Every line is a process of its own, as one types it; a line is timed, and an exit code other than
expected ends the walk with 1 and the line's output. The data are drawn here (no download). The
page needs playwright and chromium, else that step is left out and says so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser")
LABELS = "GTV=lung_tumor,Heart=heart,Lung_L=lung_left,Lung_R=lung_right"
BOX = "30,25,60,55"


@dataclass
class Walk:
    """Where the walk goes, and what has been done."""

    folder: Path
    rows: list[tuple[str, str, float, str]] = field(default_factory=list)
    failed: bool = False

    def run(self, step: str, where: Path, line: str, *, expect: int = 0) -> None:
        """One command in ``where``; ``line`` has no quoted spaces."""
        if self.failed:
            return
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "sammed", *line.split()], cwd=where, env=environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        good, said = done.returncode == expect, f"exit {done.returncode}"
        more = done.stdout[-2000:] + done.stderr[-2000:]
        self._keep(step, f"sammed {line}", started, good, said, more)

    def call(self, step: str, what: str, do: Callable[[], str]) -> None:
        """Something that is not a command; ``do`` returns what came of it, or raises."""
        if self.failed:
            return
        started = time.perf_counter()
        try:
            said, good = do(), True
        except (OSError, ValueError, RuntimeError) as err:
            said, good = f"{type(err).__name__}: {err}", False
        self._keep(step, what, started, good, said.splitlines()[0][:60], said)

    def _keep(self, step: str, what: str, started: float, good: bool, said: str, more: str) -> None:
        minutes = (time.perf_counter() - started) / 60
        self.rows.append((step, what, minutes, said if good else f"FAILED: {said}"))
        self.failed = not good
        sys.stdout.write(f"{minutes:6.2f} min  {step}: {what}: {said}\n")
        if not good:
            sys.stdout.write(more + "\n")
        sys.stdout.flush()

    def table(self) -> str:
        """Markdown: step, command, minutes, result."""
        lines = ["| step | command | minutes | result |", "|---|---|---|---|"]
        lines += [f"| {s} | `{w}` | {m:.2f} | {r} |" for s, w, m, r in self.rows]
        total = sum(m for _, _, m, _ in self.rows)
        return "\n".join([*lines, f"| together | | {total:.2f} | {self._end()} |"])

    def _end(self) -> str:
        return "FAILED" if self.failed else "ok"


def environment() -> dict[str, str]:
    """This one, with this tree's packages first."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def demo(walk: Walk, kind: str) -> None:
    """Doctor, demo, the page, and the plain commands in the demo's folder."""
    where = walk.folder / "demo"
    walk.run("machine", walk.folder, "doctor")
    walk.run("demo", walk.folder, "demo" + (" --quick" if kind == "quick" else ""))
    walk.call("page", "worst case, Try, a click, export NIfTI and PNG", lambda: page(where))
    walk.run("report again", where, "report results/001")


def pictures(walk: Walk, steps: int) -> None:
    """An own folder of PNG pairs."""
    where = walk.folder / "png"
    walk.call("draw PNG pairs", "40 pictures of 20 patients", lambda: draw_pairs(where / "polyps"))
    walk.run("questions", where, "data init polyps", expect=2)
    told = "--labels 1=polyp --modality endoscopy --patient pat(\\d+)_ --public"
    walk.run("init", where, f"data init polyps {told}")
    walk.run("build", where, "data build --source catalogs --root polyps --only polyps")
    walk.run("describe", where, "data describe corpus --out figures")
    walk.run("show", where, "data show corpus --out sheet.png")
    walk.run("train", where, f"train --steps {steps}")
    walk.run("bench", where, "bench --prompts bbox,1pt,3pt")
    walk.run("report", where, "report results/001")
    walk.call("new picture", "without truth", lambda: copy_one(where))
    walk.run("predict", where, "predict new.png --box 40,20,90,70 --out mask.png")
    walk.call("look", "mask.png", lambda: same_grid(where / "new.png", where / "mask.png"))


def dicom(walk: Walk, steps: int) -> None:
    """An own folder of DICOM series with RTSTRUCT, restricted, with test patients named."""
    where = walk.folder / "dicom"
    drawn = "dicom/drawn --patients 8 --only phantom_ct_rt"
    walk.run("draw DICOM", walk.folder, f"data phantom {drawn}")
    walk.call("study", "drawn/ without its catalogue", lambda: gather(where))
    walk.run("init", where, f"data init study --yes --labels {LABELS}")
    walk.call("key, split", "site.key; two test patients", lambda: key_and_split(where))
    told = "--source catalogs --root study --only study --key site.key"
    walk.run("build", where, f"data build {told}")
    walk.run("describe", where, "data describe corpus")
    walk.run("train", where, f"train --steps {steps} --validation-images 6")
    walk.run("bench", where, "bench --prompts bbox,1pt")
    coarse = "--prompts-from study/p003/RS.dcm"
    walk.run("predict, coarse", where, f"predict study/p003/CT {coarse} --out coarse.dcm")
    walk.call("read SEG", "coarse.dcm by highdicom", lambda: read_seg(where / "coarse.dcm", 4))
    follow = f"--slice 2 --box {BOX} --object lung_tumor --follow --out followed.dcm"
    walk.run("predict, follow", where, f"predict study/p003/CT {follow}")
    walk.call("read SEG", "followed.dcm by highdicom", lambda: read_seg(where / "followed.dcm", 1))


def draw_pairs(folder: Path) -> str:
    """120 x 90 RGB pictures in ``pictures/``, masks of 0 and 255 in ``annotation/``."""
    rng = np.random.default_rng(1)
    for part in ("pictures", "annotation"):
        (folder / part).mkdir(parents=True)
    for k in range(40):
        name = f"pat{k // 2 + 1:03d}_view{k % 2 + 1}.png"
        mask = np.zeros((90, 120), np.uint8)
        middle = (int(rng.integers(35, 85)), int(rng.integers(30, 60)))
        half = (int(rng.integers(10, 25)), int(rng.integers(8, 20)))
        cv2.ellipse(mask, middle, half, float(rng.integers(0, 180)), 0, 360, 255, -1)
        image = rng.normal(0, 10, (90, 120, 3)) + [150, 90, 80]
        image += (mask > 0)[..., None] * np.array([40, -30, 60])
        cv2.imwrite(str(folder / "pictures" / name), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "annotation" / name), mask)
    return "40 pairs"


def copy_one(where: Path) -> str:
    """A picture away from its mask."""
    shutil.copy(where / "polyps" / "pictures" / "pat003_view1.png", where / "new.png")
    return "new.png"


def same_grid(image: Path, mask: Path) -> str:
    """Whether a mask lies on the grid of its image and holds an object."""
    there, asked = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED), cv2.imread(str(image))
    if there is None or asked is None or there.shape[:2] != asked.shape[:2] or not there.any():
        raise ValueError(f"{mask} is empty or on another grid than {image}")
    return f"{int((there > 0).sum())} px of {there.size}"


def gather(where: Path) -> str:
    """The patients of the phantom side by side, as a hospital exports them."""
    found = sorted((where / "drawn" / "data" / "phantom_ct_rt").glob("*/p*"))
    for patient in found:
        shutil.copytree(patient, where / "study" / patient.name)
    return f"{len(found)} patients"


def key_and_split(where: Path) -> str:
    """What docs/own-data.md says about restricted data and about studies of under ten patients."""
    (where / "site.key").write_bytes(os.urandom(32))
    with (where / "catalogs" / "study.yaml").open("a", encoding="utf-8") as entry:
        entry.write("\nsplits:\n  test: ['p007/**', 'p008/**']\n")
    return "written"


def read_seg(path: Path, n_segments: int) -> str:
    """A SEG by highdicom: its segments, by name."""
    import highdicom

    found = highdicom.seg.segread(path)
    names = [str(s.SegmentLabel) for s in found.SegmentSequence]
    if len(names) != n_segments or not found.pixel_array.any():
        raise ValueError(f"expected {n_segments} segments with pixels in {path}, found {names}")
    return ", ".join(names)


def page(where: Path) -> str:
    """The page in a browser: a worst case, Try, a click, both exports; the NIfTI is opened."""
    browser = next((c for c in CHROMIUM if Path(c).exists()), None)
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        return "left out: no playwright"
    if browser is None:
        return "left out: no chromium"
    with served(where) as address, sync_playwright() as play:
        window = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        try:
            click_through(window, address, where)
        except Error as err:
            raise RuntimeError(f"the page: {err}") from err
        window.close()
    return opened(where / "exports")


def click_through(window: Any, address: str, where: Path) -> None:
    """The page as a user clicks through it; what it exports goes to ``exports/``."""
    view = window.new_page(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    view.set_default_timeout(120_000)
    view.goto(f"{address}#/results")
    view.locator("tbody tr").first.click()
    view.get_by_text("Click in this image").click()
    view.get_by_text("ready: click in the image").wait_for()
    box: dict[str, float] = view.locator("canvas").first.bounding_box()
    view.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    view.get_by_text("predicted IoU").first.wait_for()
    view.screenshot(path=str(where / "try.png"))
    for button in ("NIfTI", "PNG"):
        with view.expect_download() as waited:
            view.get_by_role("button", name=button, exact=True).click()
        waited.value.save_as(where / "exports" / waited.value.suggested_filename)


def opened(folder: Path) -> str:
    """What was exported, read again."""
    import nibabel

    names = sorted(p.name for p in folder.iterdir())
    volumes = [nibabel.load(folder / n) for n in names if n.endswith((".nii", ".nii.gz"))]
    if len(volumes) != 1 or not np.asarray(volumes[0].dataobj).any() or len(names) < 2:
        raise ValueError(f"expected a NIfTI with an object and a PNG in {folder}, found {names}")
    return ", ".join(names)


@contextmanager
def served(where: Path) -> Iterator[str]:
    """`sammed app` on a free port, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "sammed", "app", "--port", str(port)]
    process = subprocess.Popen(line, cwd=where, env=environment(), stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the page answers.

    Raises:
        RuntimeError: the server ended, or took over two minutes.
    """
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
        else:
            return
    raise RuntimeError(f"`sammed app` did not answer at {address}")


def main() -> int:
    """Walk; 1 where a step did not end as expected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", choices=("full", "quick", "none"), default="quick")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--steps", type=int, default=6, help="of each training on own data")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    for part in ("png", "dicom"):
        (args.out / part).mkdir()
    walk = Walk(folder=args.out.resolve())
    if args.demo != "none":
        demo(walk, args.demo)
    pictures(walk, args.steps)
    dicom(walk, args.steps)
    sys.stdout.write(f"\n{walk.table()}\n")
    return int(walk.failed)


if __name__ == "__main__":
    raise SystemExit(main())
