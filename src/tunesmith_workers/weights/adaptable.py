"""Which linear layers of a model an adapter fits, for ``all-linear``.

Not every ``nn.Linear`` is one: some routers derive from it and return several things, and the kernels of some state
space models read a layer's weight without calling the layer, which is why PEFT refuses it.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn
from torch.nn.functional import linear

from tunesmith_workers.models.spot_check import agree, sample


def misfits(model: nn.Module, config: LoraConfig) -> list[str]:
    """Names of the linear layers that an adapter does not fit; one last part stands for all that are called so."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = {name for name, module in layers.items() if _refuses(name, model, config) or not is_linear(module)}
    fitting = {_last_part(name) for name in layers.keys() - found}
    return sorted({name if _last_part(name) in fitting else _last_part(name) for name in found})


def is_linear(layer: nn.Linear) -> bool:
    """Whether calling the layer is ``x W' + b``; where that is not simply inherited, it is tried."""
    if getattr(layer.forward, "__func__", None) is nn.Linear.forward:
        return True
    x = sample(2, layer.in_features, layer.weight.dtype).to(layer.weight.device)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            found: Any = layer(x)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False
    expected = linear(x, layer.weight, layer.bias)
    return isinstance(found, Tensor) and found.shape == expected.shape and agree(found, expected)


def _refuses(name: str, model: nn.Module, config: LoraConfig) -> bool:
    ask: Any = BaseTuner._check_target_module_compatiblity  # noqa: SLF001  # PEFT asks itself in no other way
    try:
        ask(None, config, model, _last_part(name))
    except ValueError:
        return True
    return False


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]
