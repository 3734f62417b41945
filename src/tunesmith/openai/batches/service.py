"""Batches as a door asks for them: made, found, cancelled; and the task that works on those that are not over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import anyio.abc
import msgspec
import structlog

from tunesmith.errors import Busy, Conflict, TunesmithError
from tunesmith.openai.batches.asking import MOST_AT_ONCE, Models
from tunesmith.openai.batches.book import BatchBook
from tunesmith.openai.batches.readiness import FIRST_PAUSE, Readiness
from tunesmith.openai.batches.turns import Turns
from tunesmith.openai.batches.work import BatchWork, Files, Tools
from tunesmith.paths import StatePaths
from tunesmith.records import Batch, BatchCounts, BatchFault, BatchStatus, Clock, new_id

_log = structlog.get_logger()
WINDOW = timedelta(hours=24)
_SAME_WITHIN = timedelta(seconds=10)
"""A request that comes again so soon is the same one: clients send it again when its answer was lost."""
_MOST_UNFINISHED = 1000
_MOST_UNDER_WAY = 64
"""Others wait until one of these is over: each takes some memory."""
_RETRY_SECONDS = 5.0
_READS_AT_ONCE, _DISK_THREADS = 2, 4
_CAN_BE_CANCELLED = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as a door asks for it."""

    input_upload: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_seconds: int | None = None
    caller: str = ""
    """The id of the API key that it came with; empty without one."""


async def nobody(_batch: Batch) -> None:
    """For where nobody wants to know of the end of a batch."""


class BatchService:
    """All batches, and the way to the next one."""

    def __init__(
        self,
        *,
        book: BatchBook,
        paths: StatePaths,
        clock: Clock,
        files: Files,
        models: Models,
        on_end: Callable[[Batch], Awaitable[None]] = nobody,
        window: timedelta = WINDOW,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        """``on_end`` is asked when the end of a batch is on record: again after a crash, until it has returned once.
        ``first_pause`` is how many seconds a model that cannot be asked is left alone at first.
        """
        self.book = book
        self._clock = clock
        self._window = window
        self._tools = Tools(
            book=book,
            paths=paths,
            clock=clock,
            files=files,
            models=models,
            readiness=Readiness(models.prepare, first_pause=first_pause),
            turns=Turns(MOST_AT_ONCE),
            on_end=on_end,
            reads=anyio.CapacityLimiter(_READS_AT_ONCE),
            disk=anyio.CapacityLimiter(_DISK_THREADS),
        )
        self._works: dict[str, BatchWork] = {}
        self._under_way: set[str] = set()
        self._creating = asyncio.Lock()
        self._wake = asyncio.Event()

    async def create(self, request: BatchRequest) -> Batch:
        """A new batch, or the same one that was asked for a moment ago.

        Raises:
            Busy: as many are unfinished as may.
        """
        async with self._creating:
            same = self._same(request)
            if same is not None:
                return same
            if len(self.book.unsettled()) >= _MOST_UNFINISHED:
                raise Busy(f"{_MOST_UNFINISHED} batches are unfinished", mend="wait for some of them, or cancel them")
            now = self._clock()
            batch = Batch(
                id=new_id("batch"), created_at=now, expires_at=now + self._window, **msgspec.structs.asdict(request)
            )
            with anyio.CancelScope(shield=True):
                await self.book.add(batch)
            self._wake.set()
        _log.info("batch_created", batch_id=batch.id)
        return batch

    def _same(self, request: BatchRequest) -> Batch | None:
        ended = (BatchStatus.CANCELLING, BatchStatus.CANCELLED)
        for batch in self.book.since(self._clock() - _SAME_WITHIN):
            earlier = BatchRequest(**{name: getattr(batch, name) for name in BatchRequest.__struct_fields__})
            if earlier == request and batch.status not in ended:
                return batch
        return None

    def counts_of(self, batch: Batch) -> BatchCounts:
        """What became of its requests so far. After a start, what is on record until its work has counted its lines."""
        work = self._works.get(batch.id)
        return batch.counts if work is None or batch.status.final else work.counts

    async def cancel(self, batch_id: str) -> Batch:
        """Ask for its end; what was answered becomes a file. One that was cancelled before is answered as it is.

        Raises:
            NotFound: there is none.
            Conflict: it is over, or about to be.
        """
        if self.book.get(batch_id).status in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
            return self.book.get(batch_id)
        try:
            batch = await self.book.change(
                batch_id,
                "cancelling",
                only_if=lambda one: one.status in _CAN_BE_CANCELLED,
                status=BatchStatus.CANCELLING,
                cancelling_at=self._clock(),
            )
        except Conflict:
            return self._over(self.book.get(batch_id))
        work = self._works.get(batch_id)
        if work is not None:
            work.stop_asking()
        return batch

    def _over(self, batch: Batch) -> Batch:
        if batch.status in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
            return batch
        raise Conflict(
            f"batch {batch.id} is {batch.status}", where="batch_id", mend="only one that is not over can be cancelled"
        )

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled: work on whatever is not over. What an earlier server has left is counted by each one's work."""
        task_status.started()
        async with anyio.create_task_group() as tasks:
            while True:
                self._wake.clear()
                for batch in self.book.unsettled():
                    if batch.id not in self._under_way and len(self._under_way) < _MOST_UNDER_WAY:
                        self._under_way.add(batch.id)
                        work = self._works.setdefault(batch.id, BatchWork(batch.id, self._tools))
                        tasks.start_soon(self._work_on, work)
                await self._wake.wait()

    async def _work_on(self, work: BatchWork) -> None:
        while not self.book.get(work.batch_id).is_settled:
            try:
                await work.run()
            except (TunesmithError, OSError) as error:
                _log.warning("batch_waits", batch_id=work.batch_id, reason=str(error))
                await anyio.sleep(_RETRY_SECONDS)
            except Exception:  # noqa: BLE001  # one batch that meets a bug must not end all others, and the server
                _log.exception("batch_failed", batch_id=work.batch_id)
                await self._give_up(work.batch_id)
        del self._works[work.batch_id]
        self._under_way.discard(work.batch_id)
        self._wake.set()

    async def _give_up(self, batch_id: str) -> None:
        """After a bug in this service. What was answered stays in the batch's folder."""
        now, told = self._clock(), "this is a bug in Tunesmith; its log has the traceback, please report it"
        fault = BatchFault(code="internal_error", message=told)
        failed: dict[str, Any] = {"status": BatchStatus.FAILED, "failed_at": now, "faults": (fault,)}
        is_over = self.book.get(batch_id).status.final
        try:
            await self.book.change(batch_id, "given_up", told_at=now, **({} if is_over else failed))
        except TunesmithError as error:
            _log.warning("batch_waits", batch_id=batch_id, reason=str(error))
            await anyio.sleep(_RETRY_SECONDS)
