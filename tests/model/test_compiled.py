"""``--compile``: same numbers, same names, and a sentence where there is no compiler."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from test_no_waiting import batch_of

from sammed_data.types import UsageError
from sammed_model import compiled
from sammed_model.adapters import add_adapters, train_only
from sammed_model.config import TrainConfig
from sammed_model.sam import build_sam, spec_for
from sammed_model.step import train_on_batches


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def shallow():
    """A windowed block with an adapter, a global one, and one layer of the decoder."""
    spec = spec_for("vit_tiny", image_size=64)
    spec = replace(spec, depth=2, global_attn_indexes=(1,), window_size=5, decoder_depth=1)
    model = add_adapters(build_sam(spec, seed=1))
    train_only(model, "sam-med2d")
    return model


def losses(model, steps: int) -> list[float]:
    config = TrainConfig(passes=1, steps=steps, lr=1e-3, warmup=0)
    given = [batch_of(images=2 + n, masks=2) for n in range(2)][:steps]
    return [r.loss for r in train_on_batches(model, given, config, total_steps=steps)]


def test_a_compiled_model_learns_the_same(monkeypatch):
    """Traced and differentiated as compiled code is, without the minute of a C++ compiler."""
    traced = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: traced(f, backend="aot_eager", **kw))
    plain, fast = shallow(), shallow()
    names = list(fast.state_dict())
    compiled.compile_model(fast)
    assert losses(fast, 1) == pytest.approx(losses(plain, 1), rel=1e-5)
    assert list(fast.state_dict()) == names
    for name, value in plain.state_dict().items():
        assert (fast.state_dict()[name] - value).abs().mean() < 1e-5, name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_a_block_is_compiled_on_the_cpu():
    model = shallow()
    compiled._try(model.device)
    block = model.image_encoder.blocks[0]
    x = torch.linspace(-1, 1, 2 * 8 * 8 * 128).view(2, 8, 8, 128)
    with torch.no_grad():
        found = torch.compile(compiled.block_fast)(block, x)
        torch.testing.assert_close(found, compiled.block_fast(block, x), rtol=1e-4, atol=1e-5)


def test_without_a_compiler_there_is_a_sentence(monkeypatch):
    def broken(function, **_):
        def run(*_):
            raise RuntimeError("no compiler found\nand a long trace")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler .* found: no compiler found: "):
        compiled.compile_model(shallow())
