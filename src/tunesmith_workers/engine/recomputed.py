"""The last resort: no cache at all, each sequence is computed whole for each of its tokens.

For models whose own caches do not give what the model gives without them. Right wherever the model itself is, and slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith_workers.engine.adapters import AdapterBank, hook
from tunesmith_workers.engine.batch import Piece, StepBatch


class Recomputed:
    """Computes whole sequences."""

    shares_prefixes = False
    splits_prompts = False

    def __init__(self, model: Any, bank: AdapterBank, slots: int, longest: int) -> None:
        hook(model, bank)
        self.slots, self.longest = slots, longest
        self._model, self._bank = model, bank
        self._tokens: dict[int, list[int]] = {}

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> Tensor:
        rows = [self._one(piece) for piece in pieces]
        return torch.cat([found for found, piece in zip(rows, pieces, strict=True) if piece.answers])

    def _one(self, piece: Piece) -> Tensor:
        tokens = [*self._tokens.get(piece.slot, [])[: piece.start], *piece.tokens]
        self._tokens[piece.slot] = tokens
        self._bank.begin(StepBatch([piece._replace(start=0, tokens=tokens)], self._model.device))
        found = self._model(input_ids=torch.tensor([tokens], device=self._model.device))
        logits: Tensor = found.logits[0, -max(piece.answers, 1) :]
        return logits

    def copy(self, source: int, target: int, length: int) -> None:
        raise NotImplementedError("there is nothing to be shared")

    def drop(self, slot: int) -> None:
        self._tokens.pop(slot, None)

    def keep_only_own(self) -> None: ...
