"""What ``sammed predict`` does: every image read, asked about, segmented and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sammed_app.predict import outputs
from sammed_app.predict.coarse import Coarse, from_coarse
from sammed_app.predict.prompts import of_image
from sammed_app.predict.scan import Scan, Window, find_images, read_scan, stem_of
from sammed_app.predict.segment import check_prompts, segment
from sammed_app.predict.types import Asked, Following, Format, Report, Segmented
from sammed_data.manifest import sammed_version
from sammed_data.types import ModelError, SammedError, UsageError
from sammed_data.writers.dicom_seg import Author
from sammed_model.checkpoint import weight_digest
from sammed_model.onnx_model import OnnxModel
from sammed_model.predictor import SammedPredictor
from sammed_model.runs import write_json


@dataclass(frozen=True, kw_only=True)
class Options:
    """A resolved command line; see the help of ``sammed predict``."""

    inputs: tuple[Path, ...]
    out: Path
    asked: tuple[Asked, ...] = ()
    coarse: Path | None = None
    coarse_form: str = "box"
    axis: str = ""
    orientation: str = "lps"
    window: Window = Window()
    following: Following = Following()
    form: Format = "auto"
    per_object: bool = False
    overlays: bool = False
    channel: int | None = None


def run(
    options: Options,
    predictor: SammedPredictor | None,
    *,
    model: str = "",
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Predict; without a predictor everything but the model and the writing is tried (dry run).

    Args:
        options: what to do.
        predictor: with its model.
        model: how the user named the weights, for the record.
        tell: told what is done.

    Raises:
        UsageError: the command asks for something that cannot be done.
        SammedError: the only image failed; of several, failures are in the report.
    """
    images = find_images(options.inputs)
    targets = _targets(options, images)
    report = Report()
    for path in images:
        try:
            report.images.append(_one(options, predictor, path, targets[path], model, tell))
        except SammedError as err:
            if len(images) == 1:
                raise
            report.failed.append({"image": str(path), "error": str(err)})
            tell(f"failed: {err}")
    if predictor is not None:
        _record(options, predictor, model, report)
    return report


def _targets(options: Options, images: Sequence[Path]) -> dict[Path, Path]:
    """Output file of each image, without the ending where the format is not known yet."""
    if outputs.format_of_file(options.out) is not None:
        if len(images) > 1:
            raise UsageError(f"expected a folder as --out for {len(images)} images")
        return {images[0]: options.out}
    names = [stem_of(path) for path in images]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:  # series folders are often all called `image`
        names = ["_".join(path.parts[-3:-1]) + f"_{stem_of(path)}" for path in images]
    if len(set(names)) < len(names):
        raise UsageError(f"expected images of different names, found {twice} several times")
    return {path: options.out / name for path, name in zip(images, names, strict=True)}


