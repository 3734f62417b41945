"""The batches on record: lookups, who uses a file, which models they ask, and changes one after the other. Asks no model."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from tunesmith.errors import Conflict, NotFound
from tunesmith.journal import Entry, Journal
from tunesmith.records import Batch, BatchStatus


class BatchSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every batch."""

    status: BatchStatus = BatchStatus.VALIDATING
    told_at: datetime | None = None

    @property
    def is_settled(self) -> bool:
        return self.status.final and self.told_at is not None


class BatchBook:
    """All batches, and the only way to change one."""

    def __init__(self, journal: Journal[Batch, BatchSummary]) -> None:
        self._journal = journal
        self._sorted = sorted(journal.summaries)
        self._unsettled: dict[str, Batch] = {}
        """Those that something is left to be done about, decoded."""
        self._arriving: dict[str, Batch] = {}
        """On their way to the disk."""
        self._models: dict[str, tuple[str, ...]] = {}
        """What the requests of those call their models that still ask them, once their files were read."""
        self._changing = asyncio.Lock()
        for batch_id, summary in journal.summaries.items():
            if not summary.is_settled:
                found = journal.get(batch_id)
                assert found is not None
                self._unsettled[batch_id] = found
        journal.on_commit(self._committed)

    def _committed(self, _entry: Entry, batch: Batch, previous: BatchSummary | None) -> None:
        if previous is None:
            insort(self._sorted, batch.id)
        if batch.is_settled:
            self._unsettled.pop(batch.id, None)
        else:
            self._unsettled[batch.id] = batch
        if not batch.status.asks:
            self._models.pop(batch.id, None)

    @property
    def sorted_ids(self) -> Sequence[str]:
        """Those of all batches, oldest first. Not to be kept over an await."""
        return self._sorted

    def __contains__(self, batch_id: object) -> bool:
        return batch_id in self._journal

    def get(self, batch_id: str) -> Batch:
        """Raises NotFound."""
        found = self._journal.get(batch_id)
        if found is None:
            raise NotFound(f"there is no batch {batch_id[:100]!r}", where="batch_id", mend="GET /v1/batches lists them")
        return found

    def unsettled(self) -> list[Batch]:
        """Those that something is left to be done about, oldest first."""
        return sorted(self._unsettled.values(), key=lambda one: one.id)

    def users_of(self, upload_ids: Collection[str]) -> list[str]:
        """The batches that are not over and read one of these uploads."""
        found = [*self.unsettled(), *self._arriving.values()]
        return [one.id for one in found if not one.status.final and one.input_upload in upload_ids]

    def asking(self) -> list[Batch]:
        """The batches with requests to ask, those among them that are just being made."""
        return [one for one in (*self.unsettled(), *self._arriving.values()) if one.status.asks]

    def note_models(self, batch_id: str, names: Iterable[str]) -> None:
        """What its requests call their models."""
        if batch_id in self._arriving or (batch_id in self._unsettled and self._unsettled[batch_id].status.asks):
            self._models[batch_id] = tuple(names)

    def models_of(self, batch: Batch) -> Sequence[str] | None:
        """What its requests call their models; None: its file was not read yet."""
        return (batch.model,) if batch.model is not None else self._models.get(batch.id)

    def since(self, at: datetime) -> list[Batch]:
        """Those that were made at this time or later, newest first."""
        found: list[Batch] = []
        for batch_id in reversed(self._sorted):
            batch = self.get(batch_id)
            if batch.created_at < at:
                break
            found.append(batch)
        return found

    async def add(self, batch: Batch) -> Batch:
        # From here on its input is in use, whatever becomes of that: a deletion sees it, or it has seen the deletion.
        self._arriving[batch.id] = batch
        try:
            await self._journal.append("created", batch)
        finally:
            del self._arriving[batch.id]
        return batch

    async def change(
        self, batch_id: str, event: str, *, only_if: Callable[[Batch], bool] = lambda _: True, **changes: Any
    ) -> Batch:
        """Change these fields. ``only_if`` is for whoever decided by what it was: it may have changed meanwhile.

        Raises:
            Conflict: ``only_if`` does not hold any more.
        """
        async with self._changing:
            before = self.get(batch_id)
            if not only_if(before):
                raise Conflict(f"batch {batch_id} is {before.status} by now", where="batch_id")
            after = msgspec.structs.replace(before, **changes)
            await self._journal.append(event, after)
            return after
