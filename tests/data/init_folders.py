"""Folders as people keep them, for `sammed data init`: small pictures and volumes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from tests.data import anatomy

SHAPE = (60, 80)


def picture(seed: int, colours: bool = False) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (*SHAPE, 3) if colours else SHAPE)
    return cv2.GaussianBlur(noise.astype(np.uint8), (3, 3), 0)


def disc(seed: int, value: int = 255) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    return cv2.circle(mask, (30 + seed % 20, 25 + seed % 10), 8 + seed % 5, value, -1)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(path.suffix, array)
    assert ok
    path.write_bytes(data.tobytes())


def pairs(
    root: Path, make=disc, *, image="images/c{}.png", mask="masks/c{}.png", n=4, colours=False
) -> Path:
    """A folder of pictures with one mask each."""
    for k in range(n):
        save(root / image.format(k), picture(k, colours))
        save(root / mask.format(k), make(k))
    return root


def outline(seed: int) -> np.ndarray:
    return cv2.circle(np.zeros(SHAPE, np.uint8), (40, 30), 20 + seed % 3, 255, 1)


def objects(seed: int) -> np.ndarray:
    ids = np.zeros(SHAPE, np.uint16)
    for n in range(12 + seed):
        cv2.circle(ids, (8 + (n % 6) * 12, 8 + (n // 6) * 14), 4, n + 1, -1)
    return ids


def coloured(seed: int) -> np.ndarray:
    bgr = np.zeros((*SHAPE, 3), np.uint8)
    bgr[disc(seed) > 0] = (0, 0, 255)
    bgr[:9, :9] = (0, 255, 0)
    return bgr


def in_alpha(seed: int) -> np.ndarray:
    rgba = np.zeros((*SHAPE, 4), np.uint8)
    rgba[..., 3] = disc(seed)
    return rgba


def opaque(seed: int) -> np.ndarray:
    return np.dstack([disc(seed)] * 3 + [np.full(SHAPE, 255, np.uint8)])


def grey_levels(seed: int) -> np.ndarray:
    levels = disc(seed, 128)
    levels[:5] = 64
    return levels


def scan(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 60, anatomy.SHAPE)
    return (anatomy.answer_image() + noise).astype(np.int16)


def nnunet(root: Path, n=3) -> Path:
    for k in range(n):
        for channel in ("0000", "0001"):
            path = root / "imagesTr" / f"case_{k:03d}_{channel}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            anatomy.write_nifti(path, scan(k))
        (root / "labelsTr").mkdir(exist_ok=True)
        anatomy.write_nifti(root / "labelsTr" / f"case_{k:03d}.nii.gz", anatomy.answer_labels())
    said = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "liver": 1, "spleen": 5},
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(said))
    return root


def four_channels(root: Path, n=3) -> Path:
    import nibabel as nib

    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for k in range(n):
        data, affine = anatomy.stored(scan(k))
        four = np.stack([data, data + 5, data + 9], axis=-1)
        image = nib.Nifti1Image(four, np.diag([-1.0, -1, 1, 1]) @ affine)
        nib.save(image, root / "images" / f"c{k}.nii.gz")
        anatomy.write_nifti(root / "labels" / f"c{k}.nii.gz", anatomy.answer_labels())
    return root


def rtstructs(root: Path, n=3, *, one_folder=False) -> Path:
    for k in range(n):
        folder = root / f"pat{k}" if one_folder else root / f"pat{k}" / "CT"
        anatomy.write_series(folder, scan(k), series_uid=f"1.2.{k}")
        contours = anatomy.contours(anatomy.answer_labels() == 1, anatomy.answer_geometry())
        anatomy.write_rtstruct(root / f"pat{k}" / "RS.dcm", {"Liver": contours})
    return root


def segs(root: Path, n=2) -> Path:
    how = {"order": (0, 1, 2), "flips": (False, False, False)}
    mask = anatomy.stored(anatomy.answer_labels() == 1, **how)[0]
    for k in range(n):
        uid = f"1.2.{k}"
        anatomy.write_series(root / f"pat{k}" / "CT", scan(k), series_uid=uid, **how)
        slices = list(anatomy.series(scan(k), series_uid=uid, **how))
        anatomy.seg_dataset(slices, {"Liver": mask}).save_as(root / f"pat{k}" / "seg.dcm")
    return root


def coco(root: Path, n=4) -> Path:
    for k in range(n):
        save(root / "images" / f"c{k}.png", picture(k))
    square = [10, 10, 40, 10, 40, 40, 10, 40]
    marks = [
        {"id": k, "image_id": k, "category_id": 1, "segmentation": [square], "iscrowd": 0,
         "bbox": [10, 10, 30, 30], "area": 900}
        for k in range(n)
    ]  # fmt: skip
    images = [{"id": k, "file_name": f"c{k}.png", "width": 80, "height": 60} for k in range(n)]
    said = {"images": images, "categories": [{"id": 1, "name": "liver"}], "annotations": marks}
    (root / "marks.json").write_text(json.dumps(said))
    return root


def labelme(root: Path, n=3) -> Path:
    for k in range(n):
        save(root / f"c{k}.png", picture(k))
        shape = {"label": "polyp", "points": [[10, 10], [40, 12], [30, 40]],
                 "shape_type": "polygon", "group_id": None, "flags": {}}  # fmt: skip
        said = {"version": "5", "flags": {}, "imagePath": f"c{k}.png", "imageHeight": 60,
                "imageWidth": 80, "imageData": None, "shapes": [shape]}  # fmt: skip
        (root / f"c{k}.json").write_text(json.dumps(said))
    return root
