"""What each slot of the cache holds, and where a prompt, or its beginning, has been computed already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_BLOCK = 64


class Found(NamedTuple):
    """Where the beginning of a prompt is."""

    slot: int
    length: int


class Contents:
    """The tokens whose keys and values are in each slot, and of which adapter they are."""

    def __init__(self, slots: int) -> None:
        self._tokens: list[list[int]] = [[] for _ in range(slots)]
        self._adapters = [-1] * slots
        self._used = [0] * slots
        self._now = 0

    def fill(self, slot: int, tokens: Sequence[int], adapter: int) -> None:
        """The slot holds exactly these from now on."""
        self._tokens[slot] = list(tokens)
        self._adapters[slot] = adapter
        self.touch(slot)

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        self._tokens[slot] += tokens

    def touch(self, slot: int) -> None:
        self._now += 1
        self._used[slot] = self._now

    def longest(self, prompt: Sequence[int], adapter: int, among: Sequence[int]) -> Found:
        """The slot that holds the longest beginning of a prompt. Its last token is always computed anew: it has the answer."""
        best, beginning = Found(-1, 0), prompt[:-1]
        for slot in among:
            if self._adapters[slot] == adapter:
                length = common(self._tokens[slot], beginning)
                if length > best.length:
                    best = Found(slot, length)
        return best

    def oldest(self, among: Sequence[int]) -> int:
        """The one to be overwritten: an empty one, or else what was not used for the longest time."""
        return min(among, key=lambda slot: (bool(self._tokens[slot]), self._used[slot], slot))

    def forget_adapter(self, adapter: int) -> None:
        """Its number may come to stand for another one."""
        for slot, found in enumerate(self._adapters):
            if found == adapter:
                self._tokens[slot] = []


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with together."""
    most = min(len(one), len(other))
    place = 0
    while place + _BLOCK <= most and one[place : place + _BLOCK] == other[place : place + _BLOCK]:
        place += _BLOCK
    while place < most and one[place] == other[place]:
        place += 1
    return place
