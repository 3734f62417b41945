"""A backend for every model of transformers: each sequence by itself, with the cache that the model makes for itself.

Slow, and right whatever the model attends to: windows, states, mixtures of both. Sequences still join and leave at any token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith_workers.engine.adapters import AdapterBank, hook
from tunesmith_workers.engine.batch import Piece, StepBatch

_CACHES = ("past_key_values", "cache_params")
"""Where a model returns what it wants to be given the next time: of attention, and of states."""


class Sequential:
    """Computes one piece after the other."""

    shares_prefixes = False
    splits_prompts = False

    def __init__(self, model: Any, bank: AdapterBank, slots: int, longest: int) -> None:
        hook(model, bank)
        self.slots, self.longest = slots, longest
        self._model, self._bank = model, bank
        self._caches: dict[int, dict[str, Any]] = {}

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> Tensor:
        rows = [self._one(piece) for piece in pieces]
        return torch.cat([found for found, piece in zip(rows, pieces, strict=True) if piece.answers])

    def _one(self, piece: Piece) -> Tensor:
        batch = StepBatch([piece], self._model.device)
        self._bank.begin(batch)
        kept = self._caches.get(piece.slot, {}) if piece.start else {}
        found = self._model(input_ids=batch.ids[None], use_cache=True, **kept)
        self._caches[piece.slot] = {name: found[name] for name in _CACHES if found.get(name) is not None}
        logits: Tensor = found.logits[0, -max(piece.answers, 1) :]
        return logits

    def copy(self, source: int, target: int, length: int) -> None:
        raise NotImplementedError("what a model keeps in a form of its own is not shared")

    def drop(self, slot: int) -> None:
        self._caches.pop(slot, None)

    def keep_only_own(self) -> None: ...
