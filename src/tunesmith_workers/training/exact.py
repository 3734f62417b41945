"""Running a model so that two ways to the same numbers can be compared: in float32, and with the same random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import set_seed

from tunesmith_workers.models.structure import attention_of, set_attention
from tunesmith_workers.training.float32 import in_float32
from tunesmith_workers.training.randomness import Randomness

_PARAMETERS_FOR_A_THREAD = 1 << 28

_MISFITS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError)
"""What a way of running a model ends in that the model is not made for."""


def misfit(way: Callable[[], str | None]) -> str | None:
    """What it answers, or what it ends in."""
    try:
        return way()
    except _MISFITS as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def difference(found: Tensor, expected: Tensor) -> float:
    """Relative to what is expected, as vectors; infinite where something is not a number."""
    apart = float((found - expected).norm() / expected.norm().clamp_min(1e-30))
    return apart if apart == apart else float("inf")  # noqa: PLR0124  # only nan differs from itself


def near(one: float, other: float, within: float) -> bool:
    return abs(one - other) <= within * max(abs(other), 1.0)


@contextmanager
def in_training(model: nn.Module) -> Iterator[None]:
    """Have the model as it is in training, and leave no trace of what was tried."""
    before, begun_with = model.training, Randomness()
    model.train()
    try:
        yield
    finally:
        model.train(before)
        begun_with.restore()


@contextmanager
def few_threads(model: nn.Module) -> Iterator[None]:
    """On rows this short, an operation is over before another thread has woken, and on a busy machine all wait for that one."""
    before = torch.get_num_threads()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    torch.set_num_threads(min(before, max(1, parameters // _PARAMETERS_FOR_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exactly(model: nn.Module) -> Iterator[Callable[[], bool]]:
    """Float32, and the same random numbers every time; what is yielded says afterwards whether any were drawn."""
    set_seed(0)
    before = after = Randomness()
    with _own_forward(model), _float32_attention(model), in_float32(next(model.parameters()).device.type):
        yield lambda: after.differs_from(before)
    after = Randomness()


@contextmanager
def _own_forward(model: Any) -> Iterator[None]:
    """Accelerate puts a forward in the place of the model's that turns autocast on, whatever is around it."""
    replaced = vars(model).get("_original_forward")
    if replaced is None:
        yield
        return
    before, model.forward = model.forward, replaced
    try:
        yield
    finally:
        model.forward = before


@contextmanager
def _float32_attention(model: Any) -> Iterator[None]:
    """Flash attention takes sixteen bits only; in float32, an attention that computes the same stands in for it."""
    if not (attention_of(model) or "").startswith("flash"):
        yield
        return
    before = set_attention(model, "sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
    try:
        yield
    finally:
        set_attention(model, before)
