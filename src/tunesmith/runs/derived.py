"""What is derived from a run's log and kept beside it: metrics.jsonl, the history, and progress.json, where the fold is.

Both lie in a folder in which the run's own process may put anything in their place. No link is followed, nothing is waited
for, and what cannot be kept costs the derived file only: the log is the truth.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec

from tunesmith.files import raise_shortage, read_regular
from tunesmith.paths import RunPaths
from tunesmith.records import Progress
from tunesmith.runner import LONGEST_LINE
from tunesmith.runs.fields import MOST_NAMES

_LARGEST_PROGRESS = 4 * 1024 * 1024
_encode = msgspec.json.Encoder().encode


class _WrittenMetric(msgspec.Struct):
    log_offset: int


def read_notes(paths: RunPaths) -> tuple[Progress, int]:
    """The folded progress, and up to which byte of the log metrics.jsonl is complete.

    Raises OSError when descriptors or memory are short.
    """
    upto, intact = _mend_metrics(paths.metrics)
    try:
        progress = msgspec.json.decode(read_regular(paths.progress, _LARGEST_PROGRESS), type=Progress)
    except OSError as error:
        raise_shortage(error)
        progress = Progress()
    except msgspec.DecodeError:
        progress = Progress()
    if progress.log_offset < 0 or len(progress.metrics) > MOST_NAMES:
        progress = Progress()  # not written by us, or by a version that set no limit
    # Where a metric may be missing the log is read again from its start; what is in the file already is passed over.
    return (progress if intact else Progress()), upto


def save_progress(paths: RunPaths, progress: Progress) -> None:
    """Write progress.json. Raises OSError."""
    beside = paths.progress.with_suffix(".tmp")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_encode(progress) + b"\n")
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
        return msgspec.json.decode(line, type=_WrittenMetric).log_offset
    except msgspec.DecodeError:
        return None
