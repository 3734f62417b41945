"""A LoRA layer that costs little more than the layer it adapts.

PEFT adds ``scale * B(A(x))`` to the layer's output in four separate steps, in float32 where the adapter is float32, each
of which reads and writes activations as large as the layer's. Here the update goes into the output within the matrix
product, forward and backward, in the dtype of the base weights, while A and B and their gradients stay float32. The
numbers are those of autocast. Only plain LoRA without dropout takes this path; everything else is left to PEFT.

Products with the base weight may be handed to somebody who computes them faster (``FusedLoraLinear.base_product``).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn.functional import linear


def use_fused_layers(config: LoraConfig) -> LoraConfig:
    """Have PEFT build ``FusedLoraLinear`` wherever it would adapt a plain linear layer; files and names are the same."""
    config._register_custom_module({nn.Linear: FusedLoraLinear})  # noqa: SLF001  # PEFT's documented door for own layers
    return config


class BaseProduct(Protocol):
    """Products with a frozen base weight, (outputs, inputs), by somebody who computes them faster."""

    def takes(self, x: Tensor) -> bool:
        """Whether it can be multiplied by ``x``; the weight itself can be cast, this may not be."""
        ...

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(rows, inputs) to (rows, outputs)."""
        ...

    def backward(self, gradient: Tensor) -> Tensor:
        """(rows, outputs) to (rows, inputs)."""
        ...


class FusedLoraLinear(Linear):
    """``lora.Linear`` with the update fused into the matrix product."""

    base_product: BaseProduct | None = None
    """What computes the products with the base weight; None: torch."""

    def merge(self, *args: Any, **kwargs: Any) -> None:
        self.base_product = None  # it would stand for a weight that has changed
        super().merge(*args, **kwargs)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = self._fusible(args, kwargs)
        if name is None:
            unfused: Tensor = super().forward(x, *args, **kwargs)
            return unfused
        base = self.get_base_layer()
        output: Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]  # torch's Function is untyped
            x,
            base.weight,
            base.bias,
            self.base_product if self.base_product and self.base_product.takes(x) else None,
            self.lora_A[name].weight,
            self.lora_B[name].weight,
            self.scaling[name],
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
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        base_product: BaseProduct | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        hidden = (flat @ low_a.t()).mul_(scale)
        output = base_product.forward(flat, bias) if base_product else linear(flat, weight, bias)
        output.addmm_(hidden, low_b.t())
        # Models change what a layer returns in place, which is not allowed on a view that comes from in here.
        owned: Tensor = torch.ops.aten._unsafe_view(output, [*x.shape[:-1], output.shape[-1]])  # noqa: SLF001  # has no public name
        ctx.save_for_backward(flat, hidden, weight, low_a, low_b)
        ctx.base_product, ctx.scale, ctx.shape, ctx.adapter_dtype = base_product, scale, x.shape, a.dtype
        return owned

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None, Tensor, Tensor, None]:
        flat, hidden, weight, a, b = ctx.saved_tensors
        flat_gradient = gradient.reshape(-1, gradient.shape[-1])
        through_b = (flat_gradient @ b).mul_(ctx.scale)
        for_x = None
        if ctx.needs_input_grad[0]:
            base = ctx.base_product.backward(flat_gradient) if ctx.base_product else flat_gradient @ weight
            for_x = base.addmm_(through_b, a).view(ctx.shape)
        for_a = (through_b.t() @ flat).to(ctx.adapter_dtype)
        for_b = (flat_gradient.t() @ hidden).to(ctx.adapter_dtype)
        return for_x, None, None, None, for_a, for_b, None
