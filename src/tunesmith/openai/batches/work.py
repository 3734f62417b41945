"""One batch from where it is to its end: its file is read, its requests are asked, its lines become files.

Every step begins from what is on record and on the disk, so that a server that was killed goes on where it was.
"""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
import structlog

from tunesmith.errors import Conflict, Forbidden, MissingReference, NotFound
from tunesmith.failpoints import FAILPOINTS
from tunesmith.files import NO_ROOM, SHORTAGE
from tunesmith.openai.batches.asking import Asker, Models
from tunesmith.openai.batches.book import BatchBook
from tunesmith.openai.batches.lines import EXPIRED, LineFiles, not_asked
from tunesmith.openai.batches.readiness import Readiness
from tunesmith.openai.batches.reading import MOST_MODELS, Reading, read_input, read_request
from tunesmith.openai.batches.turns import Turns
from tunesmith.paths import BatchPaths, StatePaths
from tunesmith.records import Batch, BatchCounts, BatchFault, BatchStatus, Clock

_log = structlog.get_logger()
_T = TypeVar("_T")
_HAS_FILES = (BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)
_LONGEST_TOLD = 1000
_LATE = "This request was not answered before the completion window was over."


class Files(Protocol):
    """The files that there are."""

    def path(self, upload_id: str) -> Path: ...

    async def keep(self, path: Path, name: str, seconds: int | None) -> str:
        """Put a copy there for so many seconds, or for good; the one that was put there before, if it is the same.

        Answers the id of the upload. Raises OutOfSpace.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What every batch is worked on with."""

    book: BatchBook
    paths: StatePaths
    clock: Clock
    files: Files
    models: Models
    readiness: Readiness
    turns: Turns
    on_end: Callable[[Batch], Awaitable[None]]
    reads: anyio.CapacityLimiter
    """Of whole input files: each takes some memory while it is read."""
    disk: anyio.CapacityLimiter
    """Of everything else that touches the disk."""


