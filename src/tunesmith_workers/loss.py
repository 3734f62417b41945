"""Cross entropy at the trained positions only.

Most of a chat row is prompt. Its logits cost as much as all others and are then thrown away, so the hidden states of the
trained positions are picked before the output layer runs, by a hook on that layer. The model's own ``forward`` still
runs around it, so whatever it does to logits (scaling, soft caps) is done. Whether that is all there is to a model's
loss, and whether its batches can be packed (``padding_free``), is found out in ``verify``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from torch import Tensor, nn
from torch.nn.functional import pad

from tunesmith_workers.cross_entropy import summed_cross_entropy
from tunesmith_workers.padding_free import SideBySide, choose, layers_of
from tunesmith_workers.rendering import IGNORED


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
        self._attention_of_padded: str | None = None
        self._hook = head.register_forward_pre_hook(self._pick) if self.gathers else None

    def __call__(self, model: nn.Module, inputs: Mapping[str, Tensor], *, count_correct: bool = False) -> BatchLoss:
        """Run ``model`` on ``input_ids``, ``attention_mask`` and ``labels``, each (batch, length)."""
        if not self.gathers:
            trained = int(count_trained(inputs["labels"]))
            return BatchLoss(total=own_loss(model, inputs).float() * trained, trained=trained, correct=None)
        logits, wanted = self.logits(model, inputs)
        total = summed_cross_entropy(logits, wanted)
        correct = (logits.detach().argmax(-1) == wanted).sum() if count_correct else None
        return BatchLoss(total=total, trained=len(wanted), correct=correct)

    @property
    def packs(self) -> bool:
        """Whether the rows of a batch are packed into one sequence instead of padded."""
        return self._attention_of_padded is not None

    def pack(self, model: nn.Module) -> None:
        """Pack rows from now on, and have ``model`` attend within them."""
        if not self.packs:
            self._attention_of_padded = choose(model)

    def pad(self, model: nn.Module) -> None:
        """Pad rows from now on, and have ``model`` attend as before."""
        if self._attention_of_padded is not None:
            choose(model, self._attention_of_padded)
            self._attention_of_padded = None

    def logits(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits at the positions that trained tokens are predicted from, (trained, vocabulary), and those tokens.

        Raises:
            ValueError: the model does something with its rows or its logits that is not known here.
        """
        targets = targets_of(inputs["labels"])
        positions = targets != IGNORED
        rows = SideBySide(inputs, positions) if self.packs else None
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
        # An index would have its gradient filled with zeros first.
        return logits.squeeze(0), targets[positions]

    def _pick(self, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._picked is None:
            return None
        hidden, *rest = arguments
        return (hidden[self._picked][None], *rest)


def own_loss(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the model itself calls the loss of a batch: a mean over its tokens, and whatever else it adds."""
    loss: Tensor = model(**inputs, use_cache=False).loss
    return loss


def targets_of(labels: Tensor) -> Tensor:
    """What the model should say at each position: the label of the next one."""
    return pad(labels[:, 1:], (0, 1), value=IGNORED)


def count_trained(labels: Tensor) -> Tensor:
    """How many positions of a batch contribute to the loss."""
    return (labels[:, 1:] != IGNORED).sum()
