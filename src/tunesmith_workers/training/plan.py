"""What a preflight is about: what a training wants to do, what may be tried on it, and what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from tunesmith_workers.examples.batches import Batch


class Trial(Protocol):
    """What can be tried on a trainer."""

    def batch_of(self, rows: int, *, longest: bool) -> Batch:
        """The longest rows, or rows of middling length."""
        ...

    def step(self, batch: Batch) -> None:
        """Forward and backward, as in training."""
        ...

    def score(self, batch: Batch) -> None:
        """Forward only, as in validation."""
        ...

    def save(self, folder: Path) -> None:
        """The weights, as in a checkpoint."""
        ...

    def forget(self) -> None:
        """Drop gradients and counters."""
        ...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the training wants to do."""

    rows: int
    """Rows of a batch on this device."""
    parts: int = 1
    """In how many processes a batch is computed; what each takes for itself is not taken for every row."""
    middling_share: float = 1.0
    """Tokens of a batch of middling rows, of those of the longest batch."""
    accumulation: int
    steps: int
    """Optimizer steps that are left."""
    trained_parameters: int
    checkpoints: int
    """How many there will be at once, the finished model included."""
    folder: Path
    """Where they go."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    seconds_per_step: float
    memory_bytes: int | None
    """What the longest batch takes on top of the loaded model, the optimizer's moments included; None if not known."""
    free_memory_bytes: int | None
    checkpoint_bytes: int
    free_disk_bytes: int


def gib(count: int | None) -> str:
    """Bytes, for people."""
    if count is None:
        return "an unknown part"
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"
