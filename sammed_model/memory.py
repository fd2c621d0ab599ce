"""Memory of a training step, estimated from sizes, and the batch that fits a card.

    weights, 4 bytes each (6 in bf16: a cast is kept for backward)
  + gradient and two moments, 12 bytes for each weight that learns
  + images x encoder activations kept for backward (none where the encoder is frozen)
  + masks x (decoder activations + loss maps) of one pass: passes do not share a graph
  all but the weights times a margin for the allocator, plus what CUDA itself takes.

Encoder activations are ``a`` bytes for each token, channel and block and ``b`` for each entry of
an attention map. Both were fitted to the tensors that autograd saves (ViT-B at 256 and 512 px,
vit_tiny at 128 and 256 px, on a CPU, torch 2.14; within 7 %). The margin is an estimate: no GPU was
at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from sammed_data.types import UsageError, counted
from sammed_model.adapters import add_adapters, train_only
from sammed_model.config import Method, Precision, TrainConfig
from sammed_model.device import choose_device
from sammed_model.lora import add_lora
from sammed_model.optim import trainable
from sammed_model.sam import SamModel, spec_for
from sammed_model.types import SamSpec

# Bytes for each token, channel and block.
_LINEAR: dict[tuple[Method, Precision], float] = {
    ("sam-med2d", "fp32"): 57.0,
    ("lora", "fp32"): 43.0,
    ("full", "fp32"): 73.0,
    ("sam-med2d", "bf16"): 30.0,
    ("lora", "bf16"): 26.0,
    ("full", "bf16"): 40.0,
}
# Bytes for each entry of an attention map, and for each token and channel of a decoded mask.
_ATTENTION: dict[Precision, float] = {"fp32": 4.4, "bf16": 2.2}
_DECODER: dict[Precision, float] = {"fp32": 115.0, "bf16": 68.0}
# Bytes for each model pixel of a mask: logits, truth and the terms of the loss, in float32.
_LOSS = 48.0
# A frozen encoder holds one block at a time: some maps of its width, and one attention map twice.
_FROZEN_MAPS = 12.0
_MARGIN = 1.2
_CUDA_BYTES = 6e8
_LEARNT_BYTES, _WEIGHT_BYTES, _CAST_BYTES = 12, 4, 2
# Images of a step where nobody asks for another number: the paper's.
PAPER_IMAGES = 50
# In order of preference.
_METHODS: tuple[Method, ...] = ("sam-med2d", "lora", "ft-sam")
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BINARY = {"k": 2.0**10, "m": 2.0**20, "g": 2.0**30, "t": 2.0**40}


def parse_bytes(text: str, option: str) -> int:
    """``8GB`` (8e9), ``8GiB`` or ``500MB`` as bytes.

    Raises:
        UsageError: not a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if found is None or (found[3] and not found[2]):
        raise UsageError(f"{option} wants a size such as 8GB, found {text!r}")
    factor = _BINARY[found[2]] if found[3] else _UNITS[found[2]]
    return int(float(found[1]) * factor)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a training step by what they hold."""

    weights: float
    learning: float
    an_image: float
    images: int
    fixed: float

    @property
    def total(self) -> float:
        """All of it, with the margin."""
        return self.weights + _MARGIN * (self.learning + self.images * self.an_image) + self.fixed


def estimate(
    spec: SamSpec,
    method: Method,
    precision: Precision,
    *,
    images: int,
    masks_per_image: int,
    lora_rank: int = 8,
    cuda: bool = True,
) -> Memory:
    """Memory of a step on so many images at once (see the module)."""
    weights, learning = count_parameters(spec, method, lora_rank)
    cast = _CAST_BYTES if precision == "bf16" else 0
    tokens = spec.embedding_size**2
    a_mask = _DECODER[precision] * tokens * spec.out_chans + _LOSS * spec.image_size**2
    attention = attention_entries(spec)
    if method == "ft-sam":
        one = max(attention) * _ATTENTION[precision] * 2
        encoder = _FROZEN_MAPS * 4 * tokens * spec.embed_dim + one
    else:
        linear = _LINEAR[method, precision] * tokens * spec.embed_dim * spec.depth
        encoder = linear + _ATTENTION[precision] * sum(attention)
    return Memory(
        weights=weights * (_WEIGHT_BYTES + cast),
        learning=learning * _LEARNT_BYTES,
        an_image=encoder + masks_per_image * a_mask,
        images=images,
        fixed=_CUDA_BYTES if cuda else 0.0,
    )


def attention_entries(spec: SamSpec) -> list[int]:
    """Entries of the attention maps of one image, of each block of the fast path."""
    side, window, found = spec.embedding_size, spec.window_size, []
    spans = [(window, side // window), (side % window, 1)]
    in_windows = 0
    for tall, down in spans:
        for wide, across in spans:
            own = tall * wide
            in_windows += down * across * own * (own + (own < window**2))
    for block in range(spec.depth):
        whole = block in spec.global_attn_indexes
        found.append(spec.num_heads * (side**4 if whole else in_windows))
    return found


def count_parameters(spec: SamSpec, method: Method, lora_rank: int) -> tuple[int, int]:
    """Weights of the model as a method trains it, and those that learn."""
    with torch.device("meta"):
        model = SamModel(replace(spec, adapters="none"))
        if method == "sam-med2d":
            add_adapters(model)
        if method == "lora":
            add_lora(model, rank=lora_rank, alpha=1.0)
    train_only(model, method)
    learning = sum(p.numel() for p in trainable(model).values())
    return sum(p.numel() for p in model.parameters()), learning


def fit(
    config: TrainConfig, budget_bytes: int, given: frozenset[str]
) -> tuple[TrainConfig, list[str]]:
    """The run that fits: batch, accumulation, and what of precision and method is not given.

    Args:
        config: as asked for.
        budget_bytes: of the card.
        given: which of ``method, batch, accumulate, precision`` the user insists on; a given batch
            is the number of images a step learns from, however it is cut.

    Returns:
        The configuration and the lines that say what was chosen and why.

    Raises:
        UsageError: not even one image fits.
    """
    cuda = choose_device(config.device).type == "cuda"
    spec = spec_for(config.model, image_size=config.image_size)
    asked = config.batch_images * config.accumulate
    wanted = asked if given & {"batch", "accumulate"} else PAPER_IMAGES
    tried: list[str] = []
    for method, precision in _candidates(config, given, cuda):

        def needs(images: int, how: tuple[Method, Precision] = (method, precision)) -> Memory:
            return estimate(
                spec,
                *how,
                images=images,
                masks_per_image=config.masks_per_image,
                lora_rank=config.lora_rank,
                cuda=cuda,
            )

        one = needs(1)
        each = _MARGIN * one.an_image
        most = int((budget_bytes - (one.total - each)) // each)
        if most >= 1:
            steps = -(-wanted // min(most, wanted)) if "one-step" in config.choices else 1
            batch = -(-wanted // steps) if steps > 1 else min(most, wanted)
            chosen = replace(
                config, method=method, precision=precision, batch_images=batch, accumulate=steps
            )
            return chosen, [*tried, *_reasons(chosen, needs(batch), budget_bytes, wanted, cuda)]
        tried.append(
            f"--fit-memory: {method} in {precision} needs {_gb(one.total)} for one image: too much"
        )
    too_much = "; ".join(t.split(": ", 1)[1] for t in tried)
    raise UsageError(
        f"nothing fits {_gb(budget_bytes)} ({budget_bytes:,} bytes): {too_much}; "
        "give a smaller --image-size or --masks-per-image, another --method or --model"
    )


def _candidates(
    config: TrainConfig, given: frozenset[str], cuda: bool
) -> Iterator[tuple[Method, Precision]]:
    precisions: tuple[Precision, ...] = ("bf16",) if cuda else ("fp32", "bf16")
    for method in (config.method,) if "method" in given else _METHODS:
        for precision in (config.precision,) if "precision" in given else precisions:
            yield method, precision


def _reasons(
    chosen: TrainConfig, memory: Memory, budget: int, wanted: int, cuda: bool
) -> Iterator[str]:
    step = chosen.batch_images * chosen.accumulate
    yield (
        f"--fit-memory {_gb(budget)}: --method {chosen.method} --precision {chosen.precision} "
        f"--batch {chosen.batch_images} --accumulate {chosen.accumulate}: "
        f"{counted(step, 'image')} a step" + (f", {wanted} were wanted" if step < wanted else "")
    )
    yield (
        f"  because weights take {_gb(memory.weights)}, gradients and moments "
        f"{_gb(memory.learning)}, {counted(memory.images, 'image')} "
        f"{_gb(memory.images * memory.an_image)} "
        f"({memory.an_image / 1e6:.0f} MB each with {chosen.masks_per_image} masks)"
        + (f", CUDA {_gb(memory.fixed)}" if cuda else "")
        + f": {_gb(memory.total)} with {_MARGIN - 1:.0%} to spare for the allocator"
    )
    yield "  (estimated from sizes and from the tensors autograd saves, not measured on this card)"


def _gb(number: float) -> str:
    return f"{number / 1e9:.2f} GB"
