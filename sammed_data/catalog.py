"""The door for `catalogs/*.yaml`: one entry per public dataset, parsed once, then trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from sammed_data.entry_parts import Axes, Collection, RawPixels, RunLengths, Strict, Table
from sammed_data.lineage import bundled_catalogs
from sammed_data.types import CatalogError, UsageError, nearest

Modality = Literal[
    "CT", "MR", "PET", "X-ray", "ultrasound", "dermoscopy", "endoscopy", "fundus", "OCT",
    "histopathology", "microscopy", "mammography", "several",
]  # fmt: skip
Encoding = Literal[
    "index", "values", "binary", "file_per_class", "file_per_instance", "instance_ids", "rgb",
    "dicom_seg", "rtstruct", "rgb_instances", "instance_colors", "instance_csv",
    "typed_instances", "channel_instances", "rle_csv",
    "polygons", "seg_nrrd",
    "released_masks", "sparse_channels",
]  # fmt: skip
Axis = Literal["axial", "coronal", "sagittal"]
OutlineFormat = Literal["aperio", "coco", "cvat", "ddti", "labelme", "lidc", "points"]
OWN_ENTRIES = "entries of your own are found with --source FOLDER"
_OF_COLLECTIONS = ("released_masks", "sparse_channels")
UsedBy = Literal["sa_med2d_20m", "miccai2023_generalisation"]


def _as_list(value: object) -> object:
    return value if isinstance(value, list) or value is None else [value]


def _inside(path: str) -> str:
    if path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise ValueError("expected a folder below the dataset's own, without '..'")
    return path


class ImagePattern(Strict):
    """Where images lie, relative to the dataset root.

    ``{name}`` is one path part (equal names must have equal values in image and label), ``*``
    anything inside one part, ``**`` any depth. A pattern that ends in ``/`` names a folder that
    holds one DICOM series.

    Attributes:
        channel: list = names along the last axis of a 4D file; string = this file is that sequence.
        variable: name of the array in a npz or mat file; not needed where there is only one.
        axes: what the axes of an array are (npy, npz, mat); without it YX or ZYX.
        half: the picture holds image and label side by side; this half is the image.
        raw: the file has no header.
        frames: table with the numbers of the frames of a 4D file that are labelled.
        first_frame: of a video: the number that labels give to its first frame, in ``{frame}``.
    """

    pattern: str
    channel: str | list[str] | None = None
    variable: str | None = None
    axes: Axes | None = None
    half: Literal["left", "right"] | None = None
    raw: RawPixels | None = None
    frames: Table | None = None
    first_frame: Literal[0, 1] = 0


class LabelPattern(Strict):
    """Where labels lie; ``{structure}`` = one file per class, ``{instance}`` = one per object.

    Attributes:
        annotator: number of the observer.
        structure: key of ``labels`` for all files of this pattern, in place of ``{structure}``.
        channel: ``image`` = the frame that the image was taken from; a number = always that one.
        variable, axes, half: as for images.
    """

    pattern: str
    annotator: int = 1
    structure: str | None = None
    channel: Literal["image"] | int | None = None
    variable: str | None = None
    axes: Axes | None = None
    half: Literal["left", "right"] | None = None


class Layout(Strict):
    """File layout of a dataset; ``example`` is one image path and one label path that match."""

    images: list[ImagePattern]
    labels: list[LabelPattern]
    exclude: list[str] = Field(default_factory=list)
    example: dict[Literal["image", "label"], str] | None = None


class LabelEncoding(Strict):
    """How label pixels say what they mean (`facts/datasets.md`).

    Attributes:
        threshold: for ``binary``: pixels above it are foreground.
        ignore: raw values that are neither object nor background.
        inverted: for ``binary``: foreground is at or below the threshold.
        fill: for ``binary``: the annotation is an outline; what it encloses is foreground.
        partial: only some objects are drawn; absence is unknown, not background.
        unlabelled_ok: raw values that the source uses for unlabelled tissue.
        recompose: for ``index``: key of ``labels`` -> raw values that together make it; a raw value
            may be part of several, and need not be a label itself.
        inner_values: for ``file_per_instance``: the pixel value, not the file, says the class.
        round_colours: for colours: each channel counts as 0 or 255, whichever is nearer.
        variables: for ``typed_instances``: arrays of the file; ``instances`` and ``types``.
        table: for ``rle_csv`` and ``instance_csv``; for ``binary`` it tells the class of an image.
        runs: for ``rle_csv``.
        format: for ``polygons``: what the annotation files are.
        image_name: for ``polygons`` of many images in one file: what the file calls an image, with
            ``{fields}`` of its pattern; without it images are found by their paths.
        pixel_center: for ``polygons``: coordinate of the first pixel's centre, 0 or 0.5.
        readers: for LIDC: ``each`` reading is an observer, or what the ``majority`` encloses.
    """

    type: Encoding
    threshold: float | None = None
    ignore: list[str] = Field(default_factory=list)
    inverted: bool = False
    fill: bool = False
    partial: bool = False
    unlabelled_ok: list[str] = Field(default_factory=list)
    recompose: dict[str, list[int]] = Field(default_factory=dict)
    inner_values: bool = False
    round_colours: bool = False
    variables: dict[Literal["instances", "types"], str] = Field(default_factory=dict)
    table: Table | None = None
    runs: RunLengths | None = None
    format: OutlineFormat | None = None
    image_name: str | None = None
    pixel_center: Annotated[float, Field(ge=0, le=0.5)] | None = None
    readers: Literal["each", "majority"] = "each"

    @model_validator(mode="after")
    def _check(self) -> LabelEncoding:
        if self.type == "rle_csv" and (
            self.table is None or self.table.rle_column is None or self.runs is None
        ):
            raise ValueError("the encoding rle_csv needs `table` with `rle_column`, and `runs`")
        if self.type == "instance_csv" and (
            self.table is None or None in (self.table.value_column, self.table.class_column)
        ):
            raise ValueError(
                "the encoding instance_csv needs `table` with `value_column` and `class_column`"
            )
        if self.type == "typed_instances" and len(self.variables) != 2:
            raise ValueError("the encoding typed_instances needs `variables: {instances:, types:}`")
        if self.type == "binary" and self.table is not None and self.table.class_column is None:
            raise ValueError("`table` of the encoding binary needs `class_column`")
        if (self.type == "polygons") != (self.format is not None):
            raise ValueError("the encoding polygons, and no other, needs `format`")
        return self


class PatientRule(Strict):
    """Group 1 (or all groups joined by '_') of ``regex`` searched in the relative image path.

    ``unit`` says what the key is: a patient, a study, a video clip, or only an image.
    """

    regex: str
    unit: Literal["patient", "study", "clip", "image"] = "patient"


class Expected(Strict):
    """Counts a full download should have; checked by ``sammed data check``.

    ``images``: 2D images or slices, ``masks``: candidate masks, where somebody counted them.
    """

    cases: int | None = None
    images: int | None = None
    masks: int | None = None


class Download(Strict):
    """What `sammed data fetch` gets: a file, a Zenodo-like record, a Hugging Face repository.

    Attributes:
        url: ``https://`` (a file, or ``.../records/<number>``) or ``hf://datasets/owner/name[/path]``.
        mirrors: other addresses of the same bytes, tried in order.
        file: name to save it under; default: the last part of the address.
        files: globs of the files to take out of a record or repository; empty = all.
        bytes: size. sha256, md5: lower-case hexadecimal.
        token_env: name of the environment variable that holds the access token.
        unpack: False keeps an archive as it is.
        unpack_to: folder below the dataset's own folder; ``{stem}`` = the archive's name.
    """

    url: Annotated[str, Field(pattern=r"^(https?|hf)://[^\s]+$")]
    mirrors: list[Annotated[str, Field(pattern=r"^(https?|hf)://[^\s]+$")]] = Field(
        default_factory=list
    )
    file: Annotated[str, Field(pattern=r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$")] | None = None
    files: list[str] = Field(default_factory=list)
    bytes: Annotated[int, Field(ge=0)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    token_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    unpack: bool = True
    unpack_to: Annotated[str, AfterValidator(_inside)] = "."


class CatalogEntry(Strict):
    """One dataset of the catalogue; see docs/catalogue.md for the meaning of each key.

    ``collection``: the entry is a released corpus of many sources; ``modality`` is ``several``.
    ``unions``: further masks, name of the union -> structures (or keys of ``labels``) it joins.
    ``burned_in: keep`` states that somebody looked: writing in the pixels names no patient.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
    name: str
    version: int = 1
    year: int | None = None
    modality: Modality
    sequence: str = ""
    dims: Literal["2D", "3D"]
    layout: Layout
    label_encoding: LabelEncoding
    labels: Annotated[dict[str, str], BeforeValidator(lambda d: {str(k): v for k, v in d.items()})]
    unions: dict[str, list[str]] = Field(default_factory=dict)
    collection: Collection | None = None
    patient: PatientRule | None = None
    splits: Annotated[dict[str, list[str]], Field(default_factory=dict)]
    role: Literal["train", "held_out"] = "train"
    used_by: list[UsedBy] = Field(default_factory=list)
    axes: list[Axis] = ["axial"]
    window: tuple[float, float] | None = None
    intensity: Literal["auto", "window", "percentile", "identity"] = "auto"
    grid: Literal["same", "resample_image", "resize_image"] = "same"
    overlaps: list[str] = Field(default_factory=list)
    license: str
    license_confidence: Literal["high", "medium", "low"] = "low"
    license_evidence: str = ""
    access: Literal["open", "registration", "DUA"] = "open"
    access_note: str = ""
    homepage: str
    citation: str = ""
    download_url: str | None = None
    downloads: list[Download] = Field(default_factory=list)
    expected: Expected = Field(default_factory=Expected)
    quirks: list[str] = Field(default_factory=list)
    evidence: Literal["written", "tree-seen", "built"] = "written"
    privacy: Literal["public", "restricted"] = "public"
    burned_in: Literal["quarantine", "keep"] = "quarantine"
    root: Annotated[list[str], BeforeValidator(_as_list), Field(default_factory=list)]

    @model_validator(mode="after")
    def _check(self) -> CatalogEntry:
        for split in self.splits:
            if split not in ("train", "validation", "test"):
                raise ValueError(f"splits: {split!r} is not one of train, validation, test")
        if self.patient is not None:
            try:
                groups = re.compile(self.patient.regex).groups
            except re.error as err:
                raise ValueError(f"patient.regex is not a regular expression: {err}") from err
            if not groups:
                raise ValueError("patient.regex needs a (group) that holds the patient key")
        known = {*self.labels, *self.labels.values()}
        for union, members in self.unions.items():
            for member in members:
                if member not in known:
                    raise ValueError(
                        f"unions.{union}: {member!r} is not in labels; {nearest(member, known)}"
                    )
        return self

    @model_validator(mode="after")
    def _check_collection(self) -> CatalogEntry:
        if (self.modality == "several") != (self.collection is not None):
            raise ValueError("`modality: several` and `collection` go together")
        if (self.label_encoding.type in _OF_COLLECTIONS) != (self.collection is not None):
            raise ValueError(f"`collection` goes with the encodings {', '.join(_OF_COLLECTIONS)}")
        for named, modality in self.collection.modality.items() if self.collection else ():
            if modality not in get_args(Modality):
                raise ValueError(
                    f"collection.modality.{named}: {nearest(modality, get_args(Modality))}"
                )
        return self

    @model_validator(mode="after")
    def _check_raw_labels(self) -> CatalogEntry:
        named = [("label_encoding.recompose", key) for key in self.label_encoding.recompose]
        named += [
            ("layout.labels.structure", rule.structure)
            for rule in self.layout.labels
            if rule.structure is not None
        ]
        for where, key in named:
            if key not in self.labels:
                raise ValueError(f"{where}: {key!r} is not in labels; {nearest(key, self.labels)}")
        return self


