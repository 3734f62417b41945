"""Prepacked weights: frozen weights in the order that oneDNN's products read them in.

A weight that never changes is put into that order once, instead of in every product. Each shape is tried against the
plain product before it is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tunesmith_workers.models.spot_check import agree, sample
from tunesmith_workers.weights.fused_lora import FusedLoraLinear

_SHARE_OF_FREE_MEMORY = 0.1
"""What prepacked copies of weights may take."""


def prepack_weights(model: nn.Module, free_memory: int) -> bool:
    """Keep prepacked copies of the base weights of fused LoRA layers where this machine can, and ``free_memory`` bytes allow it."""
    layers = [module for module in model.modules() if isinstance(module, FusedLoraLinear)]
    bases: list[Any] = [layer.get_base_layer() for layer in layers]
    weights: list[Tensor] = [base.weight for base in bases]
    wanted = 2 * sum(weight.numel() * weight.element_size() for weight in weights)
    if not weights or wanted > _SHARE_OF_FREE_MEMORY * free_memory:
        return False
    one_of_each = {(weight.shape, weight.dtype, weight.device, weight.requires_grad): weight for weight in weights}
    if not all(map(can_prepack, one_of_each.values())):
        return False
    for layer, weight in zip(layers, weights, strict=True):
        layer.base_product = PrepackedWeight(weight)
    return True


class PrepackedWeight:
    """A frozen weight, packed for the product forward and for the one backward. ``weight`` is (outputs, inputs)."""

    def __init__(self, weight: Tensor) -> None:
        self._dtype = weight.dtype
        self._forward = _reordered(weight.detach())
        self._backward = _reordered(weight.detach().t().contiguous())

    def takes(self, x: Tensor) -> bool:
        """Whether it can be multiplied by ``x``; the weight itself can be cast, this cannot."""
        return x.dtype == self._dtype

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(rows, inputs) to (rows, outputs)."""
        return _product(x, self._forward, bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """(rows, outputs) to (rows, inputs)."""
        return _product(gradient, self._backward, None)


class PackedProduct:
    """A frozen weight, (outputs, inputs), packed for the product forward alone."""

    def __init__(self, weight: Tensor) -> None:
        self._ordered = _reordered(weight.detach())

    @classmethod
    def of(cls, weight: Tensor) -> PackedProduct | None:
        """None where this machine does not prepack such a weight, or multiplies wrongly with it."""
        if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or weight.requires_grad:
            return None
        try:
            packed = cls(weight)
            x = sample(4, weight.shape[1], weight.dtype)
            right = agree(packed(x, None), x @ weight.t())
        except (RuntimeError, AttributeError, NotImplementedError):
            return None
        return packed if right else None

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(rows, inputs) to (rows, outputs)."""
        return _product(x, self._ordered, bias)


def _reordered(weight: Tensor) -> Tensor:
    ordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001  # torch names no door to oneDNN
    return ordered


def _product(x: Tensor, ordered: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, ordered, bias, "none", [], "")  # noqa: SLF001  # likewise
    return product


def can_prepack(weight: Tensor) -> bool:
    """Whether this machine prepacks such a weight, and a product with it is right."""
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or weight.requires_grad:
        return False
    try:
        ordered = PrepackedWeight(weight)
        x = sample(4, weight.shape[1], weight.dtype)
        forward, backward = ordered.forward(x, None), ordered.backward(x @ weight.t())
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return agree(forward, x @ weight.t()) and agree(backward, (x @ weight.t()) @ weight)
