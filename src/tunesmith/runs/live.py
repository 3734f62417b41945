"""One run while its log grows: read once, folded once, and shared with everybody who follows.

Followers get their bytes from ``batch`` when they are up to date and read the file themselves when they are behind, so a
follower that does not read costs nothing but its socket. See ``follow`` for what they are sent.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import anyio.to_thread
import msgspec
import structlog

from tunesmith.errors import OutOfSpace, Unavailable
from tunesmith.files import NO_ROOM, SHORTAGE, raise_shortage
from tunesmith.journal import Entry
from tunesmith.paths import RunPaths, StatePaths
from tunesmith.records import Progress, Run
from tunesmith.runner import LONGEST_LINE, LogReader, open_log
from tunesmith.runner.logs.line_index import BLOCK, LineIndex
from tunesmith.runs.derived import append_metrics, read_notes, save_progress
from tunesmith.runs.fold import Event, Fold, read_event
from tunesmith.runs.reported import Reported

_RECENT_BYTES = 1024 * 1024
_POLL_FOLLOWED = 0.01
_POLL_ALONE = 0.1
_SAVE_EVERY_SECONDS = 1.0
_SHORTAGE_RETRY_SECONDS = 0.5
_MOST_UNWRITTEN = 8 * 1024 * 1024
"""On a full disk so much of the metrics history waits in memory; what comes then is in the log only."""
_encoder = msgspec.json.Encoder()
_log = structlog.get_logger()


class Batch(msgspec.Struct, frozen=True):
    """Consecutive log events that were read together."""

    start: int
    end: int
    events: tuple[Event, ...]

    @property
    def size(self) -> int:
        """Bytes of log it covers, as a measure of its memory."""
        return self.end - self.start


class Hear(Protocol):
    """Is told of every batch of events before it is noted as read: after a crash it hears some of them again.

    What was measured in it is in metrics.jsonl by then, as far as the disk takes it.
    """

    async def __call__(self, run_id: str, events: tuple[Event, ...], before: Progress) -> None: ...


async def hear_nothing(run_id: str, events: tuple[Event, ...], before: Progress) -> None:
    """For live runs to which nobody listens."""


class LiveRuns:
    """The live runs by id: made when first asked for, forgotten when the run is over."""

    def __init__(self, paths: StatePaths, hear: Hear | None = None) -> None:
        self._paths = paths
        self._hear = hear or hear_nothing
        self._runs: dict[str, LiveRun] = {}

    def get(self, run: Run) -> LiveRun | None:
        """None for a run that is over: everything about it is on record."""
        if run.state.final:
            return None
        if run.id not in self._runs:
            run_id = run.id
            self._runs[run_id] = LiveRun(
                self._paths.run(run_id), lambda events, before: self._hear(run_id, events, before)
            )
        return self._runs[run.id]

    def progress(self, run: Run) -> Progress:
        """The latest known: of the live run, or as recorded."""
        live = self._runs.get(run.id)
        return live.progress if live is not None and live.offset else run.progress

    def close(self) -> None:
        """Let every follower go: the server is about to exit."""
        for live in self._runs.values():
            live.closing = True
            live.wake()

    def committed(self, _entry: Entry, run: Run, _previous: object) -> None:
        """Listen to the journal with this."""
        live = self._runs.pop(run.id, None) if run.state.final else self._runs.get(run.id)
        if live is not None:
            live.changed()


class LiveRun:
    """Tails run.log, keeps metrics.jsonl and progress.json, and wakes followers."""

    def __init__(self, paths: RunPaths, hear: Callable[[tuple[Event, ...], Progress], Awaitable[None]]) -> None:
        self._paths = paths
        self._hear = hear
        self._reader = LogReader(paths.log)
        self._reported = Reported(paths.folder)  # until it is restored
        self._fold = Fold(Progress(), self._reported)
        self._metrics_upto = 0
        self._recent: OrderedDict[int, Batch] = OrderedDict()
        self._recent_size = 0
        self._grown = asyncio.Event()
        self._ended = asyncio.Event()
        self._saved_at = 0.0
        self._counted = 0
        """Blocks of the log whose lines were counted."""
        self._unreadable = False
        self._unsaved = False
        self._refused = False
        """Whether metrics.jsonl is something that takes no lines."""
        self._short = False
        self._unwritten = b""
        """Lines for metrics.jsonl that are not in the file yet."""
        self.followers = 0
        self.closing = False
        self.changes = 0
        """Counts the changes of state since this object exists, so that followers notice them."""

    @property
    def progress(self) -> Progress:
        return self._fold.progress

    @property
    def offset(self) -> int:
        """Every line before this byte has been handed out."""
        return self._reader.offset

    def batch(self, start: int) -> Batch | None:
        """The batch that begins at byte ``start``, while it is recent enough to be remembered."""
        return self._recent.get(start)

    async def grown(self) -> None:
        """Wait for the next batch, or for the next change of state."""
        await self._grown.wait()

    def changed(self) -> None:
        """The run's record was changed."""
        self.changes += 1
        self.wake()

    def wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    async def restore(self, *, new_attempt: bool) -> None:
        """Go on where an earlier server or attempt was; without its notes, read the log from its start."""
        progress, self._reported, self._metrics_upto = await anyio.to_thread.run_sync(read_notes, self._paths)
        if new_attempt:
            progress = msgspec.structs.replace(progress, error=None, phase=None, part=None, eta_seconds=None)
        self._ended = asyncio.Event()
        self._unwritten = b""  # notes never go beyond it: it is read again
        self._fold = Fold(progress, self._reported)
        self._reader.offset = progress.log_offset

    async def follow(self) -> None:
        """Read until ``finish`` is called, and then to where the log ends now."""
        while not self._ended.is_set():
            if not await self._advance(at_end=False):
                await self._pause()
        await self._read_rest()
        await anyio.to_thread.run_sync(self._save)
        while self._unsaved and self._unwritten and self._short:
            await anyio.sleep(_SHORTAGE_RETRY_SECONDS)
            await anyio.to_thread.run_sync(self._save)

    async def _read_rest(self) -> None:
        """What the process left. Somebody else may go on writing to its log for ever, or cut it: no more than that is read."""
        size = _size(self._paths.log)
        rest = size - self.offset if size >= self.offset else size
        while (taken := await self._advance(at_end=True)) and taken < rest:
            rest -= taken

    def finish(self) -> None:
        """The process is gone: what somebody else writes to its log from now on is not the run's."""
        self._ended.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_POLL_FOLLOWED if self.followers else _POLL_ALONE):
                await self._ended.wait()
        except TimeoutError:
            return

    async def _advance(self, *, at_end: bool) -> int:
        """Take in the next lines; answers how many bytes of the log they are, 0 for none."""
        before = self._reader.offset
        if not at_end and _size(self._paths.log) == before:
            return 0
        batch = await self._next(at_end=at_end)
        if (batch.start if batch is not None else self._reader.offset) < before:
            # The log was cut, to be written anew: its offsets begin again.
            self._metrics_upto = self._counted = 0
            await anyio.to_thread.run_sync(LineIndex.forget, self._paths.log)
        if batch is None:
            return 0
        progress = self.progress
        self._take(batch)
        measured = bool(self._unwritten)
        if measured:
            await anyio.to_thread.run_sync(self._save_measured)
        await self._tell(batch.events, progress)
        if measured or time.monotonic() - self._saved_at > _SAVE_EVERY_SECONDS:
            await anyio.to_thread.run_sync(self._save)
        return batch.size

    async def _next(self, *, at_end: bool) -> Batch | None:
        while True:
            try:
                return await anyio.to_thread.run_sync(self._read, at_end)
            except OSError as error:  # a shortage: the log is there, and will be read when it has passed
                _log.warning("log_waits_to_be_read", log=str(self._paths.log), reason=str(error))
            await anyio.sleep(_SHORTAGE_RETRY_SECONDS)

    def _read(self, at_end: bool) -> Batch | None:  # noqa: FBT001  # called through a thread, which takes no keywords
        try:
            lines = self._reader.read(at_end=at_end)
        except OSError as error:
            raise_shortage(error)
            # A program may put anything in the place of its log. That costs it the log, not the record of its end.
            if not self._unreadable:
                _log.warning("log_not_readable", log=str(self._paths.log), reason=str(error))
            self._unreadable = True
            return None
        return Batch(lines[0].start, lines[-1].end, tuple(map(read_event, lines))) if lines else None

    async def _tell(self, events: tuple[Event, ...], before: Progress) -> None:
        try:
            await self._hear(events, before)
        except (OutOfSpace, Unavailable, OSError):
            raise  # they have to be heard again
        except Exception:  # noqa: BLE001  # whoever stumbles over a line must not keep the run from its end
            _log.exception("events_not_heard", folder=str(self._paths.folder), log_offset=before.log_offset)

    def _take(self, batch: Batch) -> None:
        now = time.time()
        written = [self._unwritten]
        for event in batch.events:
            self._fold.take(event, now)
            if event.kind == "metrics" and event.end > self._metrics_upto:
                metric = _encoder.encode({"at": round(now, 3), **event.fields, "log_offset": event.end})
                # What is too long to be read back as one line stays in the log only.
                written += [metric, b"\n"] if len(metric) < LONGEST_LINE else []
        if len(self._unwritten) < _MOST_UNWRITTEN:
            self._unwritten = b"".join(written)
        replaced = self._recent.pop(batch.start, None)
        self._recent_size -= replaced.size if replaced is not None else 0
        self._recent[batch.start] = batch
        self._recent_size += batch.size
        while self._recent_size > _RECENT_BYTES and len(self._recent) > 1:
            self._recent_size -= self._recent.popitem(last=False)[1].size
        self.wake()

    def _save(self) -> None:
        """Write down what is derived from the log. A full disk only delays it: the log is the truth."""
        try:
            self._count_lines()
            self._save_metrics()
            save_progress(self._paths, self.progress, self._reported)
            self._unsaved = self._refused
        except OSError as error:
            self._not_written(error)
        self._saved_at = time.monotonic()

    def _not_written(self, error: OSError) -> None:
        self._short = error.errno in SHORTAGE
        if not self._unsaved:
            _log.warning("derived_files_not_written", folder=str(self._paths.folder), reason=str(error))
        self._unsaved = True

    def _count_lines(self) -> None:
        """Keep the counts up, so that nobody who asks for the end of a long log has to wait for them."""
        blocks = self.offset // BLOCK
        descriptor = open_log(self._paths.log) if blocks > self._counted else None
        if descriptor is None:
            return
        try:
            LineIndex(self._paths.log, descriptor).count(blocks)
        finally:
            os.close(descriptor)
        self._counted = blocks

    def _save_measured(self) -> None:
        """What was measured alone, before anybody is told of it. It is tried again with the others."""
        try:
            self._save_metrics()
        except OSError as error:
            self._not_written(error)

    def _save_metrics(self) -> None:
        lines = self._unwritten
        if not lines:
            return
        try:
            append_metrics(self._paths.metrics, lines)
        except OSError as error:
            if error.errno in NO_ROOM | SHORTAGE:
                raise  # there may be room later
            # The run put something else in the file's place: its history is in the log only.
            self._unwritten, self._refused = b"", True
            raise
        self._refused = False
        self._unwritten = self._unwritten[len(lines) :]


def _size(path: Path) -> int:
    # A stat of an open log is answered from memory in a microsecond; a thread would cost a hundred.
    try:
        status = os.lstat(path)  # twice as fast as Path.lstat, a hundred times a second
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
