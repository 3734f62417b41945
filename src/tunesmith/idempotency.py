"""Creating calls that a client may repeat: the first makes a record, the others find it.

The key is stored in the record itself, so it is on disk exactly when the record is, and is known as long as the record
has it. Nothing is remembered of calls that failed: repeating one tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, NamedTuple, TypeVar

from tunesmith.errors import Conflict
from tunesmith.journal import Entry, Journal
from tunesmith.records import IdempotentCall

R = TypeVar("R")
S = TypeVar("S")
Made = Callable[[S], Iterable[IdempotentCall]]


class _Place(NamedTuple):
    scope: str
    caller: str
    key: str


class _Earlier(NamedTuple):
    record_id: str
    request_sha256: str


class IdempotentCalls:
    """Which creating calls made which records."""

    def __init__(self) -> None:
        self._earlier: dict[_Place, _Earlier] = {}
        self._making: dict[_Place, asyncio.Future[Any]] = {}

    def follow(self, journal: Journal[Any, S], made: Made[S]) -> None:
        """Know the calls of all records of this journal, now and from now on. ``made`` finds them in a summary."""
        for record_id, summary in journal.summaries.items():
            self._note(record_id, made(summary), ())

        def committed(_entry: Entry, record: Any, previous: S | None) -> None:
            calls = tuple(made(journal.summaries[record.id]))
            before = tuple(made(previous)) if previous is not None else ()
            self._forget(record.id, (call for call in before if call not in calls))
            self._note(record.id, calls, before)

        journal.on_commit(committed)

    def _note(self, record_id: str, calls: Iterable[IdempotentCall], before: Collection[IdempotentCall]) -> None:
        """Of several records that a call has made the latest counts, whichever of them changes later."""
        for call in calls:
            place = _place_of(call)
            if call not in before or place not in self._earlier:
                self._earlier[place] = _Earlier(record_id, call.request_sha256)

    def _forget(self, record_id: str, calls: Iterable[IdempotentCall]) -> None:
        for call in calls:
            place = _place_of(call)
            if place in self._earlier and self._earlier[place].record_id == record_id:
                del self._earlier[place]

    def knows(self, call: IdempotentCall) -> bool:
        """Whether a call with this key has made a record, whatever its request was."""
        return self._found(_place_of(call)) is not None

    async def once(
        self,
        call: IdempotentCall | None,
        make: Callable[[], Awaitable[R]],
        find: Callable[[str], R],
        counts: Callable[[str], bool] = lambda _: True,
    ) -> tuple[R, bool]:
        """What ``make`` makes, or what ``find`` finds by the id that the same call made before; says whether it is new.

        ``counts`` says of that id whether it still counts; if not, another is made. ``make`` has to journal a record with
        this call. It goes on when whoever waits for it is cancelled: a repeat must see how it ended.

        Raises:
            Conflict: the key was used with another request.
        """
        if call is None:
            return await make(), True
        place = _place_of(call)
        while place in self._making:
            await asyncio.wait([self._making[place]])
        earlier = self._found(place)
        if earlier is not None and counts(earlier.record_id):
            _refuse_other_request(call, earlier)
            return find(earlier.record_id), False
        making = asyncio.ensure_future(make())
        self._making[place] = making
        making.add_done_callback(lambda done: self._ended(place, done))
        return await asyncio.shield(making), True

    def _ended(self, place: _Place, done: asyncio.Future[Any]) -> None:
        del self._making[place]
        if not done.cancelled():
            done.exception()  # looked at, should nobody wait for it any more

    def _found(self, place: _Place) -> _Earlier | None:
        # One that was called before there were API keys belongs to whoever calls now.
        return self._earlier.get(place) or self._earlier.get(place._replace(caller=""))


def _place_of(call: IdempotentCall) -> _Place:
    return _Place(call.scope, call.caller, call.key)


def _refuse_other_request(call: IdempotentCall, earlier: _Earlier) -> None:
    if earlier.request_sha256 != call.request_sha256:
        raise Conflict(
            f"this key already made {earlier.record_id} with another request",
            where="Idempotency-Key",
            mend="use a new key for a new request",
        )
