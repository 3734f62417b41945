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
_FEW = 500_000
"""As many go into one set at the end; more are looked at part by part."""


class Duplicates:
    """Give it the hash of every row; ask once, at the end, how many were repetitions."""

    def __init__(self, scratch: Path | None = None, *, most_held: int = _MOST_HELD) -> None:
        """``scratch`` is the folder for the file, which has no name and goes with the process."""
        self._scratch = scratch
        self._most_held = most_held
        self._held = array("q")
        self._file: int | None = None
        self._end = 0
        self._spilled: list[list[tuple[int, int]]] = [[] for _ in range(_PARTITIONS)]

    def add(self, hashes: Iterable[int]) -> None:
        self._held.extend(hashes)
        if len(self._held) >= self._most_held:
            self._spill()

    def total(self) -> int:
        """How many rows repeat an earlier one."""
        if self._file is None and len(self._held) <= _FEW:
            return len(self._held) - len(set(self._held))
        parts = self._partitions()
        repeated = 0
        for number in range(_PARTITIONS):
            seen = parts[number]
            parts[number] = array("q")
            for offset, length in self._spilled[number]:
                assert self._file is not None
                seen.frombytes(os.pread(self._file, length, offset))
            repeated += len(seen) - len(set(seen))
        return repeated

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _partitions(self) -> list[array[int]]:
        """What is held, divided so that equal ones are together."""
        parts = [array("q") for _ in range(_PARTITIONS)]
        put = [part.append for part in parts]
        for one in self._held:
            put[one & 63](one)
        self._held = array("q")
        return parts

    def _spill(self) -> None:
        if self._file is None:
            with tempfile.TemporaryFile(dir=self._scratch) as file:
                self._file = os.dup(file.fileno())
        for number, hashes in enumerate(self._partitions()):
            content = memoryview(hashes.tobytes())
            self._spilled[number].append((self._end, len(content)))
            while content:
                written = os.pwrite(self._file, content, self._end)
                self._end += written
                content = content[written:]
