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
from sammed_model.optim import trainable
from sammed_model.sam import build_sam, spec_for
from sammed_model.step import train_on_batches


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def shallow(depth=2, global_attn_indexes=(1,)):
    """A windowed block with an adapter, a global one, and one layer of the decoder."""
    spec = replace(
        spec_for("vit_tiny", image_size=64),
        depth=depth,
        global_attn_indexes=global_attn_indexes,
        window_size=5,
        decoder_depth=1,
    )
    model = add_adapters(build_sam(spec, seed=1))
    train_only(model, "sam-med2d")
    return model


def losses(model, steps: int) -> list[float]:
    config = TrainConfig(passes=2, steps=steps, lr=1e-3, warmup=0)
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
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_step_is_compiled_on_the_cpu(part, monkeypatch):
    """Really compiled, a part at a time: the C++ compiler needs a minute for each, on a quiet core.

    It is asked not to optimise. Weights after the step are not compared: where a gradient is zero
    but for rounding, Adam steps by its sign.
    """
    monkeypatch.setenv("TORCHINDUCTOR_DEBUG_COMPILE", "1")
    losses, gradients = [], []
    for really in (False, True):
        model = shallow(depth=1, global_attn_indexes=())
        if really:
            compiled.compile_model(model)
            if part == "encoder":
                model.mask_decoder.transformer._compiled_call_impl = None
            else:
                model.block_forward = None
        config = TrainConfig(passes=1, steps=1, clip_norm=1e9)
        result = next(train_on_batches(model, [batch_of()], config, total_steps=1))
        losses.append(result.loss)
        gradients.append({n: p.grad for n, p in trainable(model).items() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert gradients[1].keys() == gradients[0].keys()
    largest = max(float(g.abs().max()) for g in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert float((gradients[1][name] - gradient).abs().max()) < 1e-4 * largest, name


def test_without_a_compiler_there_is_a_sentence(monkeypatch):
    def broken(function, **_):
        def run(*_):
            raise RuntimeError("no compiler found\nand a long trace")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler .* found: no compiler found: "):
        compiled.compile_model(shallow())
