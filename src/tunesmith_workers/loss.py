"""Cross entropy at the trained positions only.

Most of a chat row is prompt. Its logits cost as much as all others and are then thrown away, so the hidden states of the
trained positions are picked before the output layer runs, by a hook on that layer. The model's own ``forward`` still
runs around it, so whatever it does to logits (scaling, soft caps) is done. A model whose loss is more than this cross
entropy is found by comparing once, and is then trained by its own loss. In the same way it is found out whether the rows
of a batch can be laid side by side (``padding_free``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from tunesmith_workers.cross_entropy import summed_cross_entropy
from tunesmith_workers.padding_free import SideBySide, choose, layers_of, obstacle
from tunesmith_workers.rendering import IGNORED

AGREES_WITHIN = 0.02
"""How far the two ways may differ, relatively: bfloat16 rounds, and a different loss differs by far more."""


class BatchLoss(msgspec.Struct, frozen=True):
    """What one batch came to."""

    total: Tensor
    """Sum of the cross entropies over the trained tokens, in float32, with its gradient."""
    trained: int
    """How many tokens that is."""
    correct: Tensor | None
    """How many of them the model would have chosen itself; None when it was not asked, or cannot be known."""


class TrainedTokenLoss:
    """Computes the loss of a causal language model at the positions whose labels are not ``IGNORED``."""

    def __init__(self, model: nn.Module) -> None:
        self._picked: tuple[Any, ...] | None = None
        head = model.get_output_embeddings()  # type: ignore[operator]  # every causal model of transformers has it
        self.gathers = isinstance(head, nn.Module)
        """Whether logits are computed at trained positions only, or the model's own loss is used."""
        self.side_by_side = False
        """Whether the rows of a batch are laid side by side instead of padded."""
        self._hook = head.register_forward_pre_hook(self._pick) if self.gathers else None

    def __call__(self, model: nn.Module, inputs: Mapping[str, Tensor], *, count_correct: bool = False) -> BatchLoss:
        """Run ``model`` on ``input_ids``, ``attention_mask`` and ``labels``, each (batch, length)."""
        targets = _targets(inputs["labels"])
        positions = targets != IGNORED
        trained = int(positions.sum())
        if not self.gathers:
            mean = model(**inputs).loss
            return BatchLoss(total=mean.float() * trained, trained=trained, correct=None)
        wanted = targets[positions]
        logits = self._logits(model, inputs, positions)
        total = summed_cross_entropy(logits, wanted)
        correct = (logits.detach().argmax(-1) == wanted).sum() if count_correct else None
        return BatchLoss(total=total, trained=trained, correct=correct)

    @torch.no_grad()
    def settle(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> str | None:
        """Compare with the model's own loss on one batch, and use that from now on if they differ; the reason is returned."""
        if not self.gathers:
            return "the model has no output layer that can be found"
        training = model.training
        model.eval()
        own = float(model(**inputs).loss)
        try:
            batch = self(model, inputs)
            ours = float(batch.total) / max(batch.trained, 1)
            reason = None if abs(ours - own) <= AGREES_WITHIN * max(abs(own), 1.0) else f"{ours:.4f} against {own:.4f}"
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
        model.train(training)
        if reason is not None:
            self.gathers = False
        return reason

    @torch.no_grad()
    def settle_side_by_side(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> str | None:
        """Lay rows side by side from now on if that gives the same on one batch; the reason is returned if it does not."""
        reason = obstacle(model) if self.gathers else "the model is trained by its own loss"
        if reason is not None:
            return reason
        training = model.training
        model.eval()
        padded = float(self(model, inputs).total)
        before = choose(model)
        self.side_by_side = True
        try:
            ours = float(self(model, inputs).total)
            if not abs(ours - padded) <= AGREES_WITHIN * max(abs(padded), 1.0):
                reason = f"{ours:.4f} against {padded:.4f}"
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
        model.train(training)
        if reason is not None:
            self.side_by_side = False
            choose(model, before)
        return reason

    def _logits(self, model: nn.Module, inputs: Mapping[str, Tensor], positions: Tensor) -> Tensor:
        rows = SideBySide(inputs, positions) if self.side_by_side else None
        self._picked = (positions,) if rows is None else (0, rows.places[positions])
        given = rows.arguments() if rows else {name: value for name, value in inputs.items() if name != "labels"}
        try:
            outputs = model(**given, use_cache=False)
        finally:
            self._picked = None
        logits: Tensor = outputs.logits
        if logits.shape[:-1] != (1, int(positions.sum())):
            raise ValueError(f"expected logits of {int(positions.sum())} tokens, got the shape {tuple(logits.shape)}")
        if rows and rows.layout.attended != layers_of(model):
            raise ValueError(f"{rows.layout.attended} of {layers_of(model)} layers attended within rows")
        return logits.squeeze(0)  # an index would have its gradient filled with zeros first

    def _pick(self, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._picked is None:
            return None
        hidden, *rest = arguments
        return (hidden[self._picked][None], *rest)


def _targets(labels: Tensor) -> Tensor:
    """What the model should say at each position: the label of the next one."""
    return pad(labels[:, 1:], (0, 1), value=IGNORED)


def count_trained(labels: Tensor) -> Tensor:
    """How many positions of a batch contribute to the loss."""
    return (labels[:, 1:] != IGNORED).sum()
