"""Reading a log while it is written: bytes in, whole lines out, bounded memory whatever the log holds.

Everything is addressed by byte offset, so a reader can stop and another one can go on where it was. What a line means is
not decided here; see ``tunesmith.contract.events``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tunesmith.files import open_regular

LONGEST_LINE = 64 * 1024
"""Longer lines are handed out in pieces of at most this many bytes."""

_CHUNK = 256 * 1024
_NO_LOG = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENODEV})
"""What opening answers when there is no log: no file, or something else in its place, such as a link or a FIFO."""


class Line(msgspec.Struct, frozen=True):
    """A line of a log, or a piece of a very long one."""

    start: int
    """Byte offset of its first byte."""
    end: int
    """Byte offset after it, newline included: where the next one starts."""
    content: bytes
    """Without the newline."""

    @property
    def whole(self) -> bool:
        """Whether it ends with a newline: a piece of a longer line does not, except for the last one."""
        return self.end - self.start > len(self.content)

    @property
    def text(self) -> str:
        """Decoded; bytes that are not UTF-8 show as replacement characters."""
        return self.content.decode("utf-8", "replace").removesuffix("\r")


class LogReader:
    """Reads one log file from a byte offset on. Not tied to the event loop: a read returns at once."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset
        """Everything before it has been handed out."""

    def read(self, *, at_end: bool = False, limit: int = _CHUNK) -> list[Line]:
        """The lines that have become complete, from at most ``limit`` bytes.

        ``at_end`` says that nothing more will be written: then a last line without its newline counts as complete.
        A file that became shorter than the offset was truncated; reading goes on at its start. What is missing, or no
        regular file, has no lines.
        """
        descriptor = open_log(self._path)
        if descriptor is None:
            return []
        try:
            size = os.fstat(descriptor).st_size
            if size < self.offset:
                self.offset = 0
            chunk = os.pread(descriptor, max(limit, LONGEST_LINE + 1), self.offset) if size > self.offset else b""
        finally:
            os.close(descriptor)
        reached_end = self.offset + len(chunk) >= size
        lines = list(split(chunk, self.offset, take_rest=at_end and reached_end))
        if lines:
            self.offset = lines[-1].end
        return lines


def open_log(path: Path) -> int | None:
    """A descriptor to read the log with; None when there is none, or something else than a file in its place.

    Raises:
        OSError: there is one, and it cannot be opened now.
    """
    try:
        return open_regular(path)
    except OSError as error:
        if error.errno in _NO_LOG:
            return None
        raise


def log_size(path: Path) -> int:
    """In bytes; 0 when there is none. Raises OSError as ``open_log``."""
    descriptor = open_log(path)
    if descriptor is None:
        return 0
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def split(chunk: bytes, start: int, *, take_rest: bool) -> Iterator[Line]:
    """Cut ``chunk``, which lies at byte ``start`` of its file, into lines; an unfinished last one only if asked."""
    position = 0
    while position < len(chunk):
        newline = chunk.find(b"\n", position, position + LONGEST_LINE + 1)
        if newline >= 0:
            yield Line(start + position, start + newline + 1, chunk[position:newline])
            position = newline + 1
        elif len(chunk) - position > LONGEST_LINE:
            end = position + _whole_characters(chunk[position : position + LONGEST_LINE])
            yield Line(start + position, start + end, chunk[position:end])
            position = end
        else:
            if take_rest:
                yield Line(start + position, start + len(chunk), chunk[position:])
            return


def _whole_characters(piece: bytes) -> int:
    """How much of ``piece`` to take so that a UTF-8 character at its end is not cut in two."""
    for back in range(1, 5):
        lead = piece[-back]
        if lead & 0xC0 == 0x80:  # a continuation byte: the character began further left
            continue
        width = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
        return len(piece) - back if width > back else len(piece)
    return len(piece)
