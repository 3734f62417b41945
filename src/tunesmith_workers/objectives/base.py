"""What every objective is: rows into batches, how many items a batch has, and the loss over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from torch import Tensor

from tunesmith_workers.examples.batches import Batch
from tunesmith_workers.examples.rendering import Rendered
from tunesmith_workers.objectives.trained_logits import TrainedLogits


class BatchLoss(msgspec.Struct, frozen=True):
    """The loss of one batch, or of a part of it, as a sum over its items."""

    total: Tensor
    """A float32 scalar with its gradient."""
    items: int
    """What the loss is a mean over, once it is divided, such as trained tokens."""
    measured: Mapping[str, Tensor]
    """Metrics to log beside the loss, as sums over the items; empty when not asked for or not known."""


class Objective(Protocol):
    """What is minimised. It keeps nothing between batches.

    Its loss must be a sum over items of rows that do not depend on each other: batches are computed in parts, and
    gradients of several batches are accumulated. Where ``logits.gathers`` is false, only ``logits.own_outputs`` is right; an
    objective that cannot use it need not ask: ``logits`` refuses.
    """

    def collate(self, rows: Sequence[Rendered]) -> dict[str, Any]:
        """A batch of these rows."""
        ...

    def items(self, batch: Batch) -> Tensor:
        """How many items the loss of a batch is a sum over."""
        ...

    def loss(self, logits: TrainedLogits, model: Any, batch: Batch, *, measures: bool = False) -> BatchLoss:
        """Run ``model`` by ``logits``, and compare with what the batch asks for."""
        ...
