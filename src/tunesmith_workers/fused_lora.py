"""A LoRA layer that costs little more than the layer it adapts.

PEFT adds ``scale * B(A(x))`` to the layer's output in four separate steps, in float32 where the adapter is float32, each
of which reads and writes activations as large as the layer's. Here the update goes into the output within the matrix
product, forward and backward, in the dtype of the base weights, while A and B and their gradients stay float32. The
numbers are those of autocast. Only plain LoRA without dropout takes this path; everything else is left to PEFT.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import Tensor, nn


def use_fused_layers(config: LoraConfig) -> LoraConfig:
    """Have PEFT build ``FusedLoraLinear`` wherever it would adapt a plain linear layer; files and names are the same."""
    config._register_custom_module({nn.Linear: FusedLoraLinear})  # noqa: SLF001  # PEFT's documented door for own layers
    return config


class FusedLoraLinear(Linear):
    """``lora.Linear`` with the update fused into the matrix product."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = self._fusible(args, kwargs)
        if name is None:
            unfused: Tensor = super().forward(x, *args, **kwargs)
            return unfused
        base = self.get_base_layer()
        output: Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]  # torch's Function is untyped
            x, base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        )
        return output

    def _fusible(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The adapter's name when the short way gives the same numbers, or None."""
        if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        plain = (
            name in self.lora_A
            and name not in self.lora_variant
            and self.lora_B[name].bias is None
            and not self.fan_in_fan_out
            and isinstance(self.lora_dropout[name], nn.Identity)
        )
        base: Any = self.get_base_layer()
        # Under autocast the product would be computed in a dtype that this class does not know.
        same = not base.weight.requires_grad and not torch.is_autocast_enabled(base.weight.device.type)
        return name if plain and same else None


class _LoraProduct(torch.autograd.Function):
    """``x W' + b + scale * (x A') B'`` and its gradients for x, A and B; W and b are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        hidden = flat @ low_a.t()
        output = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())
        output.addmm_(hidden, low_b.t(), alpha=scale)
        ctx.save_for_backward(flat, hidden, weight, low_a, low_b)
        ctx.scale, ctx.shape, ctx.adapter_dtype = scale, x.shape, a.dtype
        return output.view(*x.shape[:-1], output.shape[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        flat, hidden, weight, a, b = ctx.saved_tensors
        flat_gradient = gradient.reshape(-1, gradient.shape[-1])
        through_b = flat_gradient @ b
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = (flat_gradient @ weight).addmm_(through_b, a, alpha=ctx.scale).view(ctx.shape)
        for_a = (through_b.t() @ flat).to(ctx.adapter_dtype).mul_(ctx.scale)
        for_b = (flat_gradient.t() @ hidden).to(ctx.adapter_dtype).mul_(ctx.scale)
        return for_x, None, None, for_a, for_b, None
