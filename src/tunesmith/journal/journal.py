"""One journal: append records durably, read them back, tell listeners.

Appends that arrive together share one write and one fsync (group commit). What a record looks like to anybody else
changes only after the fsync. It must be used from one event loop at a time; only the writing happens in a thread, and
records may be read from any.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

import msgspec
import structlog

from tunesmith.errors import InvalidInput, OutOfSpace, StateFolderUnusable, TooLarge, TunesmithError, Unavailable
from tunesmith.files import sync_folder
from tunesmith.journal.disk import LOCAL_DISK, AppendFile, Disk
from tunesmith.journal.index import Index, damaged, undecodable
from tunesmith.journal.lines import (
    LONGEST_LINE,
    Entry,
    LineUnsound,
    crc_place,
    encode,
    encode_body,
    finish_line,
    read_line,
)
from tunesmith.journal.quarantine import end_of_last_line, quarantine_tail
from tunesmith.journal.upgrades import record_decoder
from tunesmith.journal.watermarks import Watermark
from tunesmith.records import Clock, Record, utc_now

R = TypeVar("R", bound=Record)
S = TypeVar("S")

Listener = Callable[[Entry, R, S | None], None]

_log = structlog.get_logger()


class _Pending(NamedTuple, Generic[R, S]):
    """An append that is not on disk yet."""

    at: datetime
    event: str
    record: R
    summary: S
    data: bytes
    body: bytes
    done: asyncio.Future[Entry]


class Journal(Generic[R, S]):
    """An append-only file of records of one type, with the latest record of every id within reach.

    The summary of every id stays in memory. Records are read from the file when asked for; those whose summary ``keep``
    picks, and the ``cached`` most recently used others, stay decoded.
    """

    def __init__(
        self,
        file: AppendFile,
        index: Index[S],
        record_type: type[R],
        summary_type: type[S],
        *,
        clock: Clock,
        keep: Callable[[S], bool],
        cached: int,
        torn: Path | None,
    ) -> None:
        self.path = file.path
        self.torn = torn
        """Where a torn last line was moved when the journal was opened."""
        self._file = file
        self._index = index
        self._decode_record = record_decoder(record_type)
        self._decode_summary = msgspec.json.Decoder(summary_type).decode
        self._clock = clock
        self._keep = keep
        self._kept: dict[str, R] = {}
        self._cached = cached
        self._cache: dict[str, R] = {}
        self._decoded = threading.Lock()
        """Held while it changes what is kept decoded."""
        self._listeners: list[Listener[R, S]] = []
        self._pending: list[_Pending[R, S]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._failed: Unavailable | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"journal-{file.path.stem}")

    @classmethod
    def open(
        cls,
        path: Path,
        record_type: type[R],
        summary_type: type[S],
        *,
        clock: Clock = utc_now,
        keep: Callable[[S], bool] = lambda _: False,
        cached: int = 1024,
        disk: Disk = LOCAL_DISK,
    ) -> Journal[R, S]:
        """Open or create the file and replay it. Blocks: call it before the server accepts work.

        ``summary_type`` names some of the record's fields, with the same types and defaults; unknown fields are skipped.
        A last line without its newline was never acknowledged: it is moved to ``<name>.torn-<time>``, see ``torn``.

        Raises:
            JournalDamaged: any other line does not check out; names file and line.
            StateFolderUnusable: the file cannot be opened or synced.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        index: Index[S] = Index()
        try:
            length = end_of_last_line(descriptor)
            index.replay(path, descriptor, length, summary_type)
            torn = _recover_file(path, descriptor, length, clock, disk)
        except OSError as error:
            os.close(descriptor)
            raise _unusable(path, error) from error
        except TunesmithError:
            os.close(descriptor)
            raise
        file = AppendFile(path, descriptor, length, disk)
        return cls(file, index, record_type, summary_type, clock=clock, keep=keep, cached=cached, torn=torn)

    async def append(self, event: str, record: R) -> Entry:
        """Write the record down and return once it is on disk; then everybody sees it.

        A caller that is cancelled stops waiting, but the record is written, or fails, all the same.

        Raises:
            OutOfSpace: the disk is full. Nothing changed; the next append may succeed.
            Unavailable: the journal stopped writing after an error, or is closed. Nothing changed that can be seen.
            InvalidInput: the record cannot be encoded, or could not be decoded again (text that is no Unicode, a number
                that is not finite in a field that needs one).
            TooLarge: its line would be longer than 16 MiB.
        """
        self._refuse_if_stopped()
        loop = asyncio.get_running_loop()
        pending = self._prepare(event, record, loop.create_future())
        self._pending.append(pending)
        if self._idle.is_set():
            self._idle.clear()
            # Not at once: whoever else is ready in this turn of the loop shares the write.
            loop.call_soon(self._write_pending, loop)
        return await pending.done

    def get(self, record_id: str) -> R | None:
        """The latest committed record of an id. From another thread than the event loop's it may just have been replaced."""
        with self._decoded:
            record = self._kept.get(record_id) or self._cache.pop(record_id, None)
            if record is not None:
                self._remember(record_id, self._index.summaries[record_id], record)
                return record
            line = self._latest_line_of(record_id)
        if line is None:
            return None
        record = self._load(line)
        with self._decoded:
            # While it was read, a later one may have been committed: that one stays.
            if self._latest_line_of(record_id) == line:
                self._remember(record_id, self._index.summaries[record_id], record)
        return record

    def _latest_line_of(self, record_id: str) -> int | None:
        return next(self._index.lines_of(record_id), None)

    def size_of(self, record_id: str) -> int:
        """Bytes of the line with the latest record of an id; 0 for an unknown one. Reads nothing."""
        line = self._latest_line_of(record_id)
        return self._index.span(line)[1] if line is not None else 0

    def summary(self, record_id: str) -> S | None:
        return self._index.summaries.get(record_id)

    @property
    def summaries(self) -> Mapping[str, S]:
        """Every id's summary, in the order the ids first appeared. A live view."""
        return MappingProxyType(self._index.summaries)

    def history(self, record_id: str) -> list[Entry]:
        """All committed entries of one id, oldest first; empty for an unknown one."""
        entries = [self._read(line) for line in self._index.lines_of(record_id)]
        entries.reverse()
        return entries

    def record_of(self, entry: Entry) -> R:
        """What an entry of its history holds."""
        return self._decode_record(entry.data)

    def changes_of(self, record_id: str) -> int:
        """How many entries of one id are committed; 0 for an unknown one. Reads nothing."""
        return sum(1 for _ in self._index.lines_of(record_id))

    def __contains__(self, record_id: object) -> bool:
        return record_id in self._index.summaries

    def __len__(self) -> int:
        return len(self._index.summaries)

    def on_commit(self, listener: Listener[R, S]) -> None:
        """Call ``listener(entry, record, previous_summary)`` on the event loop after each fsync, in seq order.

        It must be quick and must not raise; an exception is logged and hurts nobody else.
        """
        self._listeners.append(listener)

    @property
    def watermark(self) -> Watermark:
        """How far it has come with what is on disk. Not to be asked once it is closed."""
        crc = self._file.read(*crc_place(self._index.length))
        return Watermark(seq=self._index.seq, bytes=self._index.length, crc=crc.decode() if self._index.length else "")

    @property
    def failed(self) -> TunesmithError | None:
        """Why the journal stopped writing; None while it is well."""
        return self._failed

    async def close(self) -> None:
        """Refuse new appends, wait for those under way, then let go of the file."""
        self._closed = True
        await self._idle.wait()
        self._thread.shutdown(wait=False)
        self._file.close()

    def _refuse_if_stopped(self) -> None:
        if self._failed is not None:
            raise _again(self._failed)
        if self._closed:
            raise Unavailable("the journal is closed", where=str(self.path), mend="try again once the server is up")

    def _prepare(self, event: str, record: R, done: asyncio.Future[Entry]) -> _Pending[R, S]:
        """Encode, and read it back as the next start will: what could not be replayed is refused now."""
        if not record.id:
            raise InvalidInput("a record needs an id", where=str(self.path), mend="give it one from `new_id`")
        at = self._clock()
        try:
            data = encode(record)
            body = encode_body(at, event, record.id, data)
            copy = self._decode_record(data)
            summary = self._decode_summary(data)
        except (msgspec.MsgspecError, UnicodeError, OverflowError, RecursionError) as error:
            raise InvalidInput(
                f"the record cannot be written down: {error}",
                where=record.id,
                mend="text must be valid Unicode, numbers must be finite and nesting shallow",
            ) from error
        if len(body) > LONGEST_LINE - 1024:
            raise TooLarge(
                f"the record takes {len(body)} bytes, more than a journal line may have ({LONGEST_LINE})",
                where=record.id,
                mend="keep large content in a file and name the file in the record",
            )
        return _Pending(at, event, copy, summary, data, body, done)

    def _write_pending(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._pending = self._pending, []
        lines = [finish_line(seq, pending.body) for seq, pending in enumerate(batch, self._index.seq + 1)]
        self._thread.submit(self._commit, loop, batch, lines)

    def _commit(self, loop: asyncio.AbstractEventLoop, batch: list[_Pending[R, S]], lines: list[bytes]) -> None:
        """Runs in the writer thread."""
        error: Exception | None = None
        try:
            self._file.commit(b"".join(lines))
        except Exception as raised:  # noqa: BLE001  # whatever it is, the callers must learn of it, or they wait for ever
            error = raised
        loop.call_soon_threadsafe(self._resolve, loop, batch, lines, error)

    def _resolve(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Pending[R, S]],
        lines: list[bytes],
        error: Exception | None,
    ) -> None:
        if error is None:
            self._publish(batch, lines)
        elif isinstance(error, OutOfSpace):
            _fail(batch, error)
        else:
            self._stop(batch, error)
        if self._pending:
            self._write_pending(loop)
        else:
            self._idle.set()

    def _publish(self, batch: list[_Pending[R, S]], lines: list[bytes]) -> None:
        for pending, line in zip(batch, lines, strict=True):
            record = pending.record
            previous = self._index.summaries.get(record.id)
            with self._decoded:
                self._index.add(record.id, pending.summary, len(line))
                self._forget(record.id)
                self._remember(record.id, pending.summary, record)
            entry = Entry(self._index.seq, pending.at, pending.event, record.id, msgspec.Raw(pending.data))
            self._tell(entry, record, previous)
            if not pending.done.done():
                pending.done.set_result(entry)

    def _tell(self, entry: Entry, record: R, previous: S | None) -> None:
        for listener in self._listeners:
            try:
                listener(entry, record, previous)
            except Exception:  # noqa: BLE001  # one listener's mistake must not keep the others from hearing
                _log.exception("journal.listener_failed", journal=self.path.name, seq=entry.seq, id=entry.id)

    def _stop(self, batch: list[_Pending[R, S]], error: Exception) -> None:
        """Never write again. Whatever waits fails with the batch."""
        self._failed = (
            error
            if isinstance(error, Unavailable)
            else Unavailable(f"the journal stopped: {error!r}", where=str(self.path), mend="restart the server")
        )
        _log.error("journal.stopped", journal=self.path.name, reason=str(self._failed))
        _fail(batch, self._failed)
        _fail(self._pending, self._failed)
        self._pending = []

    def _load(self, line: int) -> R:
        try:
            return self._decode_record(self._read(line).data)
        except msgspec.DecodeError as error:
            raise undecodable(self.path, line, str(error)) from error

    def _read(self, line: int) -> Entry:
        offset, size = self._index.span(line)
        try:
            return read_line(self._file.read(offset, size))
        except LineUnsound as error:
            raise damaged(self.path, line, f"{error}; it did when the server started") from error

    def _remember(self, record_id: str, summary: S, record: R) -> None:
        if self._keep(summary):
            self._kept[record_id] = record
            return
        self._cache[record_id] = record
        if len(self._cache) > self._cached:
            # A dict keeps the order of insertion, and `get` inserts anew: the first is the least recently used.
            del self._cache[next(iter(self._cache))]

    def _forget(self, record_id: str) -> None:
        self._kept.pop(record_id, None)
        self._cache.pop(record_id, None)


def _recover_file(path: Path, descriptor: int, length: int, clock: Clock, disk: Disk) -> Path | None:
    """Move a torn tail out of the way, and make durable what was replayed: a server that was killed between its write
    and its fsync leaves lines that so far are in memory only.
    """
    size = os.fstat(descriptor).st_size
    torn = None
    if size > length:
        torn = quarantine_tail(path, descriptor, length, clock())
        disk.cut(descriptor, length)
    disk.sync(descriptor)
    if not length:
        sync_folder(path.parent)
    return torn


def _unusable(path: Path, error: OSError) -> StateFolderUnusable:
    return StateFolderUnusable(
        f"the journal cannot be opened: {error.strerror}",
        where=str(path),
        mend="the state folder must exist, be writable for this user, and have room",
    )


def _again(error: TunesmithError) -> TunesmithError:
    """An exception of its own for each caller: raising one object twice mixes up their tracebacks."""
    return type(error)(error.message, where=error.where, mend=error.mend)


def _fail(batch: list[_Pending[R, S]], error: TunesmithError) -> None:
    for pending in batch:
        if not pending.done.done():
            pending.done.set_exception(_again(error))
