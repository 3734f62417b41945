"""How many lines lie before a byte of a log, without reading all of it: newlines counted by blocks of a mebibyte.

The counts are kept beside the log, in ``run.log.lines``: the first line says which file they are of, each further one how
many newlines there are up to the end of its block. They are derived, and may be deleted. Whoever needs a block that was not counted counts it: the tail while a run goes on,
and once, for a log of before, whoever first asks for its end.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from threading import get_ident
from zlib import crc32

from tunesmith.files import read_regular

BLOCK = 1024 * 1024
_CHUNK = 128 * 1024
_COMPARED = 4096
_LARGEST = 64 * 1024 * 1024


class LineIndex:
    """The counts of one log, which is open. Blocks on the disk."""

    def __init__(self, log: Path, descriptor: int) -> None:
        self._path = _path_of(log)
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.size = status.st_size
        self._file = f"{status.st_dev:x}.{status.st_ino:x}"
        self._counts = self._kept()

    def _kept(self) -> list[int]:
        try:
            first, *rest = read_regular(self._path, _LARGEST).split(b"\n")
            counts = [int(line) for line in rest if line]
        except (OSError, ValueError):
            return []
        possible = [0, *counts, self.size]
        fits = len(counts) * BLOCK <= self.size and possible == sorted(possible)
        # A program may empty its log and write it anew, and then the same file holds something else.
        return counts if fits and first.decode(errors="replace") == self._identity(len(counts)) else []

    def _identity(self, blocks: int) -> str:
        """Tells the log as it was counted from another one: its file, its beginning, and the end of what was counted."""
        ends = (0, max(0, blocks * BLOCK - _COMPARED))
        return " ".join([self._file, *(f"{crc32(os.pread(self._descriptor, _COMPARED, at)):08x}" for at in ends)])

    @staticmethod
    def forget(log: Path) -> None:
        """The log was cut: what was counted is of another one."""
        _path_of(log).unlink(missing_ok=True)

    def lines_before(self, offset: int) -> int:
        """How many newlines lie before a byte of the log."""
        blocks = min(offset, self.size) // BLOCK
        self.count(blocks)
        return self._before(blocks) + sum(chunk.count(b"\n") for chunk in self._chunks(blocks * BLOCK, offset))

    def start_after(self, line: int) -> tuple[int, int]:
        """Where the line after number ``line`` starts, and how many lines lie before it (fewer when the log ends)."""
        self.count(self.size // BLOCK)
        block = bisect_left(self._counts, line)
        passed, position = self._before(block), block * BLOCK
        for chunk in self._chunks(position, self.size):
            inside = chunk.count(b"\n")
            if passed + inside >= line:
                return position + _after_newline(chunk, line - passed), line
            passed += inside
            position += len(chunk)
        return position, passed

    def count(self, blocks: int) -> None:
        """Count whole blocks that were not counted yet, and keep what was counted."""
        known = len(self._counts)
        for block in range(known, blocks):
            chunks = self._chunks(block * BLOCK, (block + 1) * BLOCK)
            self._counts.append(self._before(block) + sum(chunk.count(b"\n") for chunk in chunks))
        if len(self._counts) > known:
            self._keep()

    def _before(self, block: int) -> int:
        return self._counts[block - 1] if block else 0

    def _chunks(self, start: int, end: int) -> Iterator[bytes]:
        while start < end and (chunk := os.pread(self._descriptor, min(_CHUNK, end - start), start)):
            yield chunk
            start += len(chunk)

    def _keep(self) -> None:
        content = "\n".join([self._identity(len(self._counts)), *map(str, self._counts)]) + "\n"
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}-{get_ident()}.tmp")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(content)
            beside.replace(self._path)
        except OSError:
            beside.unlink(missing_ok=True)  # a full disk: it is counted again when it is needed


def _path_of(log: Path) -> Path:
    return log.with_name(f"{log.name}.lines")


def _after_newline(chunk: bytes, number: int) -> int:
    """The position after the newline of that number; 0 for none."""
    position = 0
    for _ in range(number):
        position = chunk.index(b"\n", position) + 1
    return position
