"""Guesses of how an answer goes on, looked up in what was said before (prompt lookup decoding, Saxena 2023; Yang et al.,
arXiv:2304.04487).

A small batch is computed as fast for a few tokens as for one: what is read from memory are the weights. So tokens that are likely to
come are computed along, and kept as far as they are what would have been chosen anyway: answers are the same, only sooner. Answers
that repeat their prompt, such as extracted names, gain most.
"""

from __future__ import annotations

from collections.abc import Sequence

_SIZES = (3, 2)
"""So many last tokens are looked for, longest first."""
_LEARNS = 0.2
"""How much one guess counts for what is thought of the next."""
_RECOVERS = 0.02
_TRUSTED = 0.15
"""Below this share of right tokens, nothing is guessed for a while."""


class Lookup:
    """The tokens of one sequence, by the tokens before them."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}
        self._trust = 1.0
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """What has come."""
        for token in tokens:
            place = len(self._tokens)
            for size in _SIZES:
                if place >= size:
                    self._places[tuple(self._tokens[place - size :])] = place
            self._tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """At most so many tokens that may come next; fewer, or none, after guesses that were wrong."""
        if self._trust < _TRUSTED:
            self._trust += _RECOVERS
            return []
        for size in _SIZES:
            place = self._places.get(tuple(self._tokens[-size:])) if len(self._tokens) >= size else None
            if place is not None:
                return self._tokens[place : place + max(1, round(most * self._trust))]
        return []

    def learn(self, right: int, guessed: int) -> None:
        """How many tokens of a guess were right."""
        self._trust += _LEARNS * (right / guessed - self._trust)
