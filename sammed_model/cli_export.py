"""The command ``sammed export-onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_HELP = """Write encoder.onnx and decoder.onnx of a model (extra: pip install 'sammed\\[onnx]').

Both files carry kind, preprocessing, sizes and digest of the weights. `sammed predict --model
FOLDER` takes them; other runtimes feed the decoder points, box corners as points labelled 2 and 3,
and the mask of a pass before.

Examples:

  sammed export-onnx --model runs/001-sam-med2d/model.safetensors --out onnx

  sammed export-onnx --model sam_vit_b_01ec64.pth --kind sam --image-size 256 --out onnx
"""


def register(app: typer.Typer) -> None:
    """Add the command to the root app."""
    app.command("export-onnx", help=_HELP)(export_onnx)


def export_onnx(
    model: Annotated[Path, typer.Option(help="Weight file.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    kind: Annotated[
        str | None, typer.Option(help="sam, ft-sam, sam-med2d or medsam, where it is not said.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the input in px.", show_default="the file's")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load the weights; write nothing.")
    ] = False,
) -> None:
    """See ``_HELP``."""
    from sammed_data.talk import RECORD, answer, record_command, say_dry
    from sammed_model.cards import located
    from sammed_model.checkpoint import load_model
    from sammed_model.model_card import card_place, write_model_card
    from sammed_model.onnx_model import DECODER, ENCODER
    from sammed_model.onnx_model import export_onnx as export

    loaded = load_model(model, kind=kind, image_size=image_size)
    if dry_run:
        writes = [out / ENCODER, out / DECODER, card_place(out, ENCODER), out / RECORD]
        say_dry([located(model)], writes, kind=loaded.kind, image_size=loaded.spec.image_size)
        return
    facts = export(loaded, out)
    size = loaded.spec.image_size
    write_model_card(located(model), out, files=(ENCODER, DECODER), kind=kind, image_size=size)
    answer({"out": out} | facts)
    record_command(out)
    typer.echo(
        f"{out}: encoder.onnx and decoder.onnx of {facts['architecture']} ({facts['kind']}) at "
        f"{facts['image_size']} px, weights {facts['weights_sha256'][:12]}"
    )
