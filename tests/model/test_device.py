"""One reading of --device."""

import pytest
import torch

from sammed_data.types import UsageError
from sammed_model.device import choose_device


@pytest.mark.parametrize("name", ["meta", "gpu", "cuda:x", ""])
def test_unknown_devices_are_refused_by_name(name):
    with pytest.raises(UsageError, match=r"unknown --device .*: use auto, cpu or cuda"):
        choose_device(name)


def test_auto_and_cpu():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_absent_cuda_is_a_sentence():
    with pytest.raises(UsageError, match="no CUDA device"):
        choose_device("cuda")