class BatchWork:
    """Works on one batch."""

    def __init__(self, batch_id: str, tools: Tools) -> None:
        self.batch_id = batch_id
        self._tools = tools
        self._paths: BatchPaths = tools.paths.batch(batch_id)
        self._lines = LineFiles(self._paths)
        self._asking = anyio.CancelScope()
        self._is_counted = False

    @property
    def counts(self) -> BatchCounts:
        """Of the lines that are there now; until they were counted, what is on record."""
        return self._lines.tally.counts if self._is_counted else self._record.counts

    async def _count(self) -> set[str]:
        """Count the lines that are there, also those of a server before; answers which requests have theirs. Raises OSError."""
        found = await self._at_the_disk(self._lines.read_again)
        self._is_counted = True
        return found

    def stop_asking(self) -> None:
        """Its end was asked for, and that is on record."""
        self._asking.cancel()

    async def run(self) -> None:
        """Until nothing is left to be done. May be called again after an error.

        Raises:
            TunesmithError, OSError: something cannot be written down, or descriptors are short.
        """
        self._asking = anyio.CancelScope()
        try:
            with self._asking:
                await self._validate()
                await self._answer()
        except (OSError, NotFound) as error:
            await self._fail_without_input(error)
        await self._finish()
        batch = self._record
        if batch.status.final and batch.told_at is None:
            await self._tools.on_end(batch)
            await self._tools.book.change(batch.id, "told", told_at=self._tools.clock())

    async def _fail_without_input(self, error: OSError | NotFound) -> None:
        if isinstance(error, OSError):
            if error.errno in NO_ROOM | SHORTAGE:
                raise error
            error = NotFound(f"a file of the batch cannot be read: {error.strerror}")
        fault = BatchFault(code="file_unreadable", message=error.message)
        await self._move(BatchStatus.FAILED, self._record.status, failed_at=self._tools.clock(), faults=(fault,))

    @property
    def _record(self) -> Batch:
        return self._tools.book.get(self.batch_id)

    async def _move(self, status: BatchStatus, expected: BatchStatus, **changes: object) -> None:
        """To its next status, unless somebody has asked for its end."""
        counts = self.counts
        try:
            await self._tools.book.change(
                self.batch_id,
                status,
                only_if=lambda one: one.status is expected,
                status=status,
                counts=counts,
                **changes,
            )
        except Conflict:
            return
        _log.info("batch_moved", batch_id=self.batch_id, status=str(status))

    async def _validate(self) -> None:
        batch = self._record
        if batch.status is not BatchStatus.VALIDATING:
            return
        reading = await self._read(batch, set())
        faults = (*reading.faults, *await self._unknown_models(reading.first_lines))
        now = self._tools.clock()
        if faults:
            await self._move(BatchStatus.FAILED, batch.status, failed_at=now, faults=faults)
            return
        models = list(reading.first_lines)
        await self._move(
            BatchStatus.IN_PROGRESS,
            batch.status,
            in_progress_at=now,
            total=reading.total,
            model=models[0] if len(models) == 1 else None,
        )

    async def _unknown_models(self, first_lines: Mapping[str, int]) -> list[BatchFault]:
        faults = []
        for name, line in islice(first_lines.items(), MOST_MODELS):
            try:
                await self._tools.models.known(name)
            except (MissingReference, Forbidden) as error:
                code = "model_not_found" if isinstance(error, MissingReference) else "permission_denied"
                faults.append(BatchFault(code=code, message=str(error)[:_LONGEST_TOLD], line=line, param="body.model"))
        return faults

    async def _answer(self) -> None:
        batch = self._record
        if batch.status is not BatchStatus.IN_PROGRESS:
            return
        pending = await self._pending(batch)
        left = (batch.expires_at - self._tools.clock()).total_seconds()
        path = self._tools.files.path(batch.input_upload)
        with anyio.move_on_after(max(left, 0.0)) as window:
            await self._asker(path).run(pending)
        if window.cancelled_caught:
            await self._at_the_disk(partial(self._give_up, path, await self._pending(batch)))
        await self._move(BatchStatus.FINALIZING, batch.status, finalizing_at=self._tools.clock())

    def _asker(self, path: Path) -> Asker:
        tools = self._tools
        return Asker(self.batch_id, path, self._lines, tools.models, tools.readiness, tools.turns, tools.disk)

    async def _pending(self, batch: Batch) -> Mapping[str, array[int]]:
        return (await self._read(batch, await self._count())).pending

    async def _read(self, batch: Batch, answered: set[str]) -> Reading:
        reading = await anyio.to_thread.run_sync(
            read_input,
            self._tools.files.path(batch.input_upload),
            batch.endpoint,
            answered,
            limiter=self._tools.reads,
        )
        self._tools.book.note_models(batch.id, reading.first_lines)
        return reading

    def _give_up(self, path: Path, pending: Mapping[str, array[int]]) -> None:
        for places in pending.values():
            for place in places:
                self._lines.append(not_asked(read_request(path, place).custom_id, EXPIRED, _LATE))

    async def _finish(self) -> None:
        """Its lines become files; then they are removed."""
        batch = self._record
        if batch.status in (BatchStatus.FINALIZING, BatchStatus.CANCELLING):
            await self._count()
            tally = self._lines.tally
            output = await self._kept(batch, self._paths.output, "output") if tally.completed else None
            error = await self._kept(batch, self._paths.errors, "error") if tally.failed else None
            ends = BatchStatus.EXPIRED if tally.expired else BatchStatus.COMPLETED
            ends = BatchStatus.CANCELLED if batch.status is BatchStatus.CANCELLING else ends
            FAILPOINTS.hit("batch.before_end")
            times = {f"{ends}_at": self._tools.clock()}
            await self._move(ends, batch.status, output_upload=output, error_upload=error, **times)
        if self._record.status in _HAS_FILES:
            await self._at_the_disk(partial(shutil.rmtree, self._paths.folder, ignore_errors=True))

    async def _kept(self, batch: Batch, path: Path, kind: str) -> str:
        return await self._tools.files.keep(path, f"{batch.id}_{kind}.jsonl", batch.output_seconds)

    async def _at_the_disk(self, work: Callable[[], _T]) -> _T:
        return await anyio.to_thread.run_sync(work, limiter=self._tools.disk)
