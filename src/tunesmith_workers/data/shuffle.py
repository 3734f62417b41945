"""Holds rows until all are known, and gives them back in their order or in a random one, with flat memory.

Rows are dealt to buckets at random, and each bucket is shuffled when it is read: every order is equally likely. Buckets
share a few files without names, which go with the process, and each as soon as all of it was given back: its memory in the
system's cache is then free for what is written next. The order depends on the seed and the number of bytes read.
"""

from __future__ import annotations

import io
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith_workers.data.reader import as_lines

_BUCKET_BYTES = 16 * 1024 * 1024
_MOST_HELD = 16 * 1024 * 1024
_MOST_FILES = 16


class HeldRows:
    """Rows as lines with their ends."""

    def __init__(
        self,
        scratch: Path,
        *,
        expected_bytes: int,
        seed: int | None,
        bucket_bytes: int = _BUCKET_BYTES,
        most_held: int = _MOST_HELD,
    ) -> None:
        """``seed`` None keeps the order."""
        self.count = 0
        self._scratch = scratch
        self._random = None if seed is None else random.Random(seed)
        buckets = 1 if seed is None else max(1, -(-expected_bytes // bucket_bytes))
        # Copied while they are at hand, and where they are to be written: a list of rows would be gathered from all over.
        self._held = [io.BytesIO() for _ in range(buckets)]
        self._put = [held.write for held in self._held]
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(buckets)]
        self._held_bytes = 0
        self._most_held = most_held
        self._files: dict[int, int] = {}
        self._ends = [0] * _MOST_FILES

    def add(self, rows: Sequence[bytes]) -> None:
        self.count += len(rows)
        self._held_bytes += sum(map(len, rows))
        buckets = len(self._held)
        if buckets == 1 or self._random is None:
            self._held[0].writelines(rows)
        else:
            for row, number in zip(rows, memoryview(self._random.randbytes(4 * len(rows))).cast("I"), strict=True):
                self._put[number % buckets](row)
        if self._held_bytes > self._most_held:
            self._spill()

    def in_order(self) -> Iterator[list[bytes]]:
        """All rows, some at a time. Asked once."""
        for bucket, extents in enumerate(self._extents):
            if self._random is None:
                for extent in extents:
                    yield self._stored(bucket, extent)
                yield self._not_stored(bucket)
            else:
                rows = [row for extent in extents for row in self._stored(bucket, extent)]
                rows += self._not_stored(bucket)
                self._close_files_before(bucket + 1)
                keys = memoryview(self._random.randbytes(8 * len(rows))).cast("Q").tolist()
                yield [rows[place] for place in sorted(range(len(rows)), key=keys.__getitem__)]

    def close(self) -> None:
        self._close_files_before(len(self._held))

    def _stored(self, bucket: int, extent: tuple[int, int]) -> list[bytes]:
        offset, length = extent
        return as_lines(os.pread(self._files[self._file_of(bucket)], length, offset))

    def _not_stored(self, bucket: int) -> list[bytes]:
        held = self._held[bucket]
        held.truncate()
        held.seek(0)
        rows = held.readlines()
        held.close()
        return rows

    def _file_of(self, bucket: int) -> int:
        return bucket * _MOST_FILES // len(self._held)

    def _close_files_before(self, bucket: int) -> None:
        last = self._file_of(bucket) if bucket < len(self._held) else _MOST_FILES
        for number in [number for number in self._files if number < last]:
            os.close(self._files.pop(number))

    def _spill(self) -> None:
        for bucket, (held, extents) in enumerate(zip(self._held, self._extents, strict=True)):
            size = held.tell()
            if not size:
                continue
            number = self._file_of(bucket)
            if number not in self._files:
                with tempfile.TemporaryFile(dir=self._scratch) as file:
                    self._files[number] = os.dup(file.fileno())
            extents.append((self._ends[number], size))
            with held.getbuffer() as content:
                written = 0
                while written < size:
                    written += os.pwrite(self._files[number], content[written:size], self._ends[number] + written)
            self._ends[number] += size
            held.seek(0)  # what it has grown to stays for the next rows
        self._held_bytes = 0
