"""Following a run: its server-sent events, each exactly once, also across restarts of the service.

Nothing is printed here; what an event says in words is in ``render``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from tunesmith.cli.client import Service, run_path
from tunesmith.errors import Unavailable
from tunesmith.records import RunState

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_GIVE_UP_AFTER_SECONDS = 600.0


class Event(msgspec.Struct, frozen=True):
    """One event of a run."""

    kind: str
    """``state``, ``log``, or a kind of the line format."""
    fields: dict[str, Any]
    id: str
    """Where to go on after it."""

    @property
    def is_end(self) -> bool:
        """Whether nothing can follow: the run is over."""
        return self.kind == "state" and RunState(self.fields["state"]).final


def follow(service: Service, run_id: str, away: Callable[[str], None]) -> Iterator[Event]:
    """Everything that has happened to the run and then what happens, until it is over.

    When the service goes away, ``away`` is told once, and the stream goes on after the last event when it is back.

    Raises:
        Unavailable: it was not there to begin with, or stayed away for ten minutes.
        TunesmithError: it refused, for example because there is no such run.
    """
    last_id: str | None = None
    gone_since: float | None = None
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            headers = {"Last-Event-ID": last_id} if last_id is not None else {}
            with service.stream(run_path(run_id, "events"), headers) as response:
                if response.status_code == 204:
                    return
                for event in read_events(response.iter_bytes()):
                    last_id, gone_since, pause = event.id, None, _FIRST_PAUSE_SECONDS
                    yield event
                    if event.is_end:
                        return
        except Unavailable as error:
            if last_id is None:
                raise
            if gone_since is None:
                gone_since = time.monotonic()
                away("the service is away; the run goes on, and so does this when the service is back")
            if time.monotonic() - gone_since > _GIVE_UP_AFTER_SECONDS:
                raise Unavailable(f"gave up waiting: {error.message}", mend=error.mend) from error
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        service.find_again()


def read_events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Whole events only: one that was cut off by a broken connection is sent again."""
    name, event_id, data = "", "", b""
    for line in _lines(chunks):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode()
        elif field == b"id":
            event_id = value.decode()
        elif field == b"data":
            data = value
        elif not line and data:
            yield Event(name, msgspec.json.decode(data), event_id)
            name, data = "", b""


def read_data(chunks: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of the events of an answer that is streamed, until it says that it is done.

    Raises:
        Unavailable: it broke off before.
    """
    name = ""
    for line in _lines(chunks):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode()
        elif field == b"data" and value == b"[DONE]":
            return
        elif field == b"data":
            yield name, msgspec.json.decode(value)
            if name == "error":
                return
    raise Unavailable("the answer broke off", mend="see the service's log; try again")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    # Split at newlines only: log text may hold the other characters that Unicode calls line ends.
    pieces: list[bytes] = []
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*pieces, line])
            pieces.clear()
        pieces.append(rest)
