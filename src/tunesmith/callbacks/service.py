"""Deliveries on record and on their way: journaled before anybody is told they are, sent in order, tried again.

What a run or a batch has to send to one endpoint is a queue of its own, so that no receiver waits for another's. A delivery
leaves its queue when it was delivered or given up. Nothing is sent while ``run`` is not running; what waits is in the journal.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import structlog
from msgspec.structs import replace

from tunesmith.callbacks.due import UptimeClock, after, seconds_until_due, uptime
from tunesmith.callbacks.message import body_of, id_of
from tunesmith.callbacks.schedule import STANDARD_SCHEDULE, after_try
from tunesmith.callbacks.signing import Signer
from tunesmith.errors import Conflict, InvalidInput, NotFound, OutOfSpace, TunesmithError, Unavailable
from tunesmith.failpoints import FAILPOINTS
from tunesmith.journal import Entry, Journal, newest_first, page_of
from tunesmith.net.guarded import Answer
from tunesmith.records import (
    BodySource,
    Callback,
    CallbackEvent,
    Clock,
    Delivery,
    DeliveryAttempt,
    DeliveryState,
    Endpoint,
)

_log = structlog.get_logger()
_AT_ONCE = 64
_AT_ONCE_PER_RECEIVER = 8
_BODIES_AT_ONCE = 3
_MOST_ATTEMPTS_KEPT = 50
_LONGEST_ANSWER_KEPT = 2000
_LONGEST_ERROR_KEPT = 500
_DISK_RETRY_SECONDS = 1.0
_TROUBLE_SECONDS = 60.0
# After a boot the wall clock counts, and may be set meanwhile.
_LONGEST_NAP_SECONDS = 60.0


class Poster(Protocol):
    """What sends; ``guarded.GuardedClient`` is one."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Raises TunesmithError when no whole answer came."""
        ...


class MakeBody(Protocol):
    """Makes the body of a delivery that has a source. Called from threads."""

    def __call__(self, delivery: Delivery) -> bytes:
        """Raises OSError or TunesmithError: what it is made of is not there."""
        ...


def _has_no_source(delivery: Delivery) -> bytes:
    raise InvalidInput("nobody here knows how to make its body", where=delivery.id)


class Channel(NamedTuple):
    """What is sent in order: the deliveries of one subject to one endpoint."""

    subject_id: str
    endpoint: Endpoint


class DeliverySummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every delivery."""

    subject_id: str = ""
    run_id: str = ""
    """Where lines have the subject that were written when only runs had deliveries."""
    endpoint: Endpoint = Endpoint.CALLBACK
    state: DeliveryState = DeliveryState.PENDING

    @property
    def channel(self) -> Channel:
        return Channel(self.subject_id or self.run_id, self.endpoint)


DeliveryJournal = Journal[Delivery, DeliverySummary]


class DeliveryPage(msgspec.Struct, frozen=True):
    """Newest first; ``cursor`` is None on the last page."""

    deliveries: list[Delivery]
    cursor: str | None


class _Queue:
    """What is still to be sent of one channel."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        """A heap of positions in the subject's list of deliveries. One that is not pending any more is passed over."""
        self.wake = asyncio.Event()
        self.lock = asyncio.Lock()
        """Held while one of these deliveries is read, changed and written."""
        self.users = 0
        """Who holds on to this object: it is forgotten when nobody does and nothing waits."""

    async def nap(self, seconds: float) -> None:
        """Until then, or until one of these deliveries changes."""
        self.wake.clear()
        with anyio.move_on_after(min(seconds, _LONGEST_NAP_SECONDS)):
            await self.wake.wait()


