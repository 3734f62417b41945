"""Quarantine: damaged bytes are kept under a name that says what and when; nothing that was in a journal is ever thrown away."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from tunesmith.files import write_atomically

_BLOCK = 64 * 1024


def quarantine_name(path: Path, what: str, at: datetime) -> Path:
    """``runs.jsonl.torn-20261120T180125Z``, or the same with a number when there is one of that second already."""
    plain = path.with_name(f"{path.name}.{what}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    name, count = plain, 1
    while name.exists():
        count += 1
        name = plain.with_name(f"{plain.name}-{count}")
    return name


def end_of_last_line(descriptor: int) -> int:
    """Where the last newline ends; 0 when there is none. Everything behind it is a torn tail."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _BLOCK)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def quarantine_tail(path: Path, descriptor: int, length: int, at: datetime) -> Path:
    """Keep what lies behind ``length`` in a file of its own; the caller cuts it afterwards.

    Raises:
        OSError: it could not be kept; the journal is unchanged.
    """
    kept = quarantine_name(path, "torn", at)
    write_atomically(kept, os.pread(descriptor, os.fstat(descriptor).st_size - length, length))
    return kept
