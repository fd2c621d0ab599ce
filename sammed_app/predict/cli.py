"""The command ``sammed predict``: options to a resolved run, and its answer on the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from sammed_app.predict.types import Following, Report

_FINISHED_WITH_FAILURES = 3

_HELP = """Segment images that have no labels, from boxes, points or a coarse mask.

Prompts are pixels (x, y) of the slice as shown, counted from 0 at its top left. Slices of a volume
are shown in patient axes, whatever the order in the file: axial 0 is the lowest (feet), columns
run right to left, rows front to back; coronal 0 is the frontmost, sagittal 0 the rightmost, their
rows run from head to feet. Masks are written on the grid of the file.

Examples:

  sammed predict photo.png --model model.safetensors --box 20,30,90,120 --out mask.png

  sammed predict scan.nii.gz --model model.safetensors --slice 17 --box 8,20,30,41 --follow --out m.nii.gz

  sammed predict series/ --model sam_vit_b_01ec64.pth:sam --modality CT --slice 40 --point 210,180 --object liver --out liver.dcm

  sammed predict images/ --model model.safetensors --prompts prompts.csv --out masks

  sammed predict scan.nii.gz --model model.safetensors --prompts-from coarse.nii.gz --out m.nii.gz
"""  # noqa: E501 - commands are copied as one line


def register(app: typer.Typer) -> None:
    """Add the command to the root app."""
    app.command("predict", help=_HELP)(predict)


def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Images, series folders, folders.")],
    out: Annotated[Path, typer.Option(help="File (.png .nii.gz .nrrd .dcm) or folder.")],
    model: Annotated[
        str,
        typer.Option(
            help="Weight file, name or run folder; PATH:KIND where it does not say its kind.",
            show_default="the newest of ./runs",
        ),
    ] = "",
    box: Annotated[list[str] | None, typer.Option(help="x0,y0,x1,y1; an object each.")] = None,
    point: Annotated[
        list[str] | None, typer.Option(help="x,y or x,y,0 (background); all of one object.")
    ] = None,
    object_: Annotated[
        list[str] | None, typer.Option("--object", help="Name of each object.")
    ] = None,
    slice_: Annotated[int | None, typer.Option("--slice", help="Of --box and --point.")] = None,
    axis: Annotated[str, typer.Option(help="axial, coronal or sagittal.")] = "axial",
    orientation: Annotated[
        str, typer.Option(help="lps, or stored: coronal and sagittal rows from feet to head.")
    ] = "lps",
    prompts: Annotated[
        Path | None,
        typer.Option(help="CSV or JSON: image, axis, slice, object, box, point, label."),
    ] = None,
    prompts_from: Annotated[
        Path | None, typer.Option(help="Coarse mask, or a folder of masks named as the images.")
    ] = None,
    prompts_as: Annotated[
        str, typer.Option(help="box or point of each component of the coarse mask.")
    ] = "box",
    follow: Annotated[bool, typer.Option("--follow", help="Follow masks through slices.")] = False,
    range_: Annotated[
        str | None, typer.Option("--range", help="FIRST:LAST slice to follow to, both included.")
    ] = None,
    stop_overlap: Annotated[
        float, typer.Option(help="Stop where Dice with the slice before falls below.")
    ] = 0.3,
    stop_growth: Annotated[
        float, typer.Option(help="Stop where the area exceeds the prompted slice's so many times.")
    ] = 3.0,
    format_: Annotated[
        str, typer.Option("--format", help="auto (as the input), png, nifti, nrrd or seg.")
    ] = "auto",
    per_object: Annotated[
        bool, typer.Option("--per-object", help="A file for each object, not an index map.")
    ] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also PNGs with outlines.")] = False,
    modality: Annotated[
        str, typer.Option(help="CT, MR, PET ...", show_default="as the header says")
    ] = "",
    window: Annotated[
        str | None, typer.Option(help="low,high, or a policy: auto, paper, ct-lung ...")
    ] = None,
    channel: Annotated[int | None, typer.Option(help="Of a 4D file, from 0.")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check images and prompts, say what would be done.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="The summary as JSON, nothing else.")
    ] = False,
) -> None:
    """See ``_HELP``."""
    from sammed_app.predict.prompts import from_file, from_options
    from sammed_app.predict.run import Options, load_predictor, newest_run, run, split_model

    asked = from_options(box or [], point or [], object_ or [], slice_)
    _check(
        {
            "--box or --point": bool(asked),
            "--prompts": prompts is not None,
            "--prompts-from": prompts_from is not None,
        },
        {
            "--axis": (axis, ("axial", "coronal", "sagittal")),
            "--orientation": (orientation, ("lps", "stored")),
            "--prompts-as": (prompts_as, ("box", "point")),
            "--format": (format_, ("auto", "png", "nifti", "nrrd", "seg")),
            "--precision": (precision, ("fp32", "bf16")),
        },
    )
    model = model or str(newest_run(Path("runs")))
    path, kind = split_model(model)
    made: Any = None
    if not dry_run:
        made = load_predictor(path, kind, precision=precision, device=device)
    options = Options(
        inputs=tuple(inputs),
        out=out,
        asked=tuple(from_file(prompts) if prompts else asked),
        coarse=prompts_from,
        coarse_form=prompts_as,
        axis=axis,
        orientation=orientation,
        window=_window(window, modality, made),
        following=_following(follow, range_, stop_overlap, stop_growth),
        form=format_,  # type: ignore[arg-type]  # checked above
        per_object=per_object,
        overlays=overlay,
        channel=channel,
    )
    with _status(quiet=json_) as tell:
        report = run(options, made, model=model, tell=tell)
    _show(report, model, dry_run=dry_run, as_json=json_)
    if report.failed:
        raise typer.Exit(_FINISHED_WITH_FAILURES)


def _check(sources: dict[str, bool], choices: dict[str, tuple[str, tuple[str, ...]]]) -> None:
    """All wrong options in one sentence."""
    from sammed_data.types import UsageError

    wrong = [
        f"{option} to be one of {', '.join(known)}, found {value!r}"
        for option, (value, known) in choices.items()
        if value not in known
    ]
    given = [name for name, is_given in sources.items() if is_given]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        wrong.append(f"prompts from one of {', '.join(sources)}, found {found}")
    if wrong:
        raise UsageError("expected " + "; ".join(wrong))


def _window(text: str | None, modality: str, predictor: Any) -> Any:
    """``--window``, else the policy that the weight file was trained with, else auto."""
    from sammed_app.predict.prompts import window_of
    from sammed_app.predict.scan import Window
    from sammed_data.catalog import Modality
    from sammed_data.types import UsageError, nearest

    if modality and modality not in get_args(Modality):
        raise UsageError(
            f"unknown --modality {modality!r}: {nearest(modality, get_args(Modality))}"
        )
    if text is None:
        known = {} if predictor is None else predictor.model.metadata
        return Window(policy=known.get("intensity_policy", "auto"), modality=modality)
    return window_of(text, modality, "--window")


def _following(on: bool, text: str | None, overlap: float, growth: float) -> Following:
    from sammed_app.predict.types import Following
    from sammed_data.types import UsageError

    if text is None:
        return Following(on=on, least_overlap=overlap, most_share=growth)
    first, colon, last = text.partition(":")
    if not colon or not all(part.isdecimal() or not part for part in (first, last)):
        raise UsageError(f"expected --range FIRST:LAST, found {text!r}")
    return Following(
        on=True,
        first=int(first) if first else None,
        last=int(last) if last else None,
        least_overlap=overlap,
        most_share=growth,
    )


def _status(*, quiet: bool) -> Any:
    """A line on stderr that says what is being done; nothing where it is no terminal."""
    from contextlib import contextmanager, nullcontext

    from sammed_data.talk import progress_console

    console = progress_console()
    if quiet or not console.is_terminal:
        return nullcontext(lambda _: None)

    @contextmanager
    def shown() -> Any:
        with console.status("predicting") as status:
            yield status.update

    return shown()


def _show(report: Report, model: str, *, dry_run: bool, as_json: bool) -> None:
    from sammed_data.types import counted

    if as_json:
        from dataclasses import asdict

        typer.echo(json.dumps({"dry_run": dry_run} | asdict(report), indent=2))
        return
    typer.echo(f"model {model}")
    for image in report.images:
        width, height = image["slice_size_wh"]
        window, flat = image["window"], image["axis"] == "native"
        slices = "" if flat else f"{image['slices']} {image['axis']} slices of "
        typer.echo(
            f"{image['image']}: {slices}{width} x {height} px, {window['low']:g} to "
            f"{window['high']:g} become 0 to 255 ({window['policy']})"
        )
        for warning in image["warnings"]:
            typer.echo(f"  note: {warning}")
        if dry_run:
            typer.echo(f"  would answer {len(image['prompts'])} prompts into {image['files'][0]}")
            continue
        for one in image["objects"]:
            iou = [s["predicted_iou"] for s in one["slices"]]
            typer.echo(
                f"  {one['object']}: {one['voxels']} "
                + ("px" if flat else f"voxels on {len(iou)} slice{'s' * (len(iou) > 1)}")
                + f", predicted IoU {min(iou):.2f}"
                + ("" if len(iou) == 1 else f"..{max(iou):.2f}")
            )
            for way, why in one["following_ended"].items():
                typer.echo(f"    {way}: {why}")
        many = counted(len(image["files"]), "file")
        typer.echo(f"  {image['files'][0]} ({many}, {image['seconds']:.1f} s)")
    for failed in report.failed:
        typer.echo(f"failed: {failed['image']}: {failed['error']}", err=True)
