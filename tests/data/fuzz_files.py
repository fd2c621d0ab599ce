"""One whole file of every format that is read, with its reader, and ways to damage it."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Read = Callable[[Path], object]


def whole_files(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    """Name of the reader, path and how to read one whole file of each format."""
    folder.mkdir(parents=True, exist_ok=True)
    yield from _volumes(folder)
    yield from _dicom(folder)
    yield from _pictures(folder)
    yield from _arrays(folder)
    yield from _outlines(folder)
    yield from _archives(folder)


def _volumes(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    from sammed_data.readers import segments
    from sammed_data.readers.registry import read_volume
    from tests.data import anatomy

    image, labels = anatomy.answer_image(), anatomy.answer_labels()
    for name in ("a.nii", "a.nii.gz"):
        yield "nifti", anatomy.write_nifti(folder / name, image), read_volume
    for name in ("a.nrrd", "a.mha"):
        yield "itk", anatomy.write_itk(folder / name, image), read_volume
    head = ["NRRD0004", "type: unsigned char", "dimension: 3", "encoding: gzip",
            "space: left-posterior-superior", "sizes: 12 11 10", "kinds: domain domain domain",
            "space directions: (3,0,0) (0,2,0) (0,0,1)", "space origin: (-7,4,2.5)"]  # fmt: skip
    for value in (1, 5):
        head += [f"Segment{value}_Name:=s{value}", f"Segment{value}_Layer:=0",
                 f"Segment{value}_LabelValue:={value}"]  # fmt: skip
    path = folder / "a.seg.nrrd"
    path.write_bytes("\n".join([*head, "", ""]).encode() + gzip.compress(labels.tobytes()))
    yield "seg_nrrd", path, segments.read


def _dicom(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    import imagecodecs

    from sammed_data.readers import dicom_seg, rtstruct
    from sammed_data.readers.registry import read_volume
    from tests.data import anatomy
    from tests.data import dicom_files as made

    here = anatomy.answer_geometry()
    image, labels = anatomy.answer_image(), anatomy.answer_labels() == 1
    axial = {"order": (0, 1, 2), "flips": (False, False, False)}
    path = next(anatomy.write_series(folder / "s", image[:1], **axial).iterdir())
    yield "dicom", path, read_volume
    parts = list(anatomy.series(image, **axial))
    path = made.write(folder / "e.dcm", made.enhanced(parts, [3, 0, 7, 1, 9, 2, 8, 4, 6, 5]))
    yield "dicom enhanced", path, read_volume
    rgb = np.random.default_rng(2).integers(0, 255, (3, 20, 30, 3), dtype=np.uint8)
    cine = made.image(rgb, "YBR_FULL")
    cine.SequenceOfUltrasoundRegions = [made.region(4, 5, 23, 16)]
    yield "dicom cine", made.write(folder / "u.dcm", cine), read_volume
    grey = rgb[..., 0].astype(np.uint16)
    for codec, syntax in (("ljpeg", "70"), ("jpegls", "80"), ("jpeg2k", "90"), ("jpeg8", "50")):
        how = {"bitspersample": 12} if codec == "ljpeg" else {}
        planes = grey.astype(np.uint8) if codec == "jpeg8" else grey
        codes = [getattr(imagecodecs, f"{codec}_encode")(f, **how) for f in planes]
        ds = made.image(planes, bits=8 if codec == "jpeg8" else 12)
        ds = made.compressed(ds, f"1.2.840.10008.1.2.4.{syntax}", codes)
        yield f"dicom {codec}", made.write(folder / f"{codec}.dcm", ds), read_volume
    from pydicom.uid import RLELossless

    ds = made.image(grey, bits=12)
    ds.compress(RLELossless, generate_instance_uid=False)
    yield "dicom rle", made.write(folder / "rle.dcm", ds), read_volume
    rois = {"A": anatomy.contours(labels, here)}
    path = anatomy.write_rtstruct(folder / "rs.dcm", rois)
    yield "rtstruct", path, lambda p: rtstruct.read(p, here)
    seg = anatomy.seg_dataset(list(anatomy.series(image, **axial)), {"a": labels})
    seg.save_as(folder / "seg.dcm", enforce_file_format=True)
    yield "dicom_seg", folder / "seg.dcm", lambda p: dicom_seg.read(p, here)


def _pictures(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    import cv2
    from PIL import Image

    from sammed_data.readers import video
    from sammed_data.readers.registry import read_label_map, read_volume

    rgb = np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "a.bmp", "a.gif", "a.tif"):
        Image.fromarray(rgb).save(folder / name)
        yield "raster", folder / name, read_volume
    Image.fromarray(rgb[..., 0]).save(folder / "grey.png")
    yield "raster", folder / "grey.png", read_label_map
    (folder / "grey.pgm.gz").write_bytes(gzip.compress(b"P5 50 40 255\n" + rgb[..., 0].tobytes()))
    yield "raster", folder / "grey.pgm.gz", read_volume
    out = cv2.VideoWriter(
        str(folder / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (50, 40), isColor=True
    )
    for _ in range(4):
        out.write(rgb)
    out.release()
    yield "video", folder / "a.avi", lambda p: video.read(p, 2)


def _arrays(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    import scipy.io

    from sammed_data.readers.registry import read_label_map, read_volume
    from sammed_data.types import Pick
    from tests.data import anatomy

    image, labels = anatomy.answer_image(), anatomy.answer_labels() == 1
    np.save(folder / "a.npy", image)
    yield "arrays", folder / "a.npy", read_volume
    pictures = np.random.default_rng(1).integers(0, 255, (1, 40, 50, 3), dtype=np.uint8)
    np.save(folder / "n.npy", pictures)
    yield "arrays", folder / "n.npy", lambda p: read_volume(p, pick=Pick(axes="NYXC", item=0))
    np.savez_compressed(folder / "a.npz", x=image, y=labels)
    yield "arrays", folder / "a.npz", lambda p: read_volume(p, pick=Pick(variable="x"))
    for name, small in (("a.mat", False), ("b.mat", True)):
        scipy.io.savemat(folder / name, {"x": image, "text": "abc"}, do_compression=small)
        yield "arrays", folder / name, lambda p: read_label_map(p, pick=Pick(variable="x"))


def _drawn(suffix: str, labels: list[str], encoding: dict) -> Read:
    """A reader of annotations of the picture ``a``, 40 x 50."""
    from sammed_data.catalog import CatalogEntry
    from sammed_data.encodings import polygons, read_labels
    from sammed_data.types import Case, LabelFile, Volume

    entry = CatalogEntry(
        id="mine", name="Mine", modality="ultrasound", dims="2D", license="CC0-1.0",
        homepage="https://example.org", labels={x: "liver" for x in labels},
        layout={"images": [{"pattern": "{n}.png"}], "labels": [{"pattern": "{n}" + suffix}]},
        label_encoding=encoding,
    )  # fmt: skip

    def read(path: Path) -> object:
        polygons._parse.cache_clear()
        case = Case(
            dataset="mine", case_id="a", patient_key=None, image_path=path.parent / "a.png",
            labels=(LabelFile(path=path),), root=path.parent, fields={"n": "a"},
        )  # fmt: skip
        return read_labels(case, entry, Volume(array=np.zeros((1, 40, 50), np.uint8)))

    return read


def _outlines(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    triangle = [[4.5, 5.5], [40.5, 8.5], [12.5, 30.5]]
    shape = {"label": "A", "points": triangle, "shape_type": "polygon"}
    texts = {
        "labelme.json": json.dumps(
            {"imagePath": "a.png", "imageHeight": 40, "imageWidth": 50, "shapes": [shape]}
        ),
        "coco.json": json.dumps({
            "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 50}],
            "categories": [{"id": 3, "name": "A"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0,
                 "segmentation": [[v for p in triangle for v in p]]},
                {"id": 2, "image_id": 1, "category_id": 3, "iscrowd": 1,
                 "segmentation": {"size": [40, 50], "counts": [90, 8, 32, 9, 1861]}},
            ],
        }),
        "aperio.xml": "<Annotations><Annotation><Attributes><Attribute Name='A'/></Attributes>"
        "<Regions><Region Type='0' NegativeROA='0'><Vertices>"
        + "".join(f"<Vertex X='{x}' Y='{y}'/>" for x, y in triangle)
        + "</Vertices></Region></Regions></Annotation></Annotations>",
        "cvat.xml": "<annotations><version>1.1</version><image id='0' name='a.png' width='50' "
        "height='40'><polygon label='A' points='4.5,5.5;40.5,8.5;12.5,30.5'/></image>"
        "</annotations>",
    }  # fmt: skip
    for name, text in texts.items():
        path = folder / name
        path.write_text(text)
        form, suffix = name.split(".")
        yield f"polygons {form}", path, _drawn(f".{suffix}", ["A"], {
            "type": "polygons", "format": form,
        })  # fmt: skip
    path = folder / "runs.csv"
    path.write_text("image,kind,runs\na,A,12 5 70 9 300 20\na,B,900 4\n")
    encoding = {
        "type": "rle_csv", "runs": {"order": "row"},
        "table": {"pattern": "runs.csv", "id": "{n}", "id_column": "image", "class_column": "kind",
                  "rle_column": "runs"},
    }  # fmt: skip
    yield "rle_csv", path, _drawn(".csv", ["A", "B"], encoding)


def _archives(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    picture = (folder / "a.png").read_bytes()
    (folder / "in").mkdir(exist_ok=True)
    for name in ("1.png", "2.png"):
        (folder / "in" / name).write_bytes(picture)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("1.png", "2.png"):
            packed.write(folder / "in" / name, f"x/{name}")
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz")):
        with tarfile.open(folder / name, mode) as bundle:
            bundle.add(folder / "in", "x")
    for name in ("a.zip", "a.tar", "a.tar.gz"):
        yield "archives", folder / name, _read_archive


def _read_archive(path: Path) -> object:
    """List it, take one member out, and read that."""
    from sammed_data import archives
    from sammed_data.readers.registry import read_image
    from sammed_data.types import Case, ReadError
    from sammed_data.unpack import unpacked

    members = [p for p, is_folder in archives.walk(path) if not is_folder and p.endswith(".png")]
    if not members:
        raise ReadError(f"{path}: expected pictures, found none; fetch it again")
    case = Case(dataset="a", case_id="a", patient_key=None, image_path=path / members[0],
                labels=(), root=path)  # fmt: skip
    with unpacked((case,), path.parent / "scratch") as ready:
        if ready[0].damage:
            raise ReadError(ready[0].damage)
        return read_image(ready[0])


def damaged(data: bytes, kind: int, rng: np.random.Generator) -> bytes:
    """Cut short; bytes changed anywhere, or in the header; a piece doubled; a run of 0 or
    255; digits changed."""
    if kind == 0:
        return data[: rng.integers(0, len(data))]
    changed = bytearray(data)
    if kind == 3:
        start, length = rng.integers(0, len(data)), rng.integers(1, 200)
        return bytes(changed[: start + length] + changed[start:])
    if kind == 5:  # numbers of text formats become other numbers
        digits = [k for k, byte in enumerate(data) if 48 <= byte <= 57]
        for _ in range(rng.integers(1, 5) if digits else 0):
            place = digits[rng.integers(0, len(digits))]
            changed[place] = b"0123456789-.e,"[rng.integers(0, 14)]
        return bytes(changed)
    top = len(data) if kind == 1 else min(len(data), 400)
    if kind == 4:
        start, length = rng.integers(0, top), rng.integers(1, 9)
        changed[start : start + length] = bytes([rng.choice([0, 255])]) * length
        return bytes(changed)
    for _ in range(rng.integers(1, 12)):
        changed[rng.integers(0, top)] = rng.integers(0, 256)
    return bytes(changed)


KINDS = 6