def json_schema() -> dict[str, object]:
    """JSON Schema of an entry, for editors that check YAML while it is written."""
    return CatalogEntry.model_json_schema()


def parse_entry(path: Path) -> CatalogEntry:
    """Parse one catalogue file.

    Raises:
        CatalogError: not YAML, unknown or missing keys (all named at once), wrong values.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        found = "an empty file" if raw is None else type(raw).__name__
        raise CatalogError(
            f"{path}: expected a mapping of keys at the top, found {found}; mend or remove it"
        )
    return entry_of(raw, str(path))


def entry_of(raw: Mapping[str, object], where: str) -> CatalogEntry:
    """The entry that a mapping of keys makes.

    Raises:
        CatalogError: unknown or missing keys (all named at once), wrong values; begins with
            ``where``.
    """
    try:
        return CatalogEntry.model_validate(dict(raw))
    except ValidationError as err:
        raise CatalogError(f"{where}: {_sentences(err)}") from err


def read_yaml(path: Path) -> object:
    """Load a YAML file by libyaml where it is installed (ten times faster).

    Raises:
        CatalogError: not a readable YAML file; the parser's place is named.
    """
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506  both are safe
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as err:
        said = " ".join((getattr(err, "strerror", None) or str(err)).split())
        raise CatalogError(f"{path}: expected a YAML file, but {said}; mend or remove it") from err


def _sentences(err: ValidationError) -> str:
    parts = []
    for item in err.errors():
        where = ".".join(str(p) for p in item["loc"]) or "entry"
        if item["type"] == "extra_forbidden":
            owner = CatalogEntry if len(item["loc"]) == 1 else None
            known = list(owner.model_fields) if owner else _nested_fields(item["loc"])
            parts.append(f"unknown key {where!r}; {nearest(str(item['loc'][-1]), known)}")
        elif item["type"] == "missing":
            parts.append(f"key {where!r} is missing")
        else:
            parts.append(f"{where}: {item['msg']}, found {item['input']!r:.80}")
    return "; ".join(parts)


def _nested_fields(loc: tuple[int | str, ...]) -> list[str]:
    owners: dict[str, type[BaseModel]] = {
        "layout": Layout, "images": ImagePattern, "labels": LabelPattern, "patient": PatientRule,
        "label_encoding": LabelEncoding, "expected": Expected, "raw": RawPixels,
        "table": Table, "frames": Table, "runs": RunLengths, "collection": Collection,
        "downloads": Download,
    }  # fmt: skip
    named = [owners[p] for p in loc[:-1] if isinstance(p, str) and p in owners]
    return list(named[-1].model_fields) if named else []


def refuse_unknown(names: Iterable[str], entries: Iterable[str], folder: Path | None) -> None:
    """Whether all names are ids of the entries of a folder; None = the bundled ones.

    Raises:
        UsageError: some are not; each with its neighbours.
    """
    known = set(entries)
    unknown = [f"{name!r}: {nearest(name, known)}" for name in names if name not in known]
    if unknown:
        where = "" if folder else f"; {OWN_ENTRIES}"
        raise UsageError(
            f"expected ids of catalogue entries, found unknown ones: {'; '.join(unknown)}{where}"
        )


def load_catalogs(folder: Path | None) -> dict[str, CatalogEntry]:
    """Parse every ``*.yaml`` of a folder (files that start with ``_`` are not entries).

    Args:
        folder: None = the catalogues that travel with the package.

    Raises:
        CatalogError: the folder is missing or empty, an entry is wrong, or an id differs from its
            file name; all wrong files are named together.
    """
    base = bundled_catalogs() if folder is None else folder
    if not base.is_dir():
        raise CatalogError(
            f"no catalogue folder at {base}: pass --source FOLDER with *.yaml entries"
        )
    paths = sorted(p for p in base.glob("*.yaml") if not p.name.startswith("_"))
    if not paths:
        raise CatalogError(f"{base} has no *.yaml entry: pass --source FOLDER with entries")
    entries: dict[str, CatalogEntry] = {}
    problems: list[str] = []
    for path in paths:
        try:
            entry = parse_entry(path)
        except CatalogError as err:
            problems.append(str(err))
            continue
        if entry.id != path.stem:
            problems.append(f"{path}: id is {entry.id!r}, expected the file name {path.stem!r}")
        entries[entry.id] = entry
    if problems:
        raise CatalogError("\n".join(problems))
    return entries
