"""How far each journal of a state folder had come: ``journals.json``, the record of what there should be.

A journal that is missing, or is an older copy of itself, checks out line by line; only what is noted here tells. It is
written a moment after the journals and never before them: it may lag behind what is on disk, and never leads it. It does
not say what is in a journal, and nothing is read from it but that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import structlog

from tunesmith.errors import Fault, JournalDamaged
from tunesmith.files import raise_shortage, write_atomically
from tunesmith.journal.lines import crc_place, last_seq_of
from tunesmith.journal.quarantine import end_of_last_line
from tunesmith.journal.verify import scan, verify
from tunesmith.records import Clock

_log = structlog.get_logger()
# Long enough that a busy server spends nothing on it, short enough that hardly any record is acknowledged and not noted.
_PAUSE_SECONDS = 2.0
_MEND = "restore it from a backup of now, or start without what is lost: `tunesmith state accept {}`"


class Watermark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last line of a journal that was on disk."""

    seq: int = 0
    bytes: int = 0
    """Where that line ends."""
    crc: str = ""
    """Its checksum, as the line itself carries it; empty for a journal without lines."""


class _Noted(msgspec.Struct, frozen=True, kw_only=True):
    """``journals.json``."""

    at: datetime
    journals: dict[str, Watermark]
    """By the journal's file name."""


_decode_noted = msgspec.json.Decoder(_Noted).decode


class OpenJournal(Protocol):
    """What of an open journal is needed here."""

    @property
    def path(self) -> Path: ...

    @property
    def watermark(self) -> Watermark: ...

    def on_commit(self, listener: Any, /) -> None: ...


class Watermarks:
    """``journals.json`` of one state folder. Only whoever holds the folder's lock may change it."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self.file = file
        self._clock = clock

    def read(self) -> Mapping[str, Watermark] | None:
        """What is noted, by file name; None when nothing is: a new folder, or one of a version that noted nothing.

        Raises:
            JournalDamaged: it cannot be read.
            OSError: there are no descriptors, or no memory, to read it with just now.
        """
        try:
            return _decode_noted(self.file.read_bytes()).journals
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            if isinstance(error, OSError):
                raise_shortage(error)
            raise JournalDamaged(
                f"it cannot be read: {error}", where=str(self.file), mend=_MEND.format(self.file.name)
            ) from error

    def faults(self) -> list[Fault]:
        """Which journals are missing, or hold less than they did. One that cannot be read, or has
        a damaged line, is not judged: opening it says what is the matter.

        Raises:
            JournalDamaged: ``journals.json`` itself cannot be read.
        """
        folder = self.file.parent
        found = ((folder / name, _lacks(folder / name, mark)) for name, mark in (self.read() or {}).items())
        return [
            Fault(message=lack, where=str(path), mend=_MEND.format(path.name))
            for path, lack in found
            if lack is not None
        ]

    def note(self, marks: Mapping[str, Watermark], *, forget: Iterable[str] = ()) -> None:
        """Note these and keep the others. Blocks on the disk.

        Raises:
            OSError: it could not be written; what was noted before still is.
            JournalDamaged: it cannot be read.
        """
        before = self.read()
        after = {name: mark for name, mark in (before or {}).items() if name not in set(forget)} | dict(marks)
        if after != before:
            content = msgspec.json.encode(_Noted(at=self._clock(), journals=after))
            write_atomically(self.file, msgspec.json.format(content, indent=2) + b"\n", step="watermarks")
            owner = self.file.parent.stat()
            if os.geteuid() == 0 and owner.st_uid != 0:
                # An administrator may note what the service must be able to read afterwards.
                os.chown(self.file, owner.st_uid, owner.st_gid)


class WatermarkKeeper:
    """Notes how far journals have come, for as long as ``run`` runs."""

    def __init__(self, watermarks: Watermarks, journals: Iterable[OpenJournal]) -> None:
        self._watermarks = watermarks
        self._journals = tuple(journals)
        self._changed = asyncio.Event()
        self._hindered: str | None = None
        """Why nothing could be noted the last time."""
        for journal in self._journals:
            journal.on_commit(lambda *_: self._changed.set())

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Note them now, a moment after each change, and at the end. What cannot be written now is tried again."""
        await self._note()
        task_status.started()
        try:
            while True:
                await self._changed.wait()
                await anyio.sleep(_PAUSE_SECONDS)
                self._changed.clear()
                await self._note()
        finally:
            with anyio.CancelScope(shield=True):
                await self._note()

    async def _note(self) -> None:
        try:
            marks = {journal.path.name: journal.watermark for journal in self._journals}
            await anyio.to_thread.run_sync(self._watermarks.note, marks)
            self._hindered = None
        except (OSError, JournalDamaged) as error:
            if str(error) != self._hindered:  # once for each reason, however often it is tried
                _log.warning("watermarks_not_noted", reason=str(error))
            self._hindered = str(error)
            self._changed.set()


def watermark_of(path: Path) -> Watermark:
    """How far a journal has come that nobody has open. Reads all of it.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        seq = max((last_seq_of(scanned.entry) for scanned in scan(file) if scanned.entry is not None), default=0)
        end = end_of_last_line(file.fileno())
        return Watermark(seq=seq, bytes=end, crc=crc_before(file.fileno(), end))


def crc_before(descriptor: int, end: int) -> str:
    """The checksum that the line carries which ends there."""
    offset, size = crc_place(end)
    return os.pread(descriptor, size, offset).decode("ascii", "replace") if end else ""


def _lacks(path: Path, mark: Watermark) -> str | None:
    """What the journal lacks of what was noted, in words."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size >= mark.bytes and crc_before(file.fileno(), mark.bytes) == mark.crc:
                return None
    except FileNotFoundError:
        return f"the journal is missing; it held {mark.seq} lines" if mark.seq else "the journal is missing"
    except OSError:
        return None
    if not verify(path).sound:
        return None
    if size < mark.bytes:
        now = watermark_of(path).seq
        return f"the journal is emptied or older than it was: it held {mark.seq} lines and now holds {now}"
    return f"the journal is not the one that was written to last: line {mark.seq} is another one"
