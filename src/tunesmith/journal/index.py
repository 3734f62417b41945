"""Where each id's lines are, and its summary; filled by replaying the file, then by each commit.

Per line it keeps twelve bytes, per id a summary and two dict entries. It never holds the file: reading goes in blocks,
and pages are not mapped, because mapped pages count as memory of this process.
"""

from __future__ import annotations

import gc
import os
import struct
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar
from zlib import crc32

import msgspec

from tunesmith.errors import JournalDamaged
from tunesmith.journal.lines import (
    CRC_BYTES,
    LONGEST_LINE,
    Entry,
    LineUnsound,
    carries_record,
    last_seq_of,
    read_line,
)

S = TypeVar("S")

# Fits the second-level cache; larger blocks measured slower.
_BLOCK = 128 * 1024

MEND = "`tunesmith state repair` keeps every sound line and sets the damaged file aside"


class Index(Generic[S]):
    """Summaries and line positions of one journal."""

    def __init__(self) -> None:
        self.summaries: dict[str, S] = {}
        self.seq = 0
        """The last seq in use."""
        self.length = 0
        """Bytes of the file that are indexed."""
        # Lines are numbered from 1 as in an editor; line n starts at _starts[n - 1], and the line of the same id before
        # it is _previous[n - 1], or 0: a list per id would cost ten times as much.
        self._starts = array("Q")
        self._previous = array("I")
        self._latest: dict[str, int] = {}

    def add(self, record_id: str, summary: S, size: int) -> None:
        """Note that the next line, of ``size`` bytes with its newline, is the latest of this id."""
        self._starts.append(self.length)
        self._previous.append(self._latest.get(record_id, 0))
        self._latest[record_id] = len(self._starts)
        self.summaries[record_id] = summary
        self.length += size
        self.seq += 1

    def lines_of(self, record_id: str) -> Iterator[int]:
        """Line numbers of one id, newest first."""
        line = self._latest.get(record_id, 0)
        while line:
            yield line
            line = self._previous[line - 1]

    def span(self, line: int) -> tuple[int, int]:
        """Offset and size of a line, without its newline."""
        start = self._starts[line - 1]
        end = self._starts[line] if line < len(self._starts) else self.length
        return start, end - start - 1

    def replay(self, path: Path, descriptor: int, length: int, summary_type: type[S], *, block: int = _BLOCK) -> None:
        """Read the first ``length`` bytes of the file, which end with a newline.

        Raises:
            JournalDamaged: naming the first line that does not check out.
        """
        line_type = msgspec.defstruct(
            "_Line", [("seq", int), ("id", str), ("data", summary_type), ("crc", str)], gc=False
        )
        decode_lines = msgspec.json.Decoder(line_type).decode_lines
        decode_summary = msgspec.json.Decoder(summary_type).decode
        with _collector_paused():
            rest = b""
            for position in range(0, length, block):
                content = rest + os.pread(descriptor, min(block, length - position), position)
                used = content.rfind(b"\n") + 1
                lines, rest = content[:used], content[used:]
                if not self._take_ordinary(lines, decode_lines):
                    self._take_closely(path, lines, decode_summary)
                if len(rest) > LONGEST_LINE:
                    raise damaged(path, len(self._starts) + 1, f"the line is longer than {LONGEST_LINE} bytes")

    def _take_ordinary(self, lines: bytes, decode_lines: Callable[[bytes], list[Any]]) -> bool:
        """Index whole lines that are all as they should be; otherwise change nothing and return False.

        Every start goes through here once per line of history, so it checks a block at a time instead of calling
        something for each line.
        """
        try:
            read = decode_lines(lines)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        starts, sums = _checksums(lines, self.length)
        count = len(starts)
        if struct.pack(f">{count}I", *sums).hex() != "".join([line.crc for line in read]):
            return False
        if [line.seq for line in read] != list(range(self.seq + 1, self.seq + 1 + count)):
            return False
        if not all([line.id for line in read]):  # noqa: C419  # a generator takes three times as long
            return False
        latest, summaries, note_previous = self._latest, self.summaries, self._previous.append
        for number, line in enumerate(read, len(self._starts) + 1):
            record_id = line.id
            summaries[record_id] = line.data
            note_previous(latest.get(record_id, 0))
            latest[record_id] = number
        self._starts.extend(starts)
        self.length += len(lines)
        self.seq += count
        return True

    def _take_closely(self, path: Path, lines: bytes, decode_summary: Callable[[msgspec.Raw], S]) -> None:
        """Index whole lines one by one, and name the one that is at fault."""
        for line in lines[:-1].split(b"\n") if lines else ():
            number = len(self._starts) + 1
            try:
                entry = read_line(line)
                last = last_seq_of(entry)
            except LineUnsound as error:
                raise damaged(path, number, str(error)) from error
            if entry.seq != self.seq + 1:
                raise damaged(path, number, f"seq is {entry.seq} where {self.seq + 1} must follow")
            if carries_record(entry):
                self.add(entry.id, _decoded(path, number, entry, decode_summary), len(line) + 1)
            else:
                self._skip(last, len(line) + 1)

    def _skip(self, last_seq: int, size: int) -> None:
        """Note a line without a record."""
        self._starts.append(self.length)
        self._previous.append(0)
        self.length += size
        self.seq = last_seq


def _checksums(lines: bytes, base: int) -> tuple[list[int], list[int]]:
    """Where each line starts in the file, and the checksum it should carry."""
    starts: list[int] = []
    sums: list[int] = []
    note_start, note_sum, find, view = starts.append, sums.append, lines.find, memoryview(lines)
    start = 0
    while (end := find(b"\n", start)) >= 0:
        note_start(base + start)
        note_sum(crc32(view[start : end - CRC_BYTES]))
        start = end + 1
    return starts, sums


def _decoded(path: Path, number: int, entry: Entry, decode_summary: Callable[[msgspec.Raw], S]) -> S:
    if not entry.id:
        raise undecodable(path, number, "its id is empty")
    try:
        return decode_summary(entry.data)
    except msgspec.DecodeError as error:
        raise undecodable(path, number, str(error)) from error


def damaged(path: Path, number: int, message: str) -> JournalDamaged:
    return JournalDamaged(message, where=f"{path}:{number}", mend=MEND)


def undecodable(path: Path, number: int, reason: str) -> JournalDamaged:
    """The error for a line whose bytes are as they were written, but whose record is not one we know."""
    return JournalDamaged(
        f"the line is intact, but its record is not one this version knows: {reason}",
        where=f"{path}:{number}",
        mend="start the version of Tunesmith that wrote it; to give the line up, delete it and run `tunesmith state repair`",
    )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Replay makes only objects that stay, so walking them while it runs would find nothing to collect."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
