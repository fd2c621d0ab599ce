"""``torch.compile`` of the parts of a SAM that repeat: encoder blocks, the decoder's transformer.

Blocks are compiled one by one, so that one graph serves all windowed blocks and one all global
ones; the number of masks and prompt tokens changes from call to call and stays a symbol. Weights,
names and files are as without.
"""

from __future__ import annotations

import torch

from sammed_data.types import UsageError
from sammed_model.attention import block_fast
from sammed_model.sam import SamModel
from sammed_model.two_way import two_way


def compile_model(model: SamModel) -> None:
    """Compile in place; the first steps are slow.

    Raises:
        UsageError: there is no compiler for this device.
    """
    _try(model.device)
    model.block_forward = torch.compile(block_fast)
    model.padded_forward = torch.compile(two_way, dynamic=True)
    if not model.fast:
        for block in model.image_encoder.blocks:
            block.compile()
    model.mask_decoder.transformer.compile(dynamic=True)


def _try(device: torch.device) -> None:
    """Compile one addition, to find out whether compiling works at all."""
    add = torch.compile(lambda x: x + 1.5)
    try:
        add(torch.zeros(8, device=device))
    except RuntimeError as err:  # of which all of torch's compile errors are
        needed = "Triton" if device.type == "cuda" else "a C++ compiler"
        lines = str(err).strip().splitlines()
        raise UsageError(
            f"--compile needs {needed} that torch {torch.__version__} can use on {device.type}, "
            f"found: {lines[0] if lines else type(err).__name__}: install it, or train without "
            "--compile"
        ) from err
