"""Where a model is computed, and in which precision: decided from what the hardware does fast."""

from __future__ import annotations

import msgspec
import torch

from tunesmith_workers.process.config import DType


class Precision(msgspec.Struct, frozen=True):
    """How numbers are held and computed."""

    weights: torch.dtype
    autocast: bool
    """Whether products run in bfloat16 while the weights stay float32."""

    def __str__(self) -> str:
        name = str(self.weights).removeprefix("torch.")
        return f"{name} weights, bfloat16 products" if self.autocast else name


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_fast_bfloat16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def precision_for(wanted: DType, *, trains_weights: bool) -> Precision:
    """The precision that ``model.dtype`` means here.

    Weights that are trained stay float32 when left to us: a step of the optimizer is mostly smaller than the distance
    between two bfloat16 numbers, and would be lost. Frozen weights lose nothing that matters.
    """
    if wanted == "float32":
        return Precision(torch.float32, autocast=False)
    if wanted == "bfloat16":
        return Precision(torch.bfloat16, autocast=False)
    fast = has_fast_bfloat16()
    if trains_weights:
        return Precision(torch.float32, autocast=fast)
    return Precision(torch.bfloat16 if fast else torch.float32, autocast=False)
