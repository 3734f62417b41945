"""Files that are too large for one request: announced, sent in parts, and put together to a file like any other.

What is on record is the announcement and how it ended. Which parts are here is what lies on the disk: a part counts from
when it has its name, so a server that was killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

import anyio
import anyio.abc
import msgspec
import structlog

from tunesmith.errors import Conflict, InvalidInput, NotFound, TunesmithError, Unavailable
from tunesmith.journal import Entry, Journal
from tunesmith.openai.part_files import Part, PartFiles
from tunesmith.records import Clock, Upload, UploadInParts, UploadInPartsStatus, new_id

_log = structlog.get_logger()
LARGEST_PART = 64 * 1024 * 1024
MOST_PARTS = 10_000
_OPEN_FOR = timedelta(hours=1)
_LOOK_EVERY_SECONDS = 30.0
_BLOCK = 256 * 1024
_PENDING = UploadInPartsStatus.PENDING


class UploadInPartsSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every upload in parts."""

    expires_at: datetime
    status: UploadInPartsStatus = _PENDING


class PutFile(Protocol):
    """Makes a file of bytes; nothing of it stays if they end in an error."""

    async def __call__(self, upload: UploadInParts, chunks: AsyncIterator[bytes], upload_id: str) -> Upload: ...


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a file before its parts come."""

    name: str
    bytes: int
    mime_type: str
    purpose: str
    keep_seconds: int | None = None


class UploadsInParts:
    """All uploads in parts, and what is coming in for them."""

    def __init__(
        self,
        journal: Journal[UploadInParts, UploadInPartsSummary],
        files: PartFiles,
        put: PutFile,
        is_there: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        """``is_there`` says whether an upload is on record."""
        self._journal = journal
        self._files = files
        self._put = put
        self._is_there = is_there
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._pending = {key: one.expires_at for key, one in journal.summaries.items() if one.status is _PENDING}
        """When each of them expires."""
        self._coming: set[anyio.CancelScope] = set()
        """Of parts that are coming in."""
        self._closed = False
        journal.on_commit(self._committed)

    def _committed(self, _entry: Entry, upload: UploadInParts, _previous: UploadInPartsSummary | None) -> None:
        if upload.status is _PENDING:
            self._pending[upload.id] = upload.expires_at
        else:
            self._pending.pop(upload.id, None)

    def get(self, upload_id: str) -> UploadInParts:
        """Raises NotFound."""
        upload = self._journal.get(upload_id) if upload_id in self._journal else None
        if upload is None:
            raise NotFound(
                f"there is no upload {upload_id[:100]!r}", where="upload_id", mend="POST /v1/uploads makes one"
            )
        return upload

    async def create(self, announced: Announced) -> UploadInParts:
        """Announce a file; from then on its parts may come."""
        now = self._clock()
        fields = msgspec.structs.asdict(announced)
        upload = UploadInParts(id=new_id("upload"), created_at=now, expires_at=now + _OPEN_FOR, **fields)
        await self._journal.append("created", upload)
        return upload

    async def add_part(self, upload_id: str, chunks: AsyncIterator[bytes]) -> str:
        """Take in a part; answers its id once it is on the disk. Whatever goes wrong, nothing of it stays.

        Raises:
            NotFound: there is no such upload.
            Conflict: it takes no parts any more, or too much has come.
            OutOfSpace: the disk is full.
            Exception: whatever ``chunks`` raises.
        """
        part_id = new_id("part")
        part = self._files.new(upload_id, part_id)
        async with self._lock(upload_id):
            self._refuse_unless_open(self.get(upload_id))
            await self._files.in_thread(part.open)
        try:
            size = await self._unless_closed(part, chunks)
            async with self._lock(upload_id):
                await self._refuse_too_much(upload_id, size)
                await self._files.in_thread(part.commit)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._files.in_thread(part.discard)
            raise
        return part_id

    async def _unless_closed(self, part: Part, chunks: AsyncIterator[bytes]) -> int:
        if self._closed:
            raise _shutting_down()
        with anyio.CancelScope() as scope:
            self._coming.add(scope)
            try:
                return await self._pour(part, chunks)
            finally:
                self._coming.discard(scope)
        raise _shutting_down()

    async def _pour(self, part: Part, chunks: AsyncIterator[bytes]) -> int:
        size, block = 0, bytearray()
        async for chunk in chunks:
            size += len(chunk)
            block += chunk
            if len(block) >= _BLOCK:
                await self._files.in_thread(partial(part.write, block))
                block = bytearray()
        if block:
            await self._files.in_thread(partial(part.write, block))
        await self._files.in_thread(part.sync)
        return size

    async def _refuse_too_much(self, upload_id: str, size: int) -> None:
        """Parts may come twice, when an answer was lost; a client that sends without end is stopped."""
        upload = self.get(upload_id)
        self._refuse_unless_open(upload)
        sizes = await self._files.in_thread(partial(self._files.sizes, upload_id))
        if len(sizes) >= MOST_PARTS or sum(sizes.values()) + size > 2 * upload.bytes + LARGEST_PART:
            raise Conflict(
                f"{len(sizes)} parts with {sum(sizes.values())} bytes are here of {upload.bytes} bytes that were announced",
                where="upload_id",
                mend="complete the upload with those that are needed, or cancel it",
            )

    async def complete(self, upload_id: str, part_ids: Sequence[str], md5: str | None = None) -> UploadInParts:
        """Put the parts together, in this order. Done once: the same again answers what came of it.

        Raises:
            NotFound: there is no such upload.
            Conflict: it was completed with other parts, or is cancelled or expired.
            InvalidInput: a part is not here, or named twice; or they are not what was announced.
            TunesmithError: whatever putting a file there raises.
        """
        async with self._lock(upload_id):
            upload = await self._finished(self.get(upload_id))
            if upload.status is UploadInPartsStatus.COMPLETED and upload.part_ids == tuple(part_ids):
                return upload
            self._refuse_unless_open(upload)
            await self._refuse_misfits(upload, part_ids)
            upload = msgspec.structs.replace(upload, part_ids=tuple(part_ids), upload_id=new_id("upl"))
            await self._journal.append("completing", upload)
            await self._put(upload, self._content(upload, md5), upload.upload_id or "")
            return await self._end(upload, UploadInPartsStatus.COMPLETED)

    async def _refuse_misfits(self, upload: UploadInParts, part_ids: Sequence[str]) -> None:
        sizes = await self._files.in_thread(partial(self._files.sizes, upload.id))
        missing = next((one for one in part_ids if one not in sizes), None)
        if missing is not None:
            raise InvalidInput(
                f"there is no part {missing[:100]!r} in upload {upload.id}", where="part_ids", mend="send it again"
            )
        if len(set(part_ids)) < len(part_ids):
            raise InvalidInput("a part is named twice", where="part_ids", mend="name each once, in their order")
        total = sum(sizes[one] for one in part_ids)
        if total != upload.bytes:
            raise InvalidInput(
                f"these parts have {total} bytes together, and {upload.bytes} were announced",
                where="part_ids",
                mend="name all parts, in their order; or make another upload",
            )

    async def _content(self, upload: UploadInParts, md5: str | None) -> AsyncIterator[bytes]:
        digest = hashlib.md5(usedforsecurity=False)
        async for block in self._files.content(upload.id, upload.part_ids, digest):
            yield block
        if md5 is not None and digest.hexdigest() != md5.lower():
            raise InvalidInput(
                f"the MD5 of these parts is {digest.hexdigest()}, not {md5[:64]}",
                where="md5",
                mend="check their order, and send again what was damaged on the way",
            )

    async def cancel(self, upload_id: str) -> UploadInParts:
        """Remove what has come of it. Done once: the same again answers what came of it.

        Raises:
            NotFound: there is no such upload.
            Conflict: it is completed or expired.
        """
        async with self._lock(upload_id):
            upload = await self._finished(self.get(upload_id))
            if upload.status is UploadInPartsStatus.CANCELLED:
                return upload
            self._refuse_unless_open(upload)
            return await self._end(upload, UploadInPartsStatus.CANCELLED)

    async def _finished(self, upload: UploadInParts) -> UploadInParts:
        """As it is when what a server has begun to write down of its end is written down."""
        if upload.status is _PENDING and upload.upload_id is not None and self._is_there(upload.upload_id):
            return await self._end(upload, UploadInPartsStatus.COMPLETED)
        return upload

    async def _end(self, upload: UploadInParts, status: UploadInPartsStatus) -> UploadInParts:
        ended = msgspec.structs.replace(upload, status=status)
        with anyio.CancelScope(shield=True):
            await self._journal.append(status.value, ended)
            await self._files.in_thread(partial(self._files.remove, upload.id))
        return ended

    def _refuse_unless_open(self, upload: UploadInParts) -> None:
        status = upload.status
        if status is _PENDING and upload.expires_at <= self._clock():
            status = UploadInPartsStatus.EXPIRED
        if status is not _PENDING:
            raise Conflict(f"upload {upload.id} is {status}", where="upload_id", mend="make another: POST /v1/uploads")

    def _lock(self, upload_id: str) -> asyncio.Lock:
        """Held while it is decided what becomes of an upload."""
        return self._locks.setdefault(upload_id, asyncio.Lock())

    def close(self) -> None:
        """Stop the parts that are coming in, because the server is; their clients are told to send them again."""
        self._closed = True
        for scope in list(self._coming):
            scope.cancel()

    async def recover(self) -> None:
        """After a start: finish what a server has begun to write down, and remove the parts that nobody needs."""
        for upload_id in list(self._pending):
            try:
                await self._finished(self.get(upload_id))
            except TunesmithError as error:  # it is looked at again when it is asked for, or expires
                _log.warning("upload_in_parts_not_finished", upload_id=upload_id, reason=str(error))
        await self._files.in_thread(partial(self._files.sweep, self._pending.__contains__))

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled: end those that nobody has completed in time."""
        task_status.started()
        while True:
            now = self._clock()
            for upload_id in [key for key, expires_at in self._pending.items() if expires_at <= now]:
                try:
                    await self._expire(upload_id)
                except TunesmithError as error:
                    _log.warning("upload_in_parts_not_ended", upload_id=upload_id, reason=str(error))
            await anyio.sleep(_LOOK_EVERY_SECONDS)

    async def _expire(self, upload_id: str) -> None:
        lock = self._lock(upload_id)
        if lock.locked():
            return  # it is just being completed, or a part comes in; looked at again in a moment
        async with lock:
            upload = await self._finished(self.get(upload_id))
            if upload.status is _PENDING:
                await self._end(upload, UploadInPartsStatus.EXPIRED)


def _shutting_down() -> Unavailable:
    return Unavailable("the service is shutting down; nothing of the part was kept", mend="send it again in a moment")
