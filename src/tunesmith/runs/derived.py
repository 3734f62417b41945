"""What is derived from a run's log and kept beside it: metrics.jsonl, the history, and progress.json: where the fold is,
and what the run reported.

Both lie in a folder in which the run's own process may put anything in their place. No link is followed, nothing is waited
for, and what cannot be kept costs the derived file only: the log is the truth.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from tunesmith.contract.events import read_line
from tunesmith.files import raise_shortage, read_regular
from tunesmith.paths import RunPaths
from tunesmith.records import Progress
from tunesmith.runner import LONGEST_LINE, open_log
from tunesmith.runs.fields import MOST_NAMES
from tunesmith.runs.reported import Reported

_LARGEST_PROGRESS = 4 * 1024 * 1024
_REST_BYTES = 4 * 1024 * 1024
"""So much of a log's end is searched for what a run reported and nobody has folded."""
_TELLING = re.compile(rb'"tunesmith"\s*:\s*"(?:artifact|checkpoint|result)"')
_encode = msgspec.json.Encoder().encode


class _Noted(Progress, frozen=True, kw_only=True):
    """What progress.json holds."""

    reported: dict[str, str] | None = None
    """See ``Reported``; None in one of a version that did not fold it."""


class Notes(NamedTuple):
    """Where the fold of a run is."""

    progress: Progress
    reported: Reported
    metrics_upto: int
    """Up to which byte of the log metrics.jsonl is complete."""


class _WrittenMetric(msgspec.Struct):
    log_offset: int


_decode_noted, _decode_written = msgspec.json.Decoder(_Noted).decode, msgspec.json.Decoder(_WrittenMetric).decode


def read_notes(paths: RunPaths) -> Notes:
    """Where the fold is, to resume from there. Raises OSError when descriptors or memory are short."""
    upto, intact = _mend_metrics(paths.metrics)
    # Where a metric may be missing the log is read again from its start; what is in the file already is passed over.
    noted = _read_noted(paths) if intact else _Noted()
    reported = _reported(paths, noted, noted.log_offset)
    fields = {name: getattr(noted, name) for name in Progress.__struct_fields__}
    return Notes(Progress(**fields), reported, upto)


def read_reported(paths: RunPaths) -> dict[str, str]:
    """What the run reported until now: what is folded, and what of the log nobody has folded yet, if anything."""
    return _reported(paths, _read_noted(paths), None).kinds


def _read_noted(paths: RunPaths) -> _Noted:
    try:
        noted = _decode_noted(read_regular(paths.progress, _LARGEST_PROGRESS))
    except OSError as error:
        raise_shortage(error)
        return _Noted()
    except msgspec.DecodeError:
        return _Noted()
    # Else not written by us, or by a version that set no limit.
    return noted if noted.log_offset >= 0 and len(noted.metrics) <= MOST_NAMES else _Noted()


def _reported(paths: RunPaths, noted: _Noted, upto: int | None) -> Reported:
    """With what lies between the notes and a byte of the log, or its end. A version before folded nothing of it."""
    reported = Reported(paths.folder.resolve(), noted.reported or {})
    for line in _telling_lines(_rest_of(paths.log, noted.log_offset if noted.reported is not None else 0, upto)):
        event = read_line(line)
        if event is not None:
            reported.take(*event)
    return reported


def _rest_of(log: Path, start: int, end: int | None) -> bytes:
    """A log from one byte to another, its last part if it is long; none of what is no regular file."""
    if end is not None and start >= end:
        return b""
    try:
        descriptor = open_log(log)
    except OSError as error:
        raise_shortage(error)
        return b""
    if descriptor is None:
        return b""
    try:
        size = os.fstat(descriptor).st_size
        end = size if end is None else min(end, size)
        start = max(start, end - _REST_BYTES)
        return os.pread(descriptor, max(0, end - start), start)
    finally:
        os.close(descriptor)


def _telling_lines(content: bytes) -> Iterator[bytes]:
    # Finding the few that matter is much faster than looking at every line.
    for telling in _TELLING.finditer(content):
        start = content.rfind(b"\n", 0, telling.start()) + 1
        end = content.find(b"\n", telling.end())
        yield content[start : end if end >= 0 else len(content)]


def save_progress(paths: RunPaths, progress: Progress, reported: Reported) -> None:
    """Write progress.json. Raises OSError."""
    beside = paths.progress.with_suffix(".tmp")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_encode(_Noted(**msgspec.structs.asdict(progress), reported=reported.kinds)) + b"\n")
    beside.replace(paths.progress)


def append_metrics(path: Path, lines: bytes) -> None:
    """Append whole lines or nothing.

    Raises:
        OSError: with ENOSPC when there was no room for all of them.
    """
    descriptor = _open_metrics(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, lines)
        except OSError:
            written = 0
        if written < len(lines):
            os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)


def _mend_metrics(path: Path) -> tuple[int, bool]:
    """Cut a half-written or garbled end away; answers the log offset of the last whole line, and whether all was well."""
    try:
        descriptor = _open_metrics(path, os.O_RDWR)
    except OSError as error:
        raise_shortage(error)
        return 0, True  # there is none yet, or none can be kept
    with os.fdopen(descriptor, "r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 2 * LONGEST_LINE)
            file.seek(start)
            content = file.read(end - start)
            line_end = content.rfind(b"\n") + 1
            line_start = content.rfind(b"\n", 0, max(0, line_end - 1)) + 1
            offset = _log_offset(content[line_start:line_end])
            if offset is not None:
                file.truncate(start + line_end)
                return offset, start + line_end == size
            end = start + line_start
        file.truncate(0)
        return 0, size == 0


def _open_metrics(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def _log_offset(line: bytes) -> int | None:
    try:
        return _decode_written(line).log_offset
    except msgspec.DecodeError:
        return None
