"""Whether a model may be run in the ways that are faster on a CPU: verified on two short rows, in float32."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith_workers.cpu.packed_batch import obstacle, pack
from tunesmith_workers.cpu.row_attention import NAME
from tunesmith_workers.examples.batches import Batch, pad, take, targets_of
from tunesmith_workers.examples.rendering import IGNORED
from tunesmith_workers.models.structure import attention_of, set_attention
from tunesmith_workers.training.exact import difference, exactly, misfit
from tunesmith_workers.training.verify import SAME_LOGITS, Check

_SAME_GRADIENT = 1e-3
"""Of its norm, which has come through twice as many layers as the logits."""


def attention_misfit(model: Any, rows: Batch) -> str | None:
    """Why eager attention, which is chosen for speed, must not be used: transformers' default is right where they differ."""
    if attention_of(model) != "eager" or not getattr(model, "_supports_sdpa", False):
        return None
    padded = pad(rows, 0)
    trained = targets_of(rows) != IGNORED
    found = []
    try:
        for attention in ("sdpa", "eager"):
            set_attention(model, attention)
            with torch.no_grad(), exactly(model):
                logits = model(**padded, use_cache=False).logits
            each = [row[:length] for row, length in zip(logits, rows["lengths"], strict=True)]
            found.append(torch.cat(each)[trained])
    finally:
        set_attention(model, "eager")
    apart = difference(found[1], found[0])
    return None if apart <= SAME_LOGITS else f"eager attention gives other logits than sdpa (by {apart:.1e})"


def parts_misfit(check: Check) -> str | None:
    """Why parts of a batch must not be computed on their own; None when that gives what the whole batch does."""
    return check.draws or misfit(lambda: _depends_on_others(check))


def _depends_on_others(check: Check) -> str | None:
    """What the model makes of the shorter row without the other one, and without padding."""
    together = check.exact
    assert together is not None, "compare_gathered comes first"
    found = check.exact_logits(take(check.rows, slice(1, None)))
    apart = difference(found, together[-len(found) :])
    return None if apart <= SAME_LOGITS else f"what it makes of a row depends on others (by {apart:.1e})"


class Packing:
    """Packs the batches of a model, or pads them."""

    def __init__(self) -> None:
        self._attention_of_padded: str | None = None

    @property
    def is_used(self) -> bool:
        return self._attention_of_padded is not None

    def misfit(self, check: Check) -> str | None:
        """Why batches are to be padded. If they are not, they are packed from now on."""
        reason = obstacle(check.model)
        if reason is not None:
            return reason

        def compare() -> str | None:
            expected = check.exact_gradient()
            self._use(check)
            return _compare_gradients(expected, check.exact_gradient())

        reason = misfit(compare) or check.fails_in_its_precision()
        if reason is not None:
            self.stop(check.model, check.logits)
        return reason

    def _use(self, check: Check) -> None:
        self._attention_of_padded = set_attention(check.model, NAME)
        check.logits.arrange = partial(pack, check.model)

    def stop(self, model: nn.Module, logits: Any) -> None:
        """Pad batches from now on, and have ``model`` attend as before."""
        if self._attention_of_padded is not None:
            set_attention(model, self._attention_of_padded)
            logits.arrange = logits.padded
            self._attention_of_padded = None


def _compare_gradients(expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> str | None:
    (logits, gradient), (packed_logits, packed_gradient) = expected, found
    apart = difference(packed_logits, logits)
    if apart > SAME_LOGITS:
        return f"logits of packed rows differ by {apart:.1e}"
    apart = difference(packed_gradient, gradient)
    return None if apart <= _SAME_GRADIENT else f"gradients of packed rows differ by {apart:.1e}"
