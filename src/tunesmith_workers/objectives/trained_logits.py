"""Runs a causal language model on a batch, and computes logits at the trained positions only.

Most of a chat row is prompt. Its logits cost as much as all others and are then thrown away, so the hidden states of the
trained positions are picked before the output layer runs, by a hook on that layer. The model's own ``forward`` still
runs around it, so whatever it does to logits (scaling, soft caps) is done. Whether that is all there is to a model's
loss is found out in ``training.verify``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from torch import Tensor, nn

from tunesmith_workers.examples.batches import Batch, pad, targets_of
from tunesmith_workers.examples.rendering import IGNORED
from tunesmith_workers.models.structure import pad_token_for
from tunesmith_workers.process.faults import WorkerFault


class ModelInput(msgspec.Struct, frozen=True):
    """A batch as a model reads it."""

    arguments: Mapping[str, Any]
    """What the model is called with."""
    trained: tuple[Any, ...]
    """An index into hidden states, (rows, length, size): where trained tokens are predicted from, row by row."""
    check: Callable[[], None] = lambda: None
    """Is called when the model has run. Raises ValueError: it did not run as it was meant to."""


Arrange = Callable[[Batch], ModelInput]


class TrainedLogits:
    """Logits of a causal language model at the positions whose next token is trained."""

    def __init__(self, model: nn.Module, pad_token: int) -> None:
        self._pad_token = pad_token_for(model, pad_token)
        self._picked: tuple[Any, ...] | None = None
        head = model.get_output_embeddings()  # type: ignore[operator]  # every causal model of transformers has it
        self.gathers = isinstance(head, nn.Module)
        """Whether logits can be computed at trained positions only; else only the model's own loss can be used."""
        self.arrange: Arrange = self.padded
        """How rows are given to the model: padded to one length, or in any other way that gives the same logits."""
        self._hook = head.register_forward_pre_hook(self._pick) if self.gathers else None

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits that trained tokens are predicted from, (trained, vocabulary), and those tokens, (trained,).

        Raises:
            ValueError: the model does something with its rows or its logits that is not known here.
            WorkerFault: only the model's own loss can be used.
        """
        if not self.gathers:
            raise WorkerFault(
                "the loss of this model is more than what its logits say, or they cannot be picked: only its own loss is right",
                where="model.base",
                mend="train it with the recipe sft or lora, or choose another model",
            )
        targets = targets_of(batch)
        targets = targets[targets != IGNORED]
        given = self.arrange(batch)
        self._picked = given.trained
        try:
            outputs = model(**given.arguments, use_cache=False)
        finally:
            self._picked = None
        logits: Tensor = outputs.logits
        if logits.shape[:-1] != (1, len(targets)):
            raise ValueError(f"expected logits of {len(targets)} tokens, got the shape {tuple(logits.shape)}")
        given.check()
        # An index would have its gradient filled with zeros first.
        return logits.squeeze(0), targets

    def padded(self, batch: Batch) -> ModelInput:
        """Rows padded to one length."""
        rows = pad(batch, self._pad_token)
        labels = rows.pop("labels")
        positions = labels.new_zeros(labels.shape).bool()
        positions[:, :-1] = labels[:, 1:] != IGNORED
        return ModelInput(rows, (positions,))

    def own_outputs(self, model: nn.Module, batch: Batch) -> Any:
        """What the model itself makes of a padded batch: its logits at all positions, (rows, length, vocabulary), and its
        loss, a mean over trained tokens and whatever else it adds.
        """
        return model(**pad(batch, self._pad_token), use_cache=False)

    def _pick(self, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._picked is None:
            return None
        hidden, *rest = arguments
        return (hidden[self._picked][None], *rest)
