"""Damaged files end in a sentence: 19 formats x 16 fixed damages, under a memory limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
DAMAGES = 16


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
    assert run.stdout.strip().splitlines()[-1] == f"{19 * DAMAGES} read or refused"


def _whole_files(folder: Path):
    """Path and reader of one whole file of each format."""
    import gzip

    import numpy as np
    import scipy.io
    from PIL import Image

    from sammed_data.readers import dicom_seg, rtstruct
    from sammed_data.readers.registry import read_label_map, read_volume
    from sammed_data.types import Pick
    from tests.data import anatomy

    here = anatomy.answer_geometry()
    image, labels = anatomy.answer_image(), anatomy.answer_labels() == 1
    axial = {"order": (0, 1, 2), "flips": (False, False, False)}
    for name in ("a.nii", "a.nii.gz"):
        yield anatomy.write_nifti(folder / name, image), read_volume
    for name in ("a.nrrd", "a.mha"):
        yield anatomy.write_itk(folder / name, image), read_volume
    yield next(anatomy.write_series(folder / "s", image[:1], **axial).iterdir()), read_volume
    rgb = np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "a.bmp", "a.gif", "a.tif"):
        Image.fromarray(rgb).save(folder / name)
        yield folder / name, read_volume
    Image.fromarray(rgb[..., 0]).save(folder / "grey.png")
    yield folder / "grey.png", read_label_map
    (folder / "grey.pgm.gz").write_bytes(gzip.compress(b"P5 50 40 255\n" + rgb[..., 0].tobytes()))
    yield folder / "grey.pgm.gz", read_volume
    np.save(folder / "a.npy", image)
    yield folder / "a.npy", read_volume
    np.save(folder / "n.npy", rgb[None])
    yield folder / "n.npy", lambda p: read_volume(p, pick=Pick(axes="NYXC", item=0))
    np.savez_compressed(folder / "a.npz", x=image, y=labels)
    yield folder / "a.npz", lambda p: read_volume(p, pick=Pick(variable="x"))
    for name, small in (("a.mat", False), ("b.mat", True)):
        scipy.io.savemat(folder / name, {"x": image, "text": "abc"}, do_compression=small)
        yield folder / name, lambda p: read_label_map(p, pick=Pick(variable="x"))
    rois = {"A": anatomy.contours(labels, here)}
    path = anatomy.write_rtstruct(folder / "rs.dcm", rois)
    yield path, lambda p: rtstruct.read(p, here)
    seg = anatomy.seg_dataset(list(anatomy.series(image, **axial)), {"a": labels})
    seg.save_as(folder / "seg.dcm", enforce_file_format=True)
    yield folder / "seg.dcm", lambda p: dicom_seg.read(p, here)


def _damaged(data: bytes, kind: int, rng) -> bytes:
    """Cut it short, or change bytes anywhere, or change bytes of the header."""
    if kind == 0:
        return data[: rng.integers(0, len(data))]
    changed = bytearray(data)
    top = len(data) if kind == 1 else min(len(data), 400)
    for _ in range(rng.integers(1, 12)):
        changed[rng.integers(0, top)] = rng.integers(0, 256)
    return bytes(changed)


def _main(folder: Path) -> None:
    import resource

    import numpy as np

    from sammed_data.types import SammedError

    files = list(_whole_files(folder))
    resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000, 6_000_000_000))
    rng = np.random.default_rng(20)
    n = 0
    for path, read in files:
        data = path.read_bytes()
        for k in range(DAMAGES):
            target = path.with_name("x_" + path.name)
            target.write_bytes(_damaged(data, k % 3, rng))
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
