"""The optimiser of a run: which parameters, which learning rate, and its state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sammed_data.types import ModelError
from sammed_model.config import GROUPS, TrainConfig

# Fractions of the run at which the paper's step schedule halves (epochs 7 and 10 of 12).
_HALVE_AT = (7 / 12, 10 / 12)
_FINAL = 0.02
_MOMENTS = ("exp_avg", "exp_avg_sq")
# Of a gain that starts at zero (a quiet adapter's): Adam moves a weight by about the rate, whatever
# its gradient, so that at the common rate the adapter stays all but shut for hundreds of steps.
_OPENING = 10.0


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter that learns."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def group_of(name: str) -> str:
    """Parameter group by name: ``encoder``, ``adapters`` (LoRA too), ``prompt`` or ``decoder``."""
    if name.startswith("image_encoder."):
        return "adapters" if ".adapter." in name or ".lora_" in name else "encoder"
    return "prompt" if name.startswith("prompt_encoder.") else "decoder"


def make_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over what learns, in groups; vectors (biases, norms) are not decayed.

    The released recipe is Adam without decay.
    """
    decay = config.weight_decay if "decay" in config.choices else 0.0
    groups = []
    for name in GROUPS:
        setting = config.group(name)
        own = decay if setting.decay is None else setting.decay
        found = [p for n, p in trainable(model).items() if group_of(n) == name]
        shut = _shut_gains(model) if name == "adapters" else set()
        vectors = [p for p in found if p.ndim <= 1]
        for some, rate, factor in (
            ([p for p in found if p.ndim > 1], own, 1.0),
            ([p for p in vectors if id(p) not in shut], 0.0, 1.0),
            ([p for p in vectors if id(p) in shut], 0.0, _OPENING),
        ):
            if some:
                factor *= setting.lr
                groups.append(
                    {"params": some, "weight_decay": rate, "factor": factor, "name": name}
                )
    # One kernel for all weights where there are many launches to save.
    fused = next(model.parameters()).device.type == "cuda"
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def _shut_gains(model: nn.Module) -> set[int]:
    """Output gains of fresh adapters that add zero, by identity; meta tensors hold no values."""
    gains = (p for n, p in trainable(model).items() if n.endswith(".adapter.norm.weight"))
    return {id(gain) for gain in gains if not gain.is_meta and not gain.any()}


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Rate of a step: linear warm-up, then cosine to 2 % or the paper's two halvings.

    Args:
        config: of the run.
        step: from 0.
        progress: done fraction of the run in [0, 1].
    """
    if config.schedule == "step":
        factor = 0.5 ** sum(progress >= at for at in _HALVE_AT)
    else:
        factor = _FINAL + (1 - _FINAL) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return config.lr * factor * min(1.0, (step + 1) / max(1, config.warmup))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Use this learning rate from now on."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def training_state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights that learn and their moments, as tensors by name."""
    state: dict[str, Tensor] = {}
    for name, parameter in trainable(model).items():
        state[f"weight/{name}"] = parameter.detach()
        for key, value in optimiser.state.get(parameter, {}).items():
            state[f"{key}/{name}"] = torch.as_tensor(value)
    return state


def load_training_state(
    model: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Put back what ``training_state`` gave.

    Raises:
        ModelError: the state is of other parameters.
    """
    parameters = trainable(model)
    saved = {key.removeprefix("weight/") for key in state if key.startswith("weight/")}
    if saved != set(parameters):
        odd = sorted(saved ^ set(parameters))
        raise ModelError(
            f"expected a training state of {len(parameters)} parameters, found {len(saved)} "
            f"(first difference {odd[0]!r}): resume with the model and method that wrote it"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[f"weight/{name}"])
            moments = {
                # Laid out in memory as the weight is: a file keeps no layout.
                key: torch.empty_like(parameter).copy_(state[f"{key}/{name}"])
                for key in _MOMENTS
                if f"{key}/{name}" in state
            }
            if moments:
                step = state[f"step/{name}"]
                if optimiser.defaults.get("fused"):
                    step = step.to(parameter.device)
                optimiser.state[parameter] = {"step": step, **moments}
