"""Cross entropy of a large vocabulary, a few rows at a time.

One row of logits is as long as the vocabulary. In float32, with its logarithms and its gradient, it takes several times
the memory of the logits themselves, and each pass over all rows reads and writes all of that. Here a few rows stay in the
cache until both their loss and their gradient are known, and only the gradient is kept, in the dtype of the logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_AT_ONCE_ON_CPU = 1 << 18
_AT_ONCE = 1 << 26
"""Logits that are looked at together: as many as a CPU's cache holds, or as keep an accelerator busy."""


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows of ``-log softmax(logits)[target]``.

    Args:
        logits: (rows, vocabulary), of any floating dtype.
        targets: (rows,), each a position in the vocabulary.

    Returns:
        A float32 scalar, computed in float32. Its gradient for ``logits`` can be asked for once, and only once.
    """
    total: Tensor = _SummedCrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]  # torch's Function is untyped
    return total


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """``-log softmax(logits)[target]`` of each row, (rows,), computed in float32. Without a gradient."""
    rows = _rows_at_once(logits)
    found = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        logarithms = torch.log_softmax(logits[part].detach(), -1, dtype=torch.float32)
        found[part] = -logarithms.gather(1, targets[part, None]).squeeze(1)
    return found


def _rows_at_once(logits: Tensor) -> int:
    at_once = _AT_ONCE_ON_CPU if logits.device.type == "cpu" else _AT_ONCE
    return max(1, at_once // logits.shape[-1])


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        rows = _rows_at_once(logits)
        ctx.gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            wanted = targets[part, None]
            logarithms = torch.log_softmax(logits[part], -1, dtype=torch.float32)
            total -= logarithms.gather(1, wanted).sum(dtype=torch.float64)
            if ctx.gradient is not None:
                # The derivative of a cross entropy: what was said to be likely, less what was right.
                likely = logarithms.exp_()
                likely.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
                ctx.gradient[part] = likely
        return total.float()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError("the gradient of this cross entropy was asked for a second time; it is not kept")
        return gradient.mul_(upstream), None
