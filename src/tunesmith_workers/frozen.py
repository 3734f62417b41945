"""Faster ways through weights that are not trained, on a CPU: the same numbers, as far as the dtype tells them apart.

Weights that never change can be put into the order that a product reads them in once, instead of in every product, and a
norm whose weight needs no gradient has fewer steps to go back. Each is tried against the plain way before it is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_AGREES_WITHIN = 0.02
"""Of the largest value: two roundings of bfloat16, and nothing else."""


class OrderedWeight:
    """A frozen weight in the orders that a product forward and one backward read. ``weight`` is (outputs, inputs)."""

    def __init__(self, weight: Tensor) -> None:
        self._dtype = weight.dtype
        self._forward = _in_order(weight.detach())
        self._backward = _in_order(weight.detach().t().contiguous())

    def takes(self, x: Tensor) -> bool:
        """Whether it can be multiplied by ``x``; the weight itself can be cast, this cannot."""
        return x.dtype == self._dtype

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(rows, inputs) to (rows, outputs)."""
        return _product(x, self._forward, bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """(rows, outputs) to (rows, inputs)."""
        return _product(gradient, self._backward, None)


def _in_order(weight: Tensor) -> Tensor:
    ordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001  # torch names no door to oneDNN
    return ordered


def _product(x: Tensor, ordered: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, ordered, bias, "none", [], "")  # noqa: SLF001  # likewise
    return product


def can_order(weight: Tensor) -> bool:
    """Whether this machine orders such a weight, and a product with it is right."""
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or weight.requires_grad:
        return False
    try:
        ordered = OrderedWeight(weight)
        x = sample(4, weight.shape[1], weight.dtype)
        forward, backward = ordered.forward(x, None), ordered.backward(x @ weight.t())
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return agree(forward, x @ weight.t()) and agree(backward, (x @ weight.t()) @ weight)


def quicken_norms(model: nn.Module) -> int:
    """Have frozen root-mean-square norms in bfloat16 computed in fewer steps; how many they are is returned."""
    found = [module for module in model.modules() if _is_plain_norm(module)]
    for module in found:
        module.forward = _FrozenNorm(module)  # the module keeps its name, weight and hooks
    return len(found)


class _FrozenNorm:
    """What stands in for the ``forward`` of a norm."""

    def __init__(self, module: Any) -> None:
        self._weight: Tensor = module.weight
        self._epsilon = _epsilon(module)

    def __call__(self, x: Tensor) -> Tensor:
        normed: Tensor = _RootMeanSquareNorm.apply(x, self._weight, self._epsilon)  # type: ignore[no-untyped-call]  # torch's Function is untyped
        return normed


def _is_plain_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, Tensor) or weight.ndim != 1:
        return False
    if weight.requires_grad or weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or not _epsilon(module):
        return False
    x = sample(4, len(weight), weight.dtype)
    with torch.no_grad():
        return agree(_FrozenNorm(module)(x), module(x))


def _epsilon(module: Any) -> float | None:
    return getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)


class _RootMeanSquareNorm(torch.autograd.Function):
    """``weight * x / sqrt(mean(x * x) + epsilon)`` over the last dimension, and its gradient for x (arXiv:1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        exact = x.to(torch.float32, copy=True)
        length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        normed = exact.mul_(scale).to(x.dtype)
        ctx.save_for_backward(normed, weight, scale)
        result: Tensor = normed * weight
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        normed, weight, scale = ctx.saved_tensors
        exact, weighted = normed.float(), (gradient * weight).float()
        along = torch.linalg.vecdot(weighted, exact).unsqueeze(-1).div_(-normed.shape[-1])
        for_x: Tensor = weighted.addcmul_(exact, along).mul_(scale).to(gradient.dtype)
        return for_x, None, None


def sample(rows: int, size: int, dtype: torch.dtype) -> Tensor:
    """Numbers to try something with, without touching the random numbers of the training."""
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(0)).to(dtype)


def agree(one: Tensor, other: Tensor) -> bool:
    difference = (one.float() - other.float()).abs().max()
    return bool(difference <= _AGREES_WITHIN * other.float().abs().max())
