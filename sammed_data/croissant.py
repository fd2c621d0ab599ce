"""``croissant.json``: the corpus in the words of MLCommons Croissant 1.0, made from the manifest.

It says what the shards hold, what each column means and where the data come from, so that search
engines and `mlcroissant` read the corpus without knowing us.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sammed_data.corpus import MASK_FIELDS, SCHEMA, SPLITS

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_MEANING = {
    "sample_id": "Unique name of the row: dataset, case, axis and slice.",
    "image": "8-bit picture of the slice.",
    "image_u16": "16-bit picture, where the corpus was built with --depth 16.",
    "masks": "Every mask of the picture; masks may overlap.",
    "ignore": "Pixels that count neither as object nor as background.",
    "annotated_structures": "What was labelled; the absence of anything else is unknown.",
    "dataset": "Catalogue id of the source dataset.",
    "role": "train, or held_out for datasets no model is to be trained on.",
    "modality": "CT, MR, ultrasound and so on.",
    "patient_id": "Pseudonym of the patient within the dataset.",
    "cluster": "What patient_id counts: patient, study, image or unknown.",
    "split": "train, validation, test or held_out; whole patients.",
    "axis": "Anatomical axis of the slice, or native for 2D images.",
    "orientation": "lps, stored or native: how rows and columns lie.",
    "slice_index": "Position in the volume, from 0.",
    "slice_position_mm": "Position along the axis in mm, LPS.",
    "spacing_y_mm": "Height of a pixel in mm, where known.",
    "spacing_x_mm": "Width of a pixel in mm, where known.",
    "license": "Licence of the source, as far as it is known.",
    "content_sha256": "Hash over metadata, decoded pixels and masks of the row.",
}
_SCALARS = {
    pa.string(): "sc:Text", pa.int32(): "sc:Integer", pa.int64(): "sc:Integer",
    pa.float64(): "sc:Float", pa.bool_(): "sc:Boolean",
}  # fmt: skip
_SHARDS = "shards"


def make_croissant(manifest: Mapping[str, Any]) -> str:
    """JSON-LD text; a function of the manifest alone."""
    counts, datasets = manifest["counts"], manifest["datasets"]
    found = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "sammed-corpus",
        "description": (
            f"{counts['images']['kept']} medical images with {counts['masks']['kept']} masks from "
            f"{len(datasets)} datasets; one row is one 2D image with all its masks."
        ),
        "version": f"{manifest['schema_version']}.0.0",
        "license": sorted({d["license"] for d in datasets}),
        "keywords": ["medical images", "segmentation", *sorted({d["modality"] for d in datasets})],
        "isBasedOn": [_source(d) for d in datasets],
        "citeAs": "\n".join(sorted({d["citation"] for d in datasets if d["citation"]})),
        "rai:personalSensitiveInformation": (
            "No identifier of a DICOM header is stored; patients are pseudonyms."
        ),
        "identifier": f"sha256:{manifest['content_sha256']}",
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": _SHARDS,
                "name": _SHARDS,
                "description": "Parquet files, data/<split>/<dataset>-<number>.parquet.",
                "encodingFormat": "application/x-parquet",
                "includes": "data/*/*.parquet",
            }
        ],
        "recordSet": [_split_names(manifest), _images()],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _source(dataset: Mapping[str, Any]) -> dict[str, Any]:
    names = {"name": "name", "url": "homepage", "license": "license", "citation": "citation"}
    said = {key: dataset[name] for key, name in names.items() if dataset[name]}
    return {"@type": "sc:Dataset", **said}


def _split_names(manifest: Mapping[str, Any]) -> dict[str, Any]:
    present = {shard["path"].split("/")[1] for shard in manifest["shards"]}
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"}
        ],
        "data": [{"splits/name": split} for split in SPLITS if split in present],
    }


def _images() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "key": {"@id": "images/sample_id"},
        "field": [_field(field.name, field.type) for field in SCHEMA],
    }


def _field(name: str, kind: pa.DataType) -> dict[str, Any]:
    found: dict[str, Any] = {"@type": "cr:Field", "@id": f"images/{name}", "name": name}
    if name in _MEANING:
        found["description"] = _MEANING[name]
    if pa.types.is_list(kind):
        found["repeated"] = True
        kind = kind.value_type
    if name in ("image", "image_u16", "ignore"):
        return found | {"dataType": "sc:ImageObject", "source": _column(name, "bytes")}
    if name == "masks":
        inside = [(n, k) for n, k in MASK_FIELDS]
    elif pa.types.is_struct(kind):
        inside = [(f.name, f.type) for f in kind]
    else:
        return found | {"dataType": _SCALARS[kind], "source": _column(name)}
    return found | {"subField": _parts(name, inside)}


def _parts(parent: str, fields: Sequence[tuple[str, pa.DataType]]) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:Field",
            "@id": f"images/{parent}/{name}",
            "name": name,
            "dataType": "sc:ImageObject" if name == "mask" else _scalar(kind),
            "source": _column(parent, f"{name}.bytes" if name == "mask" else name),
            # mlcroissant 1.1 casts each picture of a list only where its own field is repeated.
            **({"repeated": True} if name == "mask" or pa.types.is_fixed_size_list(kind) else {}),
        }
        for name, kind in fields
    ]


def _scalar(kind: pa.DataType) -> str:
    return _SCALARS[kind.value_type if pa.types.is_fixed_size_list(kind) else kind]


def _column(name: str, inside: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"fileSet": {"@id": _SHARDS}, "extract": {"column": name}}
    return found if inside is None else found | {"transform": {"jsonPath": inside}}
