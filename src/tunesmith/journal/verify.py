"""Checking a journal without opening it: what every line is worth, in memory that does not grow with the file.

It does not know record types: a record that this version cannot decode is found by ``Journal.open``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from tunesmith.errors import Fault
from tunesmith.journal.index import MEND
from tunesmith.journal.lines import LONGEST_LINE, Entry, LineUnsound, carries_record, last_seq_of, read_line

_MOST_FAULTS = 1000


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What ``verify`` found in one journal."""

    path: str
    lines: int = 0
    """Complete lines, sound or not."""
    records: int = 0
    """Sound lines that carry a record."""
    torn_bytes: int = 0
    """Length of a last line without its newline; the next start sets it aside by itself."""
    damaged: int = 0
    """How many faults there are; the server refuses to start on any."""
    faults: tuple[Fault, ...] = ()
    """The faults with their places, at most the first thousand."""

    @property
    def sound(self) -> bool:
        return not self.damaged


class ScannedLine(NamedTuple):
    """One line as ``scan`` saw it. A line can be sound and still have a fault: lines are missing before it."""

    number: int
    line: bytes
    """Without its newline; empty when it was too long to hold."""
    entry: Entry | None
    """None when the line does not check out, or repeats a seq."""
    fault: str | None
    torn_bytes: int = 0
    """Set on the last one only, when it has no newline; it is then neither sound nor a fault."""


def verify(path: Path) -> Verdict:
    """Read the whole journal and say what does not check out.

    Raises:
        OSError: it cannot be read.
    """
    lines = records = torn_bytes = damaged = 0
    faults: list[Fault] = []
    with path.open("rb") as file:
        for scanned in scan(file):
            if scanned.torn_bytes:
                torn_bytes = scanned.torn_bytes
                continue
            lines += 1
            records += scanned.entry is not None and carries_record(scanned.entry)
            if scanned.fault is not None:
                damaged += 1
                if len(faults) < _MOST_FAULTS:
                    faults.append(Fault(message=scanned.fault, where=f"{path}:{scanned.number}", mend=MEND))
    return Verdict(
        path=str(path), lines=lines, records=records, torn_bytes=torn_bytes, damaged=damaged, faults=tuple(faults)
    )


def scan(file: BinaryIO) -> Iterator[ScannedLine]:
    """Judge one line after the other. Behind an unsound line any later seq is taken as the right one."""
    last, known = 0, True
    for number, (line, size) in enumerate(_lines(file), start=1):
        if not line.endswith(b"\n"):
            yield ScannedLine(number, b"", None, None, torn_bytes=size)
            return
        line = line[:-1]  # noqa: PLW2901  # the newline has told what it had to tell
        try:
            entry = _judge(line, size, last)
            fault = f"seq is {entry.seq} where {last + 1} must follow" if known and entry.seq != last + 1 else None
            last, known = last_seq_of(entry), True
        except LineUnsound as error:
            known = False
            yield ScannedLine(number, line, None, str(error))
        else:
            yield ScannedLine(number, line, entry, fault)


def _judge(line: bytes, size: int, last: int) -> Entry:
    if size > LONGEST_LINE:
        raise LineUnsound(f"the line is longer than {LONGEST_LINE} bytes")
    entry = read_line(line)
    if entry.seq <= last:
        raise LineUnsound(f"seq is {entry.seq}, but {last} was reached already")
    return entry


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line with its size. Of one that is too long only the last piece comes, so memory stays bounded."""
    while line := file.readline(LONGEST_LINE + 1):
        size = len(line)
        while not line.endswith(b"\n") and (more := file.readline(LONGEST_LINE + 1)):
            line, size = more, size + len(more)
        yield line, size
