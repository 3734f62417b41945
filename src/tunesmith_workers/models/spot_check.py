"""Trying a layer on a few numbers, without touching the random numbers of a training."""

from __future__ import annotations

import torch
from torch import Tensor

_AGREES_WITHIN = 0.02
"""Of the largest value: two roundings of bfloat16, and nothing else."""


def sample(rows: int, size: int, dtype: torch.dtype) -> Tensor:
    """Numbers to try something with, (rows, size), always the same."""
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(0)).to(dtype)


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether two results are the same but for rounding."""
    difference = (one.float() - other.float()).abs().max()
    return bool(difference <= _AGREES_WITHIN * other.float().abs().max())
