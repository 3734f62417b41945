"""Uploads: bytes come in and are on disk with their hash before they are on record; until then nobody sees them.

What client programs call their files is data only: folders and files get names made here.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog

from tunesmith.datasets.arrival import Arrived, Details, Judge, no_details
from tunesmith.datasets.sink import PART, Sink
from tunesmith.errors import Conflict, InvalidInput, NotFound, OutOfSpace, TooLarge, TunesmithError, Unavailable
from tunesmith.files import NO_ROOM, set_aside
from tunesmith.idempotency import IdempotentCalls
from tunesmith.journal import Entry, Journal
from tunesmith.paths import StatePaths
from tunesmith.records import Clock, FileCheck, IdempotentCall, Upload, new_id

_log = structlog.get_logger()
_T = TypeVar("_T")
_PREFIX = "upl"
_STORED_NAMES = {".jsonl": "data.jsonl", ".ndjson": "data.jsonl", ".json": "data.json"}
_OTHERWISE = "data.bin"
# Large enough that going to a thread costs little beside the write, small enough that 20 uploads hold next to nothing.
_BLOCK = 256 * 1024
_THREADS = 4


class CheckMark(msgspec.Struct, frozen=True):
    """That somebody has looked at the file."""


class UploadSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every upload."""

    dataset_id: str
    name: str
    stored_name: str
    bytes: int
    purpose: str = ""
    expires_at: datetime | None = None
    check: CheckMark | None = None
    deleted_at: datetime | None = None
    idempotency: IdempotentCall | None = None


class Received(NamedTuple):
    """An upload that is on record: it just came in, or the same call has put it there before."""

    upload: Upload
    replaces: list[str]
    """The uploads of the same name that it found in its dataset, oldest first: they do not count beside it."""
    is_new: bool = True


