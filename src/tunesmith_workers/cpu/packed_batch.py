"""Packed batches: all rows in one sequence without padding, and the prefix that they share computed once.

Rows of one task mostly open with the same system prompt. What a causal model makes of it does not depend on what comes
after, so it need not be computed for every row; and the gradients that all rows send back to it add up by themselves.
Likewise nothing depends on what comes after the last token that a prediction is made from, and it is left out.
Attention is the only place where tokens of a row meet, and ``row_attention`` is told where rows begin and end. Loss and
gradients are those of the padded batch. The idea is known as prefix sharing (Prefix Grouper, arXiv:2506.05433).

Only models that are seen to fit are run in this way; ``obstacle`` says why another is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith_workers.cpu.row_attention import SHORT, Layout
from tunesmith_workers.examples.batches import Batch, rows_of, targets_of
from tunesmith_workers.examples.rendering import IGNORED
from tunesmith_workers.models.structure import layers_of, text_config
from tunesmith_workers.objectives.trained_logits import ModelInput

_WORTH_SHARING = 0.25
"""Of long rows, the part that must be shared: torch's own attention skips the future only where nothing stands before."""


class PackedBatch:
    """The rows of a batch in one sequence, as far as they are needed.

    ``tokens`` and ``positions`` are (1, tokens kept); ``trained``, (trained tokens,), says from which of them the trained
    tokens of the batch are predicted, row by row.
    """

    def __init__(self, batch: Batch) -> None:
        predicting = [(row != IGNORED).nonzero().squeeze(1) for row in torch.split(targets_of(batch), batch["lengths"])]
        # From a row on which nothing is predicted, the first token is kept: each part has at least one.
        lengths = [1 + int(places[-1]) if len(places) else 1 for places in predicting]
        rows = [row[:length] for row, length in zip(rows_of(batch), lengths, strict=True)]
        shared = _shared(rows, min(lengths))
        if max(lengths) > SHORT and shared < _WORTH_SHARING * max(lengths):
            shared = 0
        own = [length - shared for length in lengths]
        starts = [shared + before for before in accumulate(own[:-1], initial=0)]
        places = torch.arange(max(lengths), device=rows[0].device)
        self.tokens = torch.cat([rows[0][:shared], *(row[shared:] for row in rows)])[None]
        self.positions = torch.cat([places[:shared], *(places[shared:length] for length in lengths)])[None]
        self.trained = torch.cat(
            [torch.where(at < shared, at, at + start - shared) for at, start in zip(predicting, starts, strict=True)]
        )
        self.layout = Layout(shared, tuple(own))

    def arguments(self) -> dict[str, Any]:
        """What a model is called with."""
        return {"input_ids": self.tokens, "position_ids": self.positions, "layout": self.layout}


def pack(model: nn.Module, batch: Batch) -> ModelInput:
    """A batch as ``model`` reads it once it attends in rows."""
    packed = PackedBatch(batch)

    def check() -> None:
        if packed.layout.attended != layers_of(model):
            raise ValueError(f"{packed.layout.attended} of {layers_of(model)} layers attended within rows")

    return ModelInput(packed.arguments(), (0, packed.trained), check)


def _shared(rows: Sequence[Tensor], shortest: int) -> int:
    """How many tokens all rows begin with; each keeps one of its own."""
    if len(rows) == 1:
        return 0
    same = torch.stack([row[: shortest - 1] == rows[0][: shortest - 1] for row in rows]).all(0)
    return int(same.long().cumprod(0).sum())


def obstacle(model: nn.Module) -> str | None:
    """Why batches cannot be packed for this model, as far as can be seen without running it."""
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be chosen"
    if any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules()):  # noqa: SLF001  # has no public name
        return "it mixes neighbouring tokens by convolution"
    if any(kind != "full_attention" for kind in getattr(text_config(model), "layer_types", None) or ()):
        return "not every layer attends to the whole row"
    return None