def _one(
    options: Options,
    predictor: SammedPredictor | None,
    path: Path,
    target: Path,
    model: str,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    start = time.perf_counter()
    scan = read_scan(path, options.window, orientation=options.orientation, channel=options.channel)
    axis = scan.axis_of(options.axis)
    if options.coarse is not None:
        coarse = from_coarse(options.coarse, scan, axis, options.coarse_form)
    else:
        coarse = Coarse(asked=of_image(options.asked, scan), left_out=0)
        axis = next((one.axis for one in coarse.asked if one.axis), axis)
    asked = coarse.asked
    if not asked:
        raise UsageError(f"expected a prompt for {path}, found none about it")
    asked = check_prompts(scan, asked, axis)
    form = outputs.format_for(scan, outputs.format_of_file(options.out) or options.form)
    if target != options.out:
        target = target.with_name(f"{target.name}_mask{outputs.ending(form)}")
    _spare(target, [path, *options.inputs, *([options.coarse] if options.coarse else [])])
    said: dict[str, Any] = {
        "image": str(path),
        "axis": axis,
        "slices": scan.count(axis),
        "slice_size_wh": list(scan.size(axis))[::-1],
        "window": {"policy": scan.intensity.policy, "low": scan.intensity.low,
                   "high": scan.intensity.high},
        "warnings": [*scan.warnings, *coarse.warnings],
        "prompts": [asdict(one) for one in asked],
        "components_left_out": coarse.left_out,
        "format": form,
        "files": [str(target)],
    }  # fmt: skip
    if predictor is None:
        return said
    done = segment(
        predictor, scan, asked, axis, options.following, tick=lambda t: tell(f"{path.name}: {t}")
    )
    author = Author(
        algorithm=f"sammed {predictor.model.kind}",
        version=sammed_version(),
        description=f"Masks of {predictor.model.kind} weights",
    )
    files = outputs.write(scan, done, target, form, author, per_object=options.per_object)
    if options.overlays:
        files += outputs.write_overlays(scan, done, target.parent, stem_of(target))
    overlap = 0 if options.per_object or form == "seg" else outputs.index_map(done)[1]
    if overlap:
        said["warnings"].append(
            f"{overlap} voxels belong to several objects; the later one is written: "
            "--per-object keeps all"
        )
    return said | {
        "files": [str(f) for f in files],
        "objects": [_object(scan, done, k) for k in range(len(done.objects))],
        "slices_encoded": done.encoded,
        "seconds_model": round(done.seconds, 3),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _spare(target: Path, inputs: Sequence[Path]) -> None:
    """Raise where the output would be written over an input, or over a file of a series."""
    if not target.exists():
        return
    for given in inputs:
        inside = given.is_dir() and target.resolve().is_relative_to(given.resolve())
        if target.samefile(given) or (inside and not _is_ours(target)):
            raise UsageError(
                f"--out {target} is an input, or lies among the files of one: give another --out"
            )


def _is_ours(target: Path) -> bool:
    """Whether a file is what an earlier call wrote: its record lies beside it."""
    names = ("predict.json", f"{stem_of(target)}.predict.json")
    return any((target.parent / name).is_file() for name in names)


def _object(scan: Scan, done: Segmented, number: int) -> dict[str, Any]:
    found = done.objects[number]
    left, top = scan.offset_xy
    slices = []
    for index, iou in sorted(found.iou.items()):
        plane = scan.view(found.mask_ZYX, done.axis, index)
        rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
        box = None
        if len(rows):
            box = [
                int(columns[0]) + left,
                int(rows[0]) + top,
                int(columns[-1]) + 1 + left,
                int(rows[-1]) + 1 + top,
            ]
        slices.append(
            {
                "slice": index,
                "position_mm": scan.place(done.axis, index).position_mm,
                "predicted_iou": round(iou, 4),
                "area_px": int(plane.sum()),
                "box_xyxy": box,
                "prompted": index in found.prompted,
            }
        )
    return {
        "object": found.name,
        "value": number + 1,
        "voxels": int(found.mask_ZYX.sum()),
        "slices": slices,
        "following_ended": found.ended,
    }


def _record(options: Options, predictor: SammedPredictor, model: str, report: Report) -> None:
    """Configuration and summary beside the output."""
    single = outputs.format_of_file(options.out) is not None
    folder = options.out.parent if single else options.out
    name = f"{stem_of(options.out)}.predict.json" if single else "predict.json"
    resolved = {
        key: [str(p) for p in value] if key == "inputs" else value
        for key, value in asdict(options).items()
    }
    if not folder.is_dir():
        return  # nothing was written
    write_json(
        folder / name,
        {
            "sammed": sammed_version(),
            "model": model,
            "kind": predictor.model.kind,
            "weights_sha256": predictor.model.metadata["weights_sha256"]
            if isinstance(predictor.model, OnnxModel)
            else weight_digest(predictor.model),
            "preprocessing": predictor.model.preprocessing.to_dict(),
            "options": resolved | {"out": str(options.out), "coarse": str(options.coarse or "")},
            "images": report.images,
            "failed": report.failed,
        },
    )


def load_predictor(
    path: Path, kind: str | None, *, precision: str = "fp32", device: str = "auto"
) -> SammedPredictor:
    """A predictor with the model of a weight file, or of a folder of ONNX files.

    Raises:
        ModelError: it cannot be loaded.
    """
    from sammed_model.cards import find_place
    from sammed_model.checkpoint import load_model
    from sammed_model.device import choose_device

    path = find_place(path) or path
    if path.is_dir():
        from sammed_model.onnx_model import load_onnx

        return SammedPredictor(load_onnx(path))  # type: ignore[arg-type]  # same methods
    model = load_model(path, kind=kind, device=choose_device(device))
    return SammedPredictor(model, precision=precision)


def newest_run(runs: Path) -> Path:
    """Weights of the newest finished run that is no control, as `sammed bench` finds them.

    Raises:
        ModelError: there is none.
    """
    from sammed_bench.choose import finished_runs

    for found in finished_runs(runs):
        if found.record.get("control", "none") == "none":
            return found.folder / "model.safetensors"
    raise ModelError(
        f"expected --model, or a finished training run in {runs}, found neither: run `sammed "
        "train`, or name weights with --model PATH[:KIND] (`sammed weights list` has names)"
    )


def split_model(text: str) -> tuple[Path, str | None]:
    """``PATH[:KIND]``; a drive letter or a colon of the path stays.

    Raises:
        ModelError: the kind is unknown.
    """
    from sammed_model.types import kind_facts

    path, colon, kind = text.rpartition(":")
    if not colon or Path(text).exists() or "/" in kind or "\\" in kind:
        return Path(text), None
    if not kind:
        raise ModelError(f"expected PATH or PATH:KIND, found {text!r}")
    kind_facts(kind)
    return Path(path), kind
