"""Where to compute: one reading of ``--device`` for training and benchmark."""

from __future__ import annotations

import os

import torch

from sammed_data.types import UsageError


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Under ``torchrun``, CUDA is the GPU of this process's local rank.

    Raises:
        UsageError: a device that is unknown or absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise UsageError(f"unknown --device {name!r}: use auto, cpu or cuda") from err
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown --device {name!r}: use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda was asked for, torch finds no CUDA device: use --device cpu"
        )
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device
