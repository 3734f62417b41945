"""Reading a run's log and metrics in pages: by byte offset or by line number, with bounded memory and wherever it begins
in the same time. Writes nothing but the counts of ``line_index``.

A page may be filtered by level and text. It then ends where a page would end without the filter at the latest, however
few lines it holds by then, and says where to go on: no request reads on and on for a line that never comes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.runner.logs.levels import LogLevel, level_of
from tunesmith.runner.logs.line_index import LineIndex
from tunesmith.runner.logs.tail import Line, LogReader, log_size, open_log

_LATEST_BYTES = 16 * 1024
_encode = msgspec.json.Encoder().encode
_decode_metric = msgspec.json.Decoder(dict[str, Any]).decode
_PAGE_BYTES = 4 * 1024 * 1024
"""A page ends here even when it has fewer lines than were asked for: lines may be long."""
_PAGE_LINES = 100_000
"""And a filtered page ends after having looked at so many: they may be short."""


class LogLine(msgspec.Struct, frozen=True):
    """One line of a log."""

    number: int
    """Counted from 1; the pieces of a very long line share one."""
    offset: int
    """Byte offset of its start."""
    text: str
    level: LogLevel
    """What it says of itself, or what it looks like."""


class LogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines are wanted. Without a field, whatever it is."""

    level: LogLevel | None = None
    """Of this level or more serious."""
    text: str | None = None
    """Contains this, whether in capitals or not."""

    def taken(self, lines: Iterable[Line]) -> Iterator[tuple[Line, LogLevel | None]]:
        """Every line, with its level if it is wanted."""
        text = (self.text or "").casefold()
        for line in lines:
            if text and text not in line.text.casefold():
                yield line, None
                continue
            level = level_of(line)
            yield line, level if self.level is None or level.reaches(self.level) else None


class LogPage(msgspec.Struct, frozen=True):
    """Lines in order; without a filter, consecutive ones. With one there may be none in this page and some in the next."""

    lines: list[LogLine]
    next_offset: int
    """Ask with this offset to go on, also later when the log has grown. Everything before it has been looked at."""
    size: int
    """Length of the log in bytes."""
    complete: bool
    """Whether nothing more will be written and this page reaches the end."""


class MetricsPage(msgspec.Struct, frozen=True):
    """Consecutive lines of metrics.jsonl."""

    metrics: list[dict[str, Any]]
    cursor: str | None


def read_log(
    path: Path,
    *,
    offset: int,
    after_line: int | None,
    limit: int,
    ended: bool,
    wanted: LogFilter = LogFilter(),  # noqa: B008  # it is frozen
) -> LogPage:
    """Up to ``limit`` lines out of about 4 MiB, from ``offset`` on or after line number ``after_line``."""
    offset, number, size = _place(path, offset, after_line)
    reader, last_start = LogReader(path, offset), offset + _PAGE_BYTES
    lines: list[LogLine] = []
    seen = weight = 0
    while len(lines) < limit and offset < last_start and seen < _PAGE_LINES and (read := reader.read(at_end=ended)):
        for line, level in wanted.taken(read):
            if level is not None:
                # As it is answered: what is no text takes up to six times its bytes.
                weight += len(_encode(line.text))
                if weight > _PAGE_BYTES and lines:
                    return LogPage(lines, offset, size, complete=False)
                lines.append(LogLine(number + 1, line.start, line.text, level))
            number += line.whole
            offset = line.end
            if len(lines) == limit:
                break
        seen += len(read)
    return LogPage(lines, offset, size, complete=ended and offset >= size)


def _place(path: Path, offset: int, after_line: int | None) -> tuple[int, int, int]:
    """Where a page starts, how many lines lie before it, and the size of the log."""
    descriptor = open_log(path)
    if descriptor is None:
        return 0, 0, 0
    try:
        index = LineIndex(path, descriptor)
        if after_line is not None:
            return (*index.start_after(after_line), index.size)
        offset = min(offset, index.size)
        return offset, index.lines_before(offset), index.size
    finally:
        os.close(descriptor)


def latest_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log as text, at most ``count`` of them and about 16 KiB; one that is still being written, too."""
    try:
        start = max(0, log_size(path) - _LATEST_BYTES)
        lines = LogReader(path, start).read(at_end=True)
    except OSError:
        return []
    # The first one is most likely cut.
    return [line.text for line in lines if not start or line.start > start][-count:]


def read_metrics(path: Path, *, cursor: str | None, limit: int) -> MetricsPage:
    """Up to ``limit`` points of the metrics history, oldest first.

    A cursor that we did not give leads to the next whole line; beyond the end there is nothing.
    """
    size = log_size(path)
    start = min(int(cursor) if cursor is not None and cursor.isdecimal() else 0, size)
    reader, last_start = LogReader(path, start), start + _PAGE_BYTES
    metrics: list[dict[str, Any]] = []
    while len(metrics) < limit and start < last_start and (read := reader.read()):
        for line in read:
            if len(metrics) == limit:
                break
            start = line.end
            with contextlib.suppress(msgspec.DecodeError):
                metrics.append(_decode_metric(line.content))
    return MetricsPage(metrics, str(start) if size > start else None)
