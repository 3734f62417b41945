"""What a model computes in one step: pieces of several sequences, each in a slot of the key/value cache.

A piece is one token of a sequence that is being answered, or some tokens of a prompt. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

NO_ADAPTER = -1


class Piece(NamedTuple):
    """Tokens side by side of one sequence."""

    slot: int
    start: int
    """The position of its first token: so many are in the slot already."""
    tokens: Sequence[int]
    adapter: int
    """The adapter's number, or ``NO_ADAPTER``."""
    answers: int
    """After how many of its last tokens it is asked what may come."""

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


class StepBatch:
    """The pieces of one step as tensors, packed without padding: pieces of one token first."""

    def __init__(self, pieces: Sequence[Piece], device: torch.device) -> None:
        self.pieces = sorted(pieces, key=lambda piece: len(piece.tokens) > 1)
        self.device = device
        self.singles = sum(len(piece.tokens) == 1 for piece in self.pieces)

    def in_order(self, rows: Tensor, asked: Sequence[Piece]) -> Tensor:
        """Rows of the answers in the order in which the pieces were asked for."""
        begins, begin = {}, 0
        for piece in self.pieces:
            begins[id(piece)], begin = begin, begin + piece.answers
        order = [begins[id(piece)] + row for piece in asked for row in range(piece.answers)]
        return rows if order == list(range(len(order))) else rows[order]

    @cached_property
    def ids(self) -> Tensor:
        """(tokens,)"""
        return self._tensor([token for piece in self.pieces for token in piece.tokens])

    @cached_property
    def positions(self) -> Tensor:
        """(tokens,)"""
        return self._tensor([position for piece in self.pieces for position in range(piece.start, piece.end)])

    @cached_property
    def slots(self) -> Tensor:
        """(tokens,)"""
        return self._tensor([piece.slot for piece in self.pieces for _ in piece.tokens])

    @cached_property
    def last(self) -> Tensor | None:
        """The places of the tokens after which it is asked what comes; None where these are all tokens there are."""
        places: list[int] = []
        end = 0
        for piece in self.pieces:
            end += len(piece.tokens)
            places += range(end - piece.answers, end)
        return None if len(places) == end else self._tensor(places)

    @cached_property
    def adapters(self) -> list[int]:
        """Of each token."""
        return [piece.adapter for piece in self.pieces for _ in piece.tokens]

    def longer(self) -> list[tuple[Piece, slice]]:
        """Pieces of several tokens, with where these are."""
        found, place = [], self.singles
        for piece in self.pieces[self.singles :]:
            found.append((piece, slice(place, place + len(piece.tokens))))
            place += len(piece.tokens)
        return found

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)


class Backend(Protocol):
    """Computes steps, and keeps what was computed of each slot."""

    slots: int
    longest: int
    """Tokens that a slot holds."""
    shares_prefixes: bool
    """Whether what is in a slot can be kept, cut and copied."""
    splits_prompts: bool
    """Whether a prompt can be computed in several pieces."""

    def step(self, pieces: Sequence[Piece]) -> Tensor:
        """What may come after each token that answers, in the order of the pieces: logits (tokens, vocabulary)."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Have the first tokens of a slot in another one, too."""
        ...

    def drop(self, slot: int) -> None:
        """What is in the slot is of no use any more."""
        ...

    def keep_only_own(self) -> None:
        """It has been chosen: what of the model only others need can go."""
        ...
