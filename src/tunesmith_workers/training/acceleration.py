"""How a training is computed on this hardware, where that may differ from how torch and transformers do it.

``Plain`` changes nothing; ``tunesmith_workers.cpu`` holds what is faster on a CPU. Whatever is faster gives the same
loss and gradients: it is verified on the model before the first step, and left out where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from torch import Tensor, nn

from tunesmith_workers.examples.batches import Batch
from tunesmith_workers.models.precision import Precision

if TYPE_CHECKING:
    from tunesmith_workers.training.verify import Check


class StepLoss(msgspec.Struct, frozen=True):
    """What a batch, or a part of it, adds to an optimizer step."""

    loss: Tensor
    """A scalar; with its gradient where that has not been taken yet."""
    measured: Mapping[str, Tensor]
    """As in ``BatchLoss``."""


Compute = Callable[[Batch, int, bool], StepLoss]
"""From a batch, how many items the optimizer step has in all, and whether to measure, to what it adds to the step."""


class Acceleration(Protocol):
    """What a training asks on its way, in the order of the methods."""

    parts: int
    """In how many processes a batch is computed; what each takes for itself is not taken for every row."""
    fuses_adapters: bool
    """Whether layers with an adapter are fused where that gives the same numbers."""

    def attention(self, longest: int, precision: Precision) -> str | None:
        """The attention implementation to load a model with for rows of up to ``longest`` tokens; None: transformers'."""
        ...

    def prepare(self, model: nn.Module) -> None:
        """Change a model that is loaded and has its adapters. Nothing it computes may change."""
        ...

    def verify_attention(self, model: nn.Module, rows: Batch) -> None:
        """Replace the attention it was loaded with where that computes something else on these rows."""
        ...

    def verify(self, check: Check) -> bool:
        """Have batches computed in the fastest way that passes the check.

        Returns:
            Whether that way was tried in the training's own precision, too.
        """
        ...

    def use_own_loss(self, model: nn.Module, logits: Any) -> None:
        """Undo what ``verify`` did: the loss is the model's own, of whole padded batches."""
        ...

    def gradients(
        self, model: nn.Module, compute: Compute, batch: Batch, items: int, *, measures: bool
    ) -> list[StepLoss] | None:
        """Compute a batch in parts, each by ``compute``, and add its gradients to the parameters' ``grad``.

        Returns:
            What the parts come to; None when the batch is to be computed as a whole, by a backward pass.

        Raises:
            StepDropped: the training was asked to stop in the middle. No gradient was added.
        """
        ...

    def close(self) -> None:
        """Training is over: what is held for it is needed elsewhere."""
        ...


class Plain:
    """As torch and transformers do it; adapters may be fused, which any hardware gains by."""

    parts = 1

    def __init__(self, *, fuses_adapters: bool = False) -> None:
        self.fuses_adapters = fuses_adapters

    def attention(self, *_: Any) -> None:
        return None

    def prepare(self, *_: Any) -> None: ...

    def verify_attention(self, *_: Any) -> None: ...

    def verify(self, *_: Any) -> bool:
        return False

    def use_own_loss(self, *_: Any) -> None: ...

    def gradients(self, *_: Any, **__: Any) -> None:
        return None

    def close(self) -> None: ...
