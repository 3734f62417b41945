"""What the journal's tests are built from: a record with its summary, and disks that count, wait or fail on demand."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import zlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tunesmith.journal import LOCAL_DISK, Disk, Journal
from tunesmith.records import Record

T = TypeVar("T")

NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)


class Note(Record, kw_only=True):
    """A record with text, numbers and depth."""

    text: str = ""
    count: int = 0
    open: bool = False
    more: dict[str, Any] = msgspec.field(default_factory=dict)


class NoteSummary(msgspec.Struct, frozen=True):
    """Two of its fields."""

    id: str
    count: int = 0
    open: bool = False


def opened(path: Path, disk: Disk = LOCAL_DISK, **options: Any) -> Journal[Note, NoteSummary]:
    return Journal.open(path, Note, NoteSummary, clock=lambda: NOON, disk=disk, **options)


def with_journal(path: Path, work: Callable[[Journal[Note, NoteSummary]], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Open, do the work on an event loop, close."""

    async def run() -> T:
        journal = opened(path, **options)
        try:
            return await work(journal)
        finally:
            await journal.close()

    return asyncio.run(run())


def write_notes(path: Path, *notes: Note) -> None:
    async def work(journal: Journal[Note, NoteSummary]) -> None:
        for note in notes:
            await journal.append("written", note)

    with_journal(path, work)


def line(
    seq: int, record_id: str = "n", *, event: str = "written", data: str | None = None, at: str = "2026-11-20T12:00:00Z"
) -> bytes:
    """A journal line made independently of the code under test."""
    data = data or f'{{"id":"{record_id}","count":{seq}}}'
    head = f'{{"seq":{seq},"at":"{at}","event":"{event}","id":"{record_id}","data":{data}'.encode()
    return head + f',"crc":"{zlib.crc32(head):08x}"}}\n'.encode()


class CountingDisk:
    """The real disk; counts, and can be told to hold a sync until it is let go."""

    def __init__(self) -> None:
        self.writes = 0
        self.syncs = 0
        self.cuts = 0
        self._go = threading.Event()
        self._go.set()
        self._held = threading.Event()

    def hold(self) -> None:
        """From now on a sync waits."""
        self._held.clear()
        self._go.clear()

    def let_go(self) -> None:
        self._go.set()

    async def sync_waits(self) -> None:
        assert await asyncio.to_thread(self._held.wait, 60), "no sync came"

    def write(self, descriptor: int, content: memoryview) -> int:
        self.writes += 1
        return LOCAL_DISK.write(descriptor, content)

    def sync(self, descriptor: int) -> None:
        self._held.set()
        assert self._go.wait(60), "the test never let the sync go"
        self.syncs += 1
        LOCAL_DISK.sync(descriptor)

    def cut(self, descriptor: int, length: int) -> None:
        self.cuts += 1
        LOCAL_DISK.cut(descriptor, length)


class FailingDisk(CountingDisk):
    """Fails with the errno that is set; a failing write takes half of what it was given first, as a full disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.write_error: int | None = None
        self.sync_error: int | None = None
        self.cut_error: int | None = None
        self._took_half = False

    def write(self, descriptor: int, content: memoryview) -> int:
        if self.write_error is None:
            return super().write(descriptor, content)
        self._took_half = not self._took_half
        if self._took_half:
            return super().write(descriptor, content[: max(1, len(content) // 2)])
        raise OSError(self.write_error, os.strerror(self.write_error))

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        if self.sync_error is not None:
            raise OSError(self.sync_error, os.strerror(self.sync_error))

    def cut(self, descriptor: int, length: int) -> None:
        if self.cut_error is not None:
            raise OSError(self.cut_error, os.strerror(self.cut_error))
        super().cut(descriptor, length)


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
