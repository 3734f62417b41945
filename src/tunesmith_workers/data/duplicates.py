"""Counts rows that were there before, by a 64-bit hash of what they say. Memory is bounded: hashes beyond it go to a file.

Two different rows share a hash once in some 10^12 pairs of a million rows; nothing is removed on the strength of it.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path

_PARTITIONS = 64
_MOST_HELD = 2_000_000
_HASH_BYTES = 8


class Duplicates:
    """Give it the hash of every row; ask once, at the end, how many were repetitions."""

    def __init__(self, scratch: Path | None = None, *, most_held: int = _MOST_HELD) -> None:
        """``scratch`` is the folder for the file, which has no name and goes with the process."""
        self._scratch = scratch
        self._most_held = most_held
        self._held: list[array[int]] = [array("q") for _ in range(_PARTITIONS)]
        self._count = 0
        self._file: int | None = None
        self._end = 0
        self._spilled: list[list[tuple[int, int]]] = [[] for _ in range(_PARTITIONS)]

    def add(self, hashes: Iterable[int]) -> None:
        held = self._held
        count = 0
        for one in hashes:
            held[one & 63].append(one)
            count += 1
        self._count += count
        if self._count >= self._most_held:
            self._spill()

    def total(self) -> int:
        """How many rows repeat an earlier one."""
        repeated = 0
        for number in range(_PARTITIONS):
            seen = self._of_partition(number)
            repeated += len(seen) - len(set(seen))
            self._held[number] = array("q")
        return repeated

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _of_partition(self, number: int) -> array[int]:
        seen = array("q")
        for offset, length in self._spilled[number]:
            assert self._file is not None
            seen.frombytes(os.pread(self._file, length, offset))
        seen.extend(self._held[number])
        return seen

    def _spill(self) -> None:
        if self._file is None:
            with tempfile.TemporaryFile(dir=self._scratch) as file:
                self._file = os.dup(file.fileno())
        for number, hashes in enumerate(self._held):
            content = memoryview(hashes.tobytes())
            self._spilled[number].append((self._end, len(content)))
            while content:
                written = os.pwrite(self._file, content, self._end)
                self._end += written
                content = content[written:]
            self._held[number] = array("q")
        self._count = 0
