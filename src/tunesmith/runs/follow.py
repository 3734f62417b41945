"""What a follower of a run is sent: its state changes, log lines and metrics as server-sent events, from any point on.

The id of an event is ``<byte offset in run.log>.<number of state changes>``: where to go on after it. Both the log and
the journal are on disk, so a follower that comes back with ``Last-Event-ID`` misses nothing and gets nothing twice, even
when the server was replaced in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from tunesmith.errors import InvalidInput
from tunesmith.journal import Entry
from tunesmith.paths import RunPaths, StatePaths
from tunesmith.records import Run
from tunesmith.runner import LogReader
from tunesmith.runs.book import RunBook
from tunesmith.runs.fold import Event, read_event
from tunesmith.runs.live import LiveRun, LiveRuns

_KEEP_ALIVE_SECONDS = 15.0
_encoder = msgspec.json.Encoder()


class Position(msgspec.Struct, frozen=True):
    """Where a follower is."""

    offset: int = 0
    changes: int = 0

    @classmethod
    def parse(cls, text: str | None) -> Position:
        """Read a ``Last-Event-ID``.

        Raises:
            InvalidInput: it is not one that we sent.
        """
        if not text:
            return cls()
        offset, dot, changes = text.partition(".")
        if not (dot and offset.isdecimal() and changes.isdecimal()):
            raise InvalidInput(f"{text[:80]!r} is not an event id of a run", where="Last-Event-ID", mend="leave it out")
        return cls(int(offset), int(changes))


class Follower:
    """One reader of one run's events."""

    def __init__(self, book: RunBook, run_id: str, paths: RunPaths, live: LiveRun | None, position: Position) -> None:
        self._book = book
        self._run_id = run_id
        self._paths = paths
        self._live = live
        self._offset = position.offset
        self._changes = position.changes
        self._history = book.history(run_id)
        self._known_changes = live.changes if live is not None else 0

    def at_end(self) -> bool:
        """Whether the run is over and this follower has had everything."""
        run = self._book.get(self._run_id)
        told = self._changes >= self._book.changes_of(self._run_id)
        return run.state.final and told and self._offset >= run.log_bytes

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events until the run is over; a comment now and then when nothing happens."""
        if self._live is not None:
            self._live.followers += 1
        try:
            while True:
                chunk = await self._next()
                if chunk:
                    yield chunk
                elif self.at_end() or (self._live is not None and self._live.closing):
                    return
                else:
                    with anyio.move_on_after(_KEEP_ALIVE_SECONDS) as idle:
                        await self._wait()
                    if idle.cancelled_caught:
                        yield b": keep-alive\n\n"
        finally:
            if self._live is not None:
                self._live.followers -= 1

    async def _wait(self) -> None:
        # Without a live run it was over before we began, and then there is nothing to wait for.
        if self._live is not None and self._live.offset <= self._offset and not self._state_due():
            await self._live.grown()

    def _state_due(self) -> bool:
        if self._live is not None and self._live.changes != self._known_changes:
            self._known_changes = self._live.changes
            self._history = self._book.history(self._run_id)
        return self._changes < len(self._history) and self._history[self._changes][1].log_bytes <= self._offset

    async def _next(self) -> bytes:
        """The events that follow the position: a change of state, or else a batch of log."""
        if self._state_due():
            entry, run = self._history[self._changes]
            self._changes += 1
            return _frame("state", _state_fields(entry, run), f"{self._offset}.{self._changes}")
        batch = self._live.batch(self._offset) if self._live is not None else None
        events = batch.events if batch is not None else await anyio.to_thread.run_sync(self._read)
        if not events:
            return b""
        self._offset = events[-1].end
        return b"".join(_frame(event.kind, event.fields, f"{event.end}.{self._changes}") for event in events)

    def _read(self) -> tuple[Event, ...]:
        upto = self._live.offset if self._live is not None else self._book.get(self._run_id).log_bytes
        if self._offset >= upto:
            return ()
        # What lies before ``upto`` has been handed out as lines, so a last one without a newline is complete, too.
        lines = LogReader(self._paths.log, self._offset).read(at_end=True)
        events = tuple(read_event(line) for line in lines if self._offset <= line.start and line.end <= upto)
        if not events:
            self._offset = upto  # somebody deleted or cut the log: there is nothing to wait for
        return events


class Followers:
    """Makes followers of any run."""

    def __init__(self, book: RunBook, live: LiveRuns, paths: StatePaths) -> None:
        self._book = book
        self._live = live
        self._paths = paths

    def follow(self, run_id: str, last_event_id: str | None) -> Follower:
        """Raises NotFound, or InvalidInput for an event id that is none."""
        run = self._book.get(run_id)
        position = Position.parse(last_event_id)
        return Follower(self._book, run_id, self._paths.run(run_id), self._live.get(run), position)


def _state_fields(entry: Entry, run: Run) -> dict[str, Any]:
    return {
        "change": entry.event,
        "at": entry.at,
        "state": run.state,
        "attempt": run.attempt,
        "exit": run.exit,
        "error": run.error,
    }


def _frame(name: str, fields: dict[str, Any], event_id: str) -> bytes:
    # JSON holds no raw newline, and names are ours: nothing in a log can end or forge an event.
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), event_id.encode(), _encoder.encode(fields))