class InFlight(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that is coming in."""

    upload_id: str
    name: str
    bytes: int
    """So far."""


class _Flight:
    """An upload that is coming in, and how to stop it."""

    def __init__(self, upload_id: str, dataset_id: str, name: str, call: IdempotentCall | None, judge: Judge) -> None:
        self.id = upload_id
        self.judge = judge
        self.dataset_id = dataset_id
        self.name = name
        self.call = call
        self.bytes = 0
        self.scope = anyio.CancelScope()
        self.over = asyncio.Event()


class UploadService:
    """All uploads: those on record, and those that are coming in."""

    def __init__(
        self, journal: Journal[Upload, UploadSummary], paths: StatePaths, calls: IdempotentCalls, clock: Clock
    ) -> None:
        """``calls`` follows the journal."""
        self._journal = journal
        self._paths = paths
        self._calls = calls
        self._clock = clock
        self._live: defaultdict[str, dict[str, None]] = defaultdict(dict)
        """The ids of each dataset's uploads, oldest first."""
        self._sorted: list[str] = []
        """The ids of all uploads that are there, by when they began."""
        self._flights: dict[str, _Flight] = {}
        self._closed = False
        self._changing = asyncio.Lock()
        """Held while a record is read, changed and written."""
        self._judging = asyncio.Lock()
        """Held while it is decided whether an upload is one more, until it is on record."""
        self._leaving: set[str] = set()
        """Uploads that are about to be removed: already gone for whoever asks."""
        # Few and their own: each thread keeps some memory, and a slow disk must not take the threads of everybody else.
        self._threads = anyio.CapacityLimiter(_THREADS)
        for upload_id, summary in journal.summaries.items():
            self._index(upload_id, summary)
        journal.on_commit(self._committed)

    def _index(self, upload_id: str, summary: UploadSummary) -> None:
        place = bisect_left(self._sorted, upload_id)
        is_listed = self._sorted[place : place + 1] == [upload_id]
        if summary.deleted_at is None:
            self._live[summary.dataset_id][upload_id] = None
            if not is_listed:
                self._sorted.insert(place, upload_id)
            return
        if is_listed:
            del self._sorted[place]
        if summary.dataset_id in self._live:
            self._live[summary.dataset_id].pop(upload_id, None)

    def _committed(self, _entry: Entry, upload: Upload, _previous: UploadSummary | None) -> None:
        self._index(upload.id, self._journal.summaries[upload.id])

    def __contains__(self, upload_id: str) -> bool:
        summary = self._journal.summary(upload_id)
        return summary is not None and summary.deleted_at is None and upload_id not in self._leaving

    def get(self, upload_id: str) -> Upload:
        """Raises NotFound, also for one that was removed."""
        upload = self._journal.get(upload_id) if upload_id in self else None
        if upload is None:
            raise NotFound(
                f"there is no upload {upload_id!r}", mend="GET /api/v1/datasets/{id} lists a dataset's files"
            )
        return upload

    def get_in(self, dataset_id: str, upload_id: str) -> Upload:
        """Raises NotFound, also for one that is in another dataset."""
        upload = self.get(upload_id)
        if upload.dataset_id != dataset_id:
            raise NotFound(f"dataset {dataset_id} has no upload {upload_id!r}")
        return upload

    def ids_of(self, dataset_id: str) -> list[str]:
        """The dataset's uploads, oldest first."""
        return [upload_id for upload_id in list(self._live.get(dataset_id, ())) if upload_id not in self._leaving]

    def of(self, dataset_id: str) -> list[Upload]:
        return [self.get(upload_id) for upload_id in self.ids_of(dataset_id)]

    def summaries_of(self, dataset_id: str) -> list[tuple[str, UploadSummary]]:
        """Ids and summaries, oldest first; also to be asked from threads."""
        return [(upload_id, self._journal.summaries[upload_id]) for upload_id in self.ids_of(dataset_id)]

    def record_sizes(self, dataset_id: str) -> list[int]:
        """Bytes of the record of each of the dataset's uploads, not of its file."""
        return [self._journal.size_of(upload_id) for upload_id in self.ids_of(dataset_id)]

    @property
    def sorted_ids(self) -> Sequence[str]:
        """Those of all uploads that are there, of every dataset, by when they began. Not to be kept over an await."""
        return self._sorted

    def was_ever(self, upload_id: str) -> bool:
        """Whether it is or was on record."""
        return upload_id in self._journal

    def summary_of(self, upload_id: str) -> UploadSummary:
        """What is known of an upload without reading its record."""
        return self._journal.summaries[upload_id]

    async def note_check(self, upload_id: str, check: FileCheck) -> Upload:
        """Put on record what a look at the rows of its file has found.

        Raises:
            NotFound: it was removed meanwhile.
        """
        async with self._changing:
            checked = msgspec.structs.replace(self.get(upload_id), check=check)
            await self._journal.append("checked", checked)
        return checked

    def named(self, name: str) -> list[str]:
        """The uploads that clients gave this name, in any dataset, newest first."""
        found = [upload_id for live in list(self._live.values()) for upload_id in list(live)]
        return sorted((one for one in found if one in self and self._journal.summaries[one].name == name), reverse=True)

    def dataset_of(self, upload_id: str) -> str:
        return self._journal.summaries[upload_id].dataset_id

    def path(self, upload_id: str) -> Path:
        """Where its bytes are; absolute."""
        return (self._folder(upload_id) / self._journal.summaries[upload_id].stored_name).absolute()

    def in_own_names(self, text: str) -> str:
        """A message in which every path to an upload is replaced by the name that its owner gave the file."""
        folders = {str(self._paths.uploads_folder.absolute()), str(self._paths.uploads_folder.resolve())}
        path = f"(?:{'|'.join(map(re.escape, folders))})/({_PREFIX}_[0-9a-z]{{26}})/data\\.[a-z]+"
        return re.sub(path, lambda found: self._own_name(found[1]) or found[0], text)

    def _own_name(self, upload_id: str) -> str | None:
        """Also of one that was removed."""
        summary = self._journal.summary(upload_id)
        return summary.name if summary is not None else None

    def folder(self, upload_id: str) -> Path:
        """What only this upload's bytes lie below; absolute."""
        return self._folder(upload_id).absolute()

    def _folder(self, upload_id: str) -> Path:
        return self._paths.uploads_folder / upload_id

    def in_flight(self, dataset_id: str) -> list[InFlight]:
        """What is coming in for a dataset, in the order it began."""
        return [
            InFlight(upload_id=flight.id, name=flight.name, bytes=flight.bytes)
            for flight in self._flights.values()
            if flight.dataset_id == dataset_id
        ]

    def is_repeat(self, call: IdempotentCall | None) -> bool:
        """Whether an upload with this key is on record, or coming in: then this one will not be one more."""
        return call is not None and (
            self._calls.knows(call) or any(flight.call == call for flight in self._flights.values())
        )

    async def receive(
        self,
        dataset_id: str,
        name: str,
        chunks: AsyncIterable[bytes],
        call: IdempotentCall | None = None,
        judge: Judge = no_details,
        upload_id: str | None = None,
    ) -> Received:
        """Take in one file. Whatever goes wrong, nothing of it stays.

        Args:
            dataset_id: the dataset it is for.
            name: as the client calls it.
            chunks: its bytes.
            call: without the hash of the request, which is known when all of it has come in. If the same call has made an
                upload before, that one is answered and nothing of this one stays.
            judge: says what else is to be on record, or which upload this one is the same as.
            upload_id: a new id that the caller has made for it.

        Raises:
            InvalidInput: the name is empty.
            Conflict: it was stopped on the way, by ``stop``, or the key has made an upload of another name or other bytes.
            NotFound: what the same call made was deleted since.
            Unavailable: it was stopped on the way, by ``close``.
            OutOfSpace: the disk is full.
            Exception: whatever ``chunks`` or ``judge`` raises.
        """
        if not name.strip():
            raise InvalidInput("has an empty name", where="file", mend="send the file with its name")
        if self._closed:
            raise _shutting_down()
        return await self._receive(_Flight(upload_id or new_id(_PREFIX), dataset_id, name, call, judge), chunks)

    async def _receive(self, flight: _Flight, chunks: AsyncIterable[bytes]) -> Received:
        self._flights[flight.id] = flight
        received: Received | None = None
        try:
            with flight.scope:
                received = await self._take_in(flight, chunks)
        finally:
            del self._flights[flight.id]
            flight.over.set()
        if received is None and self._closed:
            raise _shutting_down()
        if received is None:
            raise Conflict(f"upload {flight.id} was stopped on the way; nothing of it was kept", where="file")
        return received

    async def _take_in(self, flight: _Flight, chunks: AsyncIterable[bytes]) -> Received:
        stored_name = _STORED_NAMES.get(PurePosixPath(flight.name).suffix.lower(), _OTHERWISE)
        sink = Sink(self._folder(flight.id), stored_name)
        try:
            with _room_for_it():
                await self._in_thread(sink.open)
                await self._pour(flight, sink, chunks)
        except BaseException:
            await self._discard(sink)
            raise
        return await self._keep_once(flight, sink)

    async def _pour(self, flight: _Flight, sink: Sink, chunks: AsyncIterable[bytes]) -> None:
        block = bytearray()
        async for chunk in chunks:
            flight.bytes += len(chunk)
            block += chunk
            if len(block) >= _BLOCK:
                await self._in_thread(partial(sink.write, block))
                block = bytearray()
        if block:
            await self._in_thread(partial(sink.write, block))

    async def _keep_once(self, flight: _Flight, sink: Sink) -> Received:
        # All of it is here. Whoever stops it now waits until it is clear whether it is on record.
        with anyio.CancelScope(shield=True):
            async with self._judging if flight.judge is not no_details else nullcontext():
                try:
                    arrived = Arrived(name=flight.name, bytes=sink.bytes, sha256=sink.sha256, at=self._clock())
                    details = flight.judge(arrived)
                except BaseException:
                    await self._discard(sink)
                    raise
                same = details.instead
                if same is None:
                    return await self._keep_first(flight, sink, details)
            await self._discard(sink)
        assert same is not None
        return Received(same, [], is_new=False)

    async def _keep_first(self, flight: _Flight, sink: Sink, details: Details) -> Received:
        """Unless the same call has made one before."""
        call = _with_hash(flight.call, flight.name, sink.sha256)
        is_kept = False

        async def keep() -> Upload:
            nonlocal is_kept
            is_kept = True  # and if it fails, discarded there: it may go on when nobody waits for it here any more
            return await self._keep(flight, sink, call, details)

        try:
            upload, is_new = await self._calls.once(call, keep, self._made_before)
        finally:
            if not is_kept:
                await self._discard(sink)
        return Received(upload, self._older(upload) if is_new else self._older_at_first(upload))

    def _made_before(self, upload_id: str) -> Upload:
        if upload_id not in self:
            raise NotFound(
                f"upload {upload_id}, which this key made, was deleted",
                where="Idempotency-Key",
                mend="use a new key to put the file there again",
            )
        return self.get(upload_id)

    def _older(self, upload: Upload) -> list[str]:
        same = [key for key, one in self.summaries_of(upload.dataset_id) if one.name == upload.name]
        return same[: same.index(upload.id)] if upload.id in same else []

    def _older_at_first(self, upload: Upload) -> list[str]:
        """What ``_older`` was when the upload had just come in: some of them may have been deleted since."""
        before = takewhile(lambda one: one[0] != upload.id, self._journal.summaries.items())
        return [
            key
            for key, one in before
            if (one.dataset_id, one.name) == (upload.dataset_id, upload.name)
            and (one.deleted_at is None or one.deleted_at >= upload.uploaded_at)
        ]

    async def _keep(self, flight: _Flight, sink: Sink, call: IdempotentCall | None, details: Details) -> Upload:
        try:
            with _room_for_it():
                await self._in_thread(sink.commit)
        except BaseException:
            await self._discard(sink)
            raise
        return await self._record(flight, sink, call, details)

    async def _record(self, flight: _Flight, sink: Sink, call: IdempotentCall | None, details: Details) -> Upload:
        now = self._clock()
        kept = timedelta(seconds=details.keep_seconds) if details.keep_seconds is not None else None
        upload = Upload(
            id=flight.id,
            dataset_id=flight.dataset_id,
            name=flight.name,
            stored_name=sink.stored_name,
            bytes=sink.bytes,
            sha256=sink.sha256,
            uploaded_at=now,
            purpose=details.purpose,
            expires_at=now + kept if kept is not None else None,
            caller=details.caller,
            idempotency=call,
        )
        try:
            await self._journal.append("uploaded", upload)
        except (OutOfSpace, InvalidInput, TooLarge):
            # Surely not on record. (After anything else it may be, and then the next server needs the folder.)
            await self._discard(sink)
            raise
        _log.info("upload_received", upload_id=upload.id, dataset_id=upload.dataset_id, bytes=upload.bytes)
        return upload

    async def _discard(self, sink: Sink) -> None:
        with anyio.CancelScope(shield=True):
            await self._in_thread(sink.discard)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def stop(self, upload_id: str) -> bool:
        """Stop one that is coming in and wait until nothing of it is left; whether there was one.

        One that became whole in the meantime is on record afterwards.
        """
        flight = self._flights.get(upload_id)
        if flight is None:
            return False
        flight.scope.cancel()
        await flight.over.wait()
        return True

    def close(self) -> None:
        """Stop whatever is coming in, because the server is; its clients are told to send it again."""
        self._closed = True
        for flight in list(self._flights.values()):
            flight.scope.cancel()

    @contextmanager
    def leaving(self, upload_ids: list[str]) -> Iterator[None]:
        """While this is entered, they are gone for whoever asks, though still on record."""
        self._leaving.update(upload_ids)
        try:
            yield
        finally:
            self._leaving.difference_update(upload_ids)

    async def remove(self, upload_id: str) -> None:
        """Remove one that is on record. The record says so first: a removal that is cut short is finished by ``recover``.

        Raises:
            OutOfSpace: it could not be written down; nothing was removed.
        """
        await self._record_removal(upload_id)
        await self._delete_folder(upload_id)

    async def remove_all_of(self, dataset_id: str) -> None:
        """Remove whatever belongs to a dataset whose deletion is on record, and stop what is coming in for it.

        That a single removal cannot be written down keeps no byte on the disk; the next start writes it down.
        """
        await asyncio.gather(*(self.stop(one.upload_id) for one in self.in_flight(dataset_id)))
        await asyncio.gather(*(self._remove_orphan(upload_id) for upload_id in self.ids_of(dataset_id)))

    async def _remove_orphan(self, upload_id: str) -> None:
        await self._delete_folder(upload_id)
        try:
            await self._record_removal(upload_id)
        except TunesmithError as error:
            _log.warning("upload_removal_not_recorded", upload_id=upload_id, reason=str(error))

    async def _record_removal(self, upload_id: str) -> None:
        async with self._changing:
            upload = self._journal.get(upload_id)
            assert upload is not None
            await self._journal.append("deleted", msgspec.structs.replace(upload, deleted_at=self._clock()))

    async def _delete_folder(self, upload_id: str) -> None:
        await self._in_thread(partial(shutil.rmtree, self._folder(upload_id), ignore_errors=True))

    async def recover(self, was_deleted: Callable[[str], bool]) -> None:
        """After a start: remove what belonged to datasets that were deleted, and what a crash has left of uploads that were
        coming in. Whatever else has no record is set aside: it may have had one.
        """
        for dataset_id in [dataset_id for dataset_id in list(self._live) if was_deleted(dataset_id)]:
            await self.remove_all_of(dataset_id)
        await self._in_thread(self._sweep)

    def _sweep(self) -> None:
        for entry in list(self._paths.uploads_folder.iterdir()):
            if not entry.name.startswith(f"{_PREFIX}_") or entry.name in self or entry.is_symlink():
                continue
            if entry.name in self._journal or _is_unfinished(entry):
                _log.info("upload_leftover_removed", upload_id=entry.name)
                shutil.rmtree(entry, ignore_errors=True)
            else:
                _set_aside(entry, self._paths.root)


def _with_hash(call: IdempotentCall | None, name: str, sha256: str) -> IdempotentCall | None:
    """Two uploads under one key are the same request if the names and the bytes are."""
    if call is None:
        return None
    request = msgspec.json.encode({"name": name, "sha256": sha256})
    return msgspec.structs.replace(call, request_sha256=hashlib.sha256(request).hexdigest())


def _is_unfinished(folder: Path) -> bool:
    """Whether there is nothing in it but what was still coming in."""
    return folder.is_dir() and all(entry.name.endswith(PART) for entry in folder.iterdir())


def _set_aside(entry: Path, state: Path) -> None:
    try:
        _log.warning("upload_without_record_set_aside", upload_id=entry.name, now=str(set_aside(entry, state)))
    except OSError as error:
        _log.warning("upload_without_record_kept", folder=str(entry), reason=error.strerror)


def _shutting_down() -> Unavailable:
    return Unavailable("the service is shutting down; nothing of the file was kept", mend="send it again in a moment")


@contextmanager
def _room_for_it() -> Iterator[None]:
    """Say of a full disk what it means here."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OutOfSpace(
            "the state disk is full; nothing of the file was kept",
            where="file",
            mend="free some space on the disk of the state folder, or delete datasets, then send it again",
        ) from error
