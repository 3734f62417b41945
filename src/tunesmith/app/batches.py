"""Builds what works on batches: where their files are, and which engines answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio.to_thread

from tunesmith.app.base import Base
from tunesmith.datasets import Arrived, Details, SingleFiles, UploadService
from tunesmith.inference import ChatService, Completions, EngineRefused
from tunesmith.openai import ModelCatalog
from tunesmith.openai.batches import Answer, BatchService
from tunesmith.records import Batch, BatchStatus, Upload
from tunesmith.reporting import OpenAIEvents
from tunesmith.reporting.openai_events import EventType

_OUTPUT = "batch_output"
_BLOCK = 256 * 1024
_EVENTS: Mapping[BatchStatus, EventType] = MappingProxyType(
    {
        BatchStatus.COMPLETED: "batch.completed",
        BatchStatus.FAILED: "batch.failed",
        BatchStatus.EXPIRED: "batch.expired",
        BatchStatus.CANCELLED: "batch.cancelled",
    }
)


def batches_of(
    base: Base,
    uploads: UploadService,
    single_files: SingleFiles,
    catalog: ModelCatalog,
    chat: ChatService,
    completions: Completions,
    events: OpenAIEvents,
) -> BatchService:
    async def tell(batch: Batch) -> None:
        await events.offer(batch.id, _EVENTS[batch.status], batch.id, batch.ended_at)

    return BatchService(
        book=base.batches,
        paths=base.paths,
        clock=base.clock,
        files=BatchFiles(uploads, single_files),
        models=BatchModels(catalog, chat, completions),
        on_end=tell,
    )


class BatchFiles:
    """The files of the service, as batches read and make them."""

    def __init__(self, uploads: UploadService, single_files: SingleFiles) -> None:
        self._uploads = uploads
        self._single_files = single_files

    def path(self, upload_id: str) -> Path:
        return self._uploads.path(upload_id)

    async def keep(self, path: Path, name: str, seconds: int | None) -> str:
        def judge(arrived: Arrived) -> Details:
            return Details(purpose=_OUTPUT, keep_seconds=seconds, instead=self._same(arrived))

        received = await self._single_files.put(name, _chunks(path), judge)
        return received.upload.id

    def _same(self, arrived: Arrived) -> Upload | None:
        """The one that a server has put there which ended before it could say so."""
        named = (self._uploads.get(upload_id) for upload_id in self._uploads.named(arrived.name))
        return next((one for one in named if (one.purpose, one.sha256) == (_OUTPUT, arrived.sha256)), None)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:  # opening waits for nothing; reading is done in a thread
        while chunk := await anyio.to_thread.run_sync(file.read, _BLOCK):
            yield chunk


class BatchModels:
    """The models of the service, as batches ask them."""

    def __init__(self, catalog: ModelCatalog, chat: ChatService, completions: Completions) -> None:
        self._catalog = catalog
        self._chat = chat
        self._completions = completions

    async def known(self, name: str) -> object:
        return await self._catalog.get(name)

    async def prepare(self, name: str) -> object:
        return await self._chat.endpoint(name)

    async def ask(self, name: str, fields: Mapping[str, Any]) -> Answer:
        try:
            return Answer(200, await self._completions.whole(name, fields))
        except EngineRefused as refused:
            return Answer(refused.status, refused.body)