class CallbackService:
    """All deliveries."""

    def __init__(
        self,
        *,
        journal: DeliveryJournal,
        client: Poster,
        secret_path: Path,
        clock: Clock,
        schedule: Sequence[float] = STANDARD_SCHEDULE,
        make_body: MakeBody = _has_no_source,
        uptime: UptimeClock = uptime,
    ) -> None:
        self.signer = Signer(secret_path)
        self._journal = journal
        self._client = client
        self._clock = clock
        self._schedule = tuple(schedule)
        self._make_body = make_body
        self._body_threads = anyio.CapacityLimiter(_BODIES_AT_ONCE)
        """Of their own: making a body may take as long as reading a log, and everybody else needs threads, too."""
        self._uptime = uptime
        self._order: list[str] = []
        self._by_subject: defaultdict[str, list[str]] = defaultdict(list)
        self._gone: dict[Channel, str] = {}
        """Where the receiver wants nothing more, and the delivery that was told so."""
        self._queues: dict[Channel, _Queue] = {}
        self._sending = asyncio.Semaphore(_AT_ONCE)
        self._receivers: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """By scheme, host and port: a dead one must not take all the places there are, whoever sends to it."""
        self._unattended: list[Channel] = []
        """Where something is to be sent, and no task sees to it yet."""
        self._wake = asyncio.Event()
        self._counts = dict.fromkeys(DeliveryState, 0)
        for delivery_id, summary in journal.summaries.items():
            channel = summary.channel
            self._order.append(delivery_id)
            self._by_subject[channel.subject_id].append(delivery_id)
            self._counts[summary.state] += 1
            self._note(channel, delivery_id, len(self._by_subject[channel.subject_id]) - 1, summary.state)
        journal.on_commit(self._committed)

    @property
    def schedule(self) -> tuple[float, ...]:
        """Seconds to wait before each try, counted from the one before."""
        return self._schedule

    async def offer(
        self,
        subject_id: str,
        callback: Callback,
        kind: CallbackEvent,
        key: str,
        body: Mapping[str, Any] | BodySource,
        *,
        at: datetime | None = None,
        endpoint: Endpoint = Endpoint.CALLBACK,
    ) -> None:
        """Put an occurrence on record, to be sent in its turn; it is durable when this returns.

        ``key`` names the occurrence within its subject, such as ``metrics@4096``: offering it again does nothing. In the
        shape ``tunesmith``, ``body`` becomes the data; in the others it is sent as it is, or made of its source when it is
        sent. ``at`` is when it happened.

        Raises:
            InvalidInput: the body cannot be written as JSON.
            TooLarge, OutOfSpace, Unavailable: it could not be written down.
        """
        delivery_id = id_of(subject_id, key)
        with self._queue_of(Channel(subject_id, endpoint)) as queue:
            async with queue.lock:
                if delivery_id in self._journal:
                    return
                FAILPOINTS.hit("callback.before_offer")
                delivery = self._new_delivery(Channel(subject_id, endpoint), callback, kind, key, body, at)
                # A caller that is cancelled must not leave it open whether this is on record.
                with anyio.CancelScope(shield=True):
                    await self._journal.append("offered", delivery)

    def _new_delivery(
        self,
        channel: Channel,
        callback: Callback,
        kind: CallbackEvent,
        key: str,
        body: Mapping[str, Any] | BodySource,
        at: datetime | None,
    ) -> Delivery:
        now, dropped = self._clock(), channel in self._gone
        source = body if isinstance(body, BodySource) else None
        return Delivery(
            id=id_of(channel.subject_id, key),
            subject_id=channel.subject_id,
            endpoint=channel.endpoint,
            key=key,
            kind=kind,
            url=callback.url,
            body="" if isinstance(body, BodySource) else body_of(channel.subject_id, callback, kind, body, at or now),
            source=source,
            created_at=now,
            state=DeliveryState.DROPPED if dropped else DeliveryState.PENDING,
            next_at=None if dropped else now,
            due_uptime=None if dropped else self._uptime(),
        )

    def offered(self, subject_id: str, key: str) -> bool:
        """Whether the occurrence is on record: what a new server asks before it works out what the old one left out."""
        return id_of(subject_id, key) in self._journal

    async def resend(self, delivery_id: str) -> Delivery:
        """Take a delivery up again from the start of the schedule, whatever became of it; it keeps its place.

        Raises:
            NotFound: there is no such delivery.
            Conflict: its receiver answered 410 to another one of the subject; that one must be resent first.
        """
        channel = _channel_of(self.get(delivery_id))
        gone = self._gone.get(channel, delivery_id)
        if gone != delivery_id:
            raise Conflict(
                f"the receiver answered 410 to {gone}, and is sent nothing more of {channel.subject_id}",
                mend=f"once it wants them again, resend {gone} first",
            )
        with self._queue_of(channel) as queue:
            return await self._change(
                queue,
                delivery_id,
                "resent",
                lambda latest: replace(
                    latest,
                    state=DeliveryState.PENDING,
                    next_at=self._clock(),
                    due_uptime=self._uptime(),
                    failures=0,
                ),
            )

    def get(self, delivery_id: str) -> Delivery:
        """Raises NotFound."""
        delivery = self._journal.get(delivery_id)
        if delivery is None:
            raise NotFound(f"there is no delivery {delivery_id!r}", mend="GET /v1/deliveries lists them")
        return delivery

    async def body(self, delivery: Delivery) -> bytes:
        """Exactly what is sent.

        Raises:
            OSError, TunesmithError: what it is made of is not there any more.
        """
        if delivery.source is None:
            return delivery.body.encode()
        return await anyio.to_thread.run_sync(self._make_body, delivery, limiter=self._body_threads)

    def page(self, subject_id: str | None = None, *, limit: int, cursor: str | None = None) -> DeliveryPage:
        """Up to ``limit`` deliveries, of one run or batch or of all, newest first. A cursor stays valid for ever."""
        ids = self._order if subject_id is None else self._by_subject.get(subject_id, [])
        page = page_of(self._journal, ids, newest_first(ids, cursor), limit=limit)
        return DeliveryPage([self.get(item) for item in page.ids], page.cursor)

    def counts(self) -> dict[DeliveryState, int]:
        """How many deliveries there are in each state."""
        return dict(self._counts)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled. A try that is cut off was not recorded: the next server makes it again.

        Raises:
            StateFolderUnusable: the file with the secret holds something else.
        """
        await anyio.to_thread.run_sync(self.signer.load)
        async with anyio.create_task_group() as tasks:
            task_status.started()
            while True:
                self._wake.clear()
                while self._unattended:
                    tasks.start_soon(self._carry, self._unattended.pop())
                await self._wake.wait()

    def _committed(self, entry: Entry, delivery: Delivery, previous: DeliverySummary | None) -> None:
        channel = _channel_of(delivery)
        ids = self._by_subject[delivery.subject_id]
        self._counts[delivery.state] += 1
        if previous is not None:
            self._counts[previous.state] -= 1
        if previous is None:
            ids.append(entry.id)
            self._order.append(entry.id)
        elif previous.state is DeliveryState.GONE:
            self._gone.pop(channel, None)
        newest = len(ids) - 1
        # Only those that are resent or tried again are looked for, and these are few.
        pending = delivery.state is DeliveryState.PENDING
        position = newest if ids[newest] == entry.id or not pending else ids.index(entry.id)
        self._note(channel, entry.id, position, delivery.state)

    def _note(self, channel: Channel, delivery_id: str, position: int, state: DeliveryState) -> None:
        """Take in what is on record: into its queue, if it is to be sent."""
        if state is DeliveryState.GONE:
            self._gone[channel] = delivery_id
        if state is not DeliveryState.PENDING:
            return
        queue = self._queues.setdefault(channel, _Queue())
        if not queue.waiting:
            # The journal calls from outside of any task, where none can be started.
            self._unattended.append(channel)
            self._wake.set()
        heappush(queue.waiting, position)
        queue.wake.set()

    @contextmanager
    def _queue_of(self, channel: Channel) -> Iterator[_Queue]:
        queue = self._queues.setdefault(channel, _Queue())
        queue.users += 1
        try:
            yield queue
        finally:
            queue.users -= 1
            if not queue.users and not queue.waiting:
                del self._queues[channel]

    async def _carry(self, channel: Channel) -> None:
        """Empty a queue, whatever happens: one subject's trouble is not another's."""
        while True:
            try:
                with self._queue_of(channel) as queue:
                    await self._drain(channel, queue)
                return
            except Unavailable as error:
                # Only a new server can write.
                _log.error("callbacks_not_carried_on", subject_id=channel.subject_id, reason=str(error))
                return
            except (OutOfSpace, OSError) as error:
                _log.warning("callbacks_wait_for_the_disk", subject_id=channel.subject_id, reason=str(error))
                await anyio.sleep(_DISK_RETRY_SECONDS)
            except Exception:  # noqa: BLE001  # whatever it is, it must not reach the others
                _log.exception("callbacks_taken_up_again", subject_id=channel.subject_id)
                await anyio.sleep(_TROUBLE_SECONDS)

    async def _drain(self, channel: Channel, queue: _Queue) -> None:
        while queue.waiting:
            delivery = self.get(self._by_subject[channel.subject_id][queue.waiting[0]])
            if delivery.state is not DeliveryState.PENDING:
                heappop(queue.waiting)
            elif channel in self._gone:
                await self._change(queue, delivery.id, "dropped", _dropped)
            elif (wait := seconds_until_due(delivery, now=self._clock(), up=self._uptime())) > 0:
                await queue.nap(wait)
            else:
                await self._try(queue, delivery)

    async def _try(self, queue: _Queue, delivery: Delivery) -> None:
        async with self._place(delivery.url):
            at, begun = self._clock(), time.monotonic()
            answer, error = await self._post(delivery, at)
        FAILPOINTS.hit("callback.after_answer")
        attempt = DeliveryAttempt(
            number=delivery.attempts[-1].number + 1 if delivery.attempts else 1,
            at=at,
            seconds=round(time.monotonic() - begun, 3),
            status=answer.status if answer is not None else None,
            answer=answer.body.decode(errors="replace")[:_LONGEST_ANSWER_KEPT] if answer is not None else "",
            error=error,
        )
        retry_after = answer.headers.get("retry-after") if answer is not None else None
        await self._record(queue, delivery.id, attempt, retry_after)

    @asynccontextmanager
    async def _place(self, url: str) -> AsyncIterator[None]:
        receiver = "/".join(url.split("/")[:3]).lower()
        async with self._receivers.setdefault(receiver, asyncio.Semaphore(_AT_ONCE_PER_RECEIVER)), self._sending:
            yield

    async def _post(self, delivery: Delivery, at: datetime) -> tuple[Answer | None, str | None]:
        try:
            body = await self.body(delivery)
            headers = await anyio.to_thread.run_sync(self.signer.headers, delivery.id, int(at.timestamp()), body)
            return await self._client.post(delivery.url, body, headers), None
        except TunesmithError as error:
            return None, error.message[:_LONGEST_ERROR_KEPT]
        except Exception as error:  # noqa: BLE001  # a mistake in the client must keep to the schedule like any failure
            _log.exception("callback_not_sent")
            return None, repr(error)[:_LONGEST_ERROR_KEPT]

    async def _record(self, queue: _Queue, delivery_id: str, attempt: DeliveryAttempt, retry_after: str | None) -> None:
        """Put a try on record. A full disk delays this: it has happened, and is not made again for want of room."""
        now, up = self._clock(), self._uptime()

        def tried(latest: Delivery) -> Delivery:
            step = after_try(
                attempt.status,
                retry_after=retry_after,
                failures=latest.failures + 1,
                now=now,
                schedule=self._schedule,
            )
            return replace(
                latest,
                state=step.state,
                next_at=step.next_at,
                due_uptime=after(up, step.next_at - now) if step.next_at is not None else None,
                failures=latest.failures + (step.state in (DeliveryState.PENDING, DeliveryState.FAILED)),
                attempts=(*latest.attempts, replace(attempt, next_at=step.next_at))[-_MOST_ATTEMPTS_KEPT:],
            )

        while True:
            try:
                changed = await self._change(queue, delivery_id, "tried", tried)
                break
            except OutOfSpace as error:
                _log.warning("callbacks_wait_for_the_disk", delivery_id=delivery_id, reason=str(error))
                await anyio.sleep(_DISK_RETRY_SECONDS)
        _log.info(
            "callback_tried",
            subject_id=changed.subject_id,
            delivery_id=delivery_id,
            attempt=attempt.number,
            status=attempt.status,
            state=str(changed.state),
        )

    async def _change(
        self, queue: _Queue, delivery_id: str, event: str, change: Callable[[Delivery], Delivery]
    ) -> Delivery:
        async with queue.lock:
            changed = change(self.get(delivery_id))
            with anyio.CancelScope(shield=True):
                await self._journal.append(event, changed)
            return changed


def _channel_of(delivery: Delivery) -> Channel:
    return Channel(delivery.subject_id, delivery.endpoint)


def _dropped(latest: Delivery) -> Delivery:
    return replace(latest, state=DeliveryState.DROPPED, next_at=None, due_uptime=None)
