"""A backend for any model of transformers that attends in the ordinary way: all pieces of a step packed into one sequence.

The model computes as it stands; only its attention is replaced by one over slots. Whether that gives the same numbers is
verified when it is loaded; see ``verify``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith_workers.engine.adapters import AdapterBank, hook
from tunesmith_workers.engine.batch import Piece, StepBatch
from tunesmith_workers.engine.slots import NAME, Slots
from tunesmith_workers.models.structure import sees_by_position, set_attention


class Packed:
    """Computes steps with the model's own ``forward``."""

    shares_prefixes = True
    splits_prompts = True

    def __init__(self, model: Any, bank: AdapterBank, slots: int, longest: int) -> None:
        """
        Raises:
            ValueError: sequences of different lengths cannot be computed side by side.
        """
        if reason := sees_by_position(model, longest):
            raise ValueError(reason)
        self.slots, self.longest = slots, longest
        self._model, self._bank = model, bank
        self._cache = Slots(slots, longest)
        set_attention(model, NAME)
        hook(model, bank)

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> Tensor:
        batch = StepBatch(pieces, self._model.device)
        self._cache.begin(batch)
        self._bank.begin(batch)
        found = self._model(
            input_ids=batch.ids[None],
            position_ids=batch.positions[None],
            use_cache=False,
            tunesmith_slots=self._cache,
            logits_to_keep=batch.last if batch.last is not None else 0,
        )
        return batch.in_order(found.logits[0], pieces)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        self._cache.copy(source, target, length)

    def drop(self, slot: int) -> None: ...

    def keep_only_own(self) -> None: ...
