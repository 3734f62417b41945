"""Cross entropy of the trained tokens: what ``sft`` and ``lora`` minimise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tunesmith_workers.examples.batches import Batch, concatenate, count_trained
from tunesmith_workers.examples.rendering import Rendered
from tunesmith_workers.objectives.base import BatchLoss
from tunesmith_workers.objectives.cross_entropy import summed_cross_entropy
from tunesmith_workers.objectives.trained_logits import TrainedLogits


class TokenCrossEntropy:
    """An ``Objective`` whose items are trained tokens. Where a model's own loss has more to it, it uses that."""

    def collate(self, rows: Sequence[Rendered]) -> dict[str, Any]:
        return concatenate(rows)

    def items(self, batch: Batch) -> Tensor:
        return count_trained(batch)

    def loss(self, logits: TrainedLogits, model: Any, batch: Batch, *, measures: bool = False) -> BatchLoss:
        """``measured`` holds ``token_accuracy``: how many tokens the model would have chosen itself."""
        if not logits.gathers:
            trained = int(count_trained(batch))
            return BatchLoss(logits.own_outputs(model, batch).loss.float() * trained, trained, {})
        predicted, wanted = logits(model, batch)
        total = summed_cross_entropy(predicted, wanted)
        if not measures:
            return BatchLoss(total, len(wanted), {})
        return BatchLoss(total, len(wanted), {"token_accuracy": (predicted.detach().argmax(-1) == wanted).sum()})
