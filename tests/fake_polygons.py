"""Writers of annotation files in true polygon formats, from masks made of boxes.

Outlines run half a pixel outside the pixel centres of a box (LIDC: through the next pixels), so
the pixels inside are known without drawing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

Masks = Mapping[str, np.ndarray]


def boxes_of(mask_HW: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(x0, y0, x1, y1), half-open, of every connected part; each must be a full box."""
    from scipy.ndimage import find_objects, label

    parts, _ = label(mask_HW)
    return [(c.start, r.start, c.stop, r.stop) for r, c in find_objects(parts)]


def corners(box: tuple[int, int, int, int], shift: float = -0.5) -> list[tuple[float, float]]:
    """Outline of a box; -0.5 where pixel centres are whole numbers, 0 where corners are."""
    x0, y0, x1, y1 = (v + shift for v in box)
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def write_polygons(kind: str, path: Path, image: Path, masks_ZYX: Masks, key: str = "") -> None:
    """Write, or for files of many images add to, an annotation file.

    Args:
        kind: format of the entry.
        path: annotation file.
        image: picture or DICOM series that exists already.
        masks_ZYX: raw label -> boxes.
        key: what the file calls the image, where it speaks of many.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "lidc":
        write_lidc(path, image, masks_ZYX)
    else:
        flat = {k: m[0] for k, m in masks_ZYX.items()}
        _WRITERS[kind](path, key or image.name, flat)


def _tree(path: Path, name: str) -> ET.Element:
    return ET.parse(path).getroot() if path.exists() else ET.Element(name)


def _save(path: Path, root: ET.Element) -> None:
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def write_aperio(path: Path, key: str, masks: Masks) -> None:
    root = ET.Element("Annotations", MicronsPerPixel="0.252")
    for number, (name, mask) in enumerate(masks.items(), start=1):
        group = ET.SubElement(root, "Annotation", Id=str(number), Name="", Visible="1")
        held = ET.SubElement(group, "Attributes")
        ET.SubElement(held, "Attribute", Name="Description" if name == "*" else name, Value="")
        regions = ET.SubElement(group, "Regions")
        for box in boxes_of(mask):
            region = ET.SubElement(regions, "Region", Id="1", Type="0", NegativeROA="0")
            vertices = ET.SubElement(region, "Vertices")
            for x, y in corners(box):
                ET.SubElement(vertices, "Vertex", X=f"{x}", Y=f"{y}", Z="0")
    _save(path, root)


def write_cvat(path: Path, key: str, masks: Masks) -> None:
    root = _tree(path, "annotations")
    if root.find("version") is None:
        ET.SubElement(root, "version").text = "1.1"
    height, width = next(iter(masks.values())).shape
    image = ET.SubElement(root, "image", id=str(len(root)), name=key)
    image.attrib |= {"width": str(width), "height": str(height)}
    for name, mask in masks.items():
        for box in boxes_of(mask):
            text = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(box, 0.0))
            ET.SubElement(image, "polygon", label=name, points=text, occluded="0", z_order="0")
    _save(path, root)


def write_ddti(path: Path, key: str, masks: Masks) -> None:
    root = _tree(path, "case")
    mark = ET.SubElement(root, "mark")
    ET.SubElement(mark, "image").text = key
    items = [
        {
            "points": [{"x": x, "y": y} for x, y in corners(box)],
            "annotation": {},
            "regionType": "freehand",
        }
        for mask in masks.values()
        for box in boxes_of(mask)
    ]
    ET.SubElement(mark, "svg").text = json.dumps(items)
    _save(path, root)


def write_points(path: Path, key: str, masks: Masks) -> None:
    (mask,) = masks.values()
    (box,) = boxes_of(mask)
    path.write_text("".join(f"{x:.6f} {y:.6f}\n" for x, y in corners(box)))


def write_labelme(path: Path, key: str, masks: Masks) -> None:
    height, width = next(iter(masks.values())).shape
    shapes = [
        {"label": name, "points": corners(box, 0.0), "group_id": None, "shape_type": "polygon"}
        for name, mask in masks.items()
        for box in boxes_of(mask)
    ]
    path.write_text(
        json.dumps(
            {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": key,
             "imageData": None, "imageHeight": height, "imageWidth": width}
        )
    )  # fmt: skip


def write_coco(path: Path, key: str, masks: Masks) -> None:
    start = {"images": [], "annotations": [], "categories": []}
    data = json.loads(path.read_text()) if path.exists() else start
    height, width = next(iter(masks.values())).shape
    image_id = len(data["images"]) + 1
    data["images"].append({"id": image_id, "file_name": key, "width": width, "height": height})
    known = {c["name"]: c["id"] for c in data["categories"]}
    for name, mask in masks.items():
        if name not in known:
            known[name] = len(known) + 1
            data["categories"].append({"id": known[name], "name": name})
        for box in boxes_of(mask):
            flat = [v for corner in corners(box, 0.0) for v in corner]
            data["annotations"].append(
                {"id": len(data["annotations"]) + 1, "image_id": image_id, "iscrowd": 0,
                 "category_id": known[name], "segmentation": [flat],
                 "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
            )  # fmt: skip
    path.write_text(json.dumps(data))


def write_lidc(path: Path, series: Path, masks_ZYX: Masks, n_readers: int = 4) -> None:
    """Every reading outlines every box; the edge runs through the first pixels outside."""
    from scipy.ndimage import find_objects, label

    slices = _slices(series)
    root = ET.Element("LidcReadMessage", xmlns="http://www.nih.gov", uid="1.2.3")
    ET.SubElement(ET.SubElement(root, "ResponseHeader"), "Version").text = "1.8.1"
    for _ in range(n_readers):
        session = ET.SubElement(root, "readingSession")
        for mask in masks_ZYX.values():
            parts, _n = label(mask)
            for depth, rows, columns in find_objects(parts):
                nodule = ET.SubElement(session, "unblindedReadNodule")
                ET.SubElement(nodule, "noduleID").text = "Nodule"
                for k in range(depth.start, depth.stop):
                    box = (columns.start, rows.start, columns.stop, rows.stop)
                    add_roi(nodule, slices[k], edge_map(box))
    _save(path, root)


def edge_map(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """The pixels around a box, in order, closed."""
    x0, y0, x1, y1 = box[0] - 1, box[1] - 1, box[2], box[3]
    top = [(x, y0) for x in range(x0, x1)]
    right = [(x1, y) for y in range(y0, y1)]
    bottom = [(x, y1) for x in range(x1, x0, -1)]
    left = [(x0, y) for y in range(y1, y0, -1)]
    return [*top, *right, *bottom, *left, (x0, y0)]


def add_roi(
    nodule: ET.Element,
    where: tuple[str, float],
    edge: list[tuple[int, int]],
    inclusion: str = "TRUE",
) -> None:
    """One contour of a nodule on the slice (UID, z in mm)."""
    roi = ET.SubElement(nodule, "roi")
    ET.SubElement(roi, "imageZposition").text = f"{where[1]}"
    ET.SubElement(roi, "imageSOP_UID").text = where[0]
    ET.SubElement(roi, "inclusion").text = inclusion
    for x, y in edge:
        point = ET.SubElement(roi, "edgeMap")
        ET.SubElement(point, "xCoord").text = str(x)
        ET.SubElement(point, "yCoord").text = str(y)


def _slices(series: Path) -> list[tuple[str, float]]:
    """(UID, z in mm) of the slices, from below."""
    import pydicom

    read = [pydicom.dcmread(p) for p in series.iterdir() if p.suffix == ".dcm"]
    found = [(str(d.SOPInstanceUID), float(d.ImagePositionPatient[2])) for d in read]
    return sorted(found, key=lambda s: s[1])


_WRITERS: dict[str, Callable[[Path, str, Masks], None]] = {
    "aperio": write_aperio,
    "coco": write_coco,
    "cvat": write_cvat,
    "ddti": write_ddti,
    "labelme": write_labelme,
    "points": write_points,
}
