"""Files that come alone, as OpenAI's clients send them: each gets a dataset of its own, which other doors see as any other.

The dataset's id is that of the upload under another prefix, so the two are found from each other, and a server that ended
between them finishes what it began.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator

import anyio
import anyio.abc
import anyio.lowlevel
import structlog

from tunesmith.datasets.arrival import Judge
from tunesmith.datasets.service import DatasetRequest, DatasetService
from tunesmith.datasets.uploads import Received, UploadService
from tunesmith.errors import Conflict, NotFound, TunesmithError
from tunesmith.records import Clock, new_id

_log = structlog.get_logger()
_PREFIX, _OF_FILES, _OF_DATASETS = "upl_", "file-", "ds_"
_TYPE = "file"
_LOOK_EVERY_SECONDS = 30.0
_UPLOADS_PER_TURN = 1000


class SingleFiles:
    """Puts single files there, removes them, and ends those that are past their time."""

    def __init__(self, datasets: DatasetService, uploads: UploadService, clock: Clock) -> None:
        self._datasets = datasets
        self._uploads = uploads
        self._clock = clock
        self._giving = anyio.Lock()
        """Held while it is looked whether a file has its dataset, until it has."""

    async def put(
        self, name: str, chunks: AsyncIterable[bytes], judge: Judge, upload_id: str | None = None
    ) -> Received:
        """Take in a file, under an id that the caller has made for it. Raises what ``UploadService.receive`` raises.

        OutOfSpace may also mean that the file is on record, but not its dataset: the same file again gets one.
        """
        upload_id = upload_id or new_id(_PREFIX.rstrip("_"))
        received = await self._uploads.receive(_dataset_of(upload_id), name, chunks, judge=judge, upload_id=upload_id)
        with anyio.CancelScope(shield=True):
            await self._give_dataset(received.upload.id)
        return received

    async def _give_dataset(self, upload_id: str) -> None:
        """Unless it is one of a dataset of another door, or had one, or was removed meanwhile."""
        async with self._giving:
            if not self._lacks_dataset(upload_id):
                return
            upload = self._uploads.get(upload_id)
            request = DatasetRequest(
                name=_OF_FILES + upload.id.removeprefix(_PREFIX),
                type=_TYPE,
                description=upload.name,
                metadata={"purpose": upload.purpose},
            )
            await self._datasets.create(request, dataset_id=upload.dataset_id)

    def _lacks_dataset(self, upload_id: str) -> bool:
        own = _dataset_of(upload_id)
        return (
            upload_id in self._uploads
            and self._uploads.dataset_of(upload_id) == own
            and not self._datasets.was_ever(own)
        )

    async def remove(self, upload_id: str) -> None:
        """Remove a file, with its dataset if that was made for it alone.

        Raises:
            NotFound: there is none.
            Conflict: an unfinished run uses it.
        """
        upload = self._uploads.get(upload_id)
        alone = upload.dataset_id == _dataset_of(upload_id) and len(self._uploads.ids_of(upload.dataset_id)) == 1
        if alone and upload.dataset_id in self._datasets:
            await self._datasets.delete(upload.dataset_id)
        else:
            await self._datasets.remove_upload(upload_id)

    async def recover(self) -> None:
        """Give those a dataset that a server has put on record in its last moment, or when the disk was full."""
        async for upload_id in self._in_turns():
            if not self._lacks_dataset(upload_id):
                continue
            try:
                await self._give_dataset(upload_id)
            except (TunesmithError, OSError) as error:  # a later look will, and until then it is a file all the same
                _log.warning("file_without_dataset", upload_id=upload_id, reason=str(error))

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled: remove what is past its time, and give a dataset to what has none yet.

        What a run uses stays until that is over.
        """
        task_status.started()
        while True:
            await self.recover()
            async for upload_id in self._in_turns():
                if self._is_expired(upload_id):
                    with contextlib.suppress(Conflict, NotFound):
                        await self._expire(upload_id)
            await anyio.sleep(_LOOK_EVERY_SECONDS)

    async def _in_turns(self) -> AsyncIterator[str]:
        """All uploads there are now; others get their turn in between, for there may be very many."""
        for number, upload_id in enumerate(list(self._uploads.sorted_ids), start=1):
            yield upload_id
            if number % _UPLOADS_PER_TURN == 0:
                await anyio.lowlevel.checkpoint()

    def _is_expired(self, upload_id: str) -> bool:
        expires_at = self._uploads.summary_of(upload_id).expires_at
        return expires_at is not None and expires_at <= self._clock()

    async def _expire(self, upload_id: str) -> None:
        try:
            await self.remove(upload_id)
        except (Conflict, NotFound):
            raise
        except TunesmithError as error:
            _log.warning("expired_file_not_removed", upload_id=upload_id, reason=str(error))


def upload_named(reference: str) -> str:
    """The id of the upload that is meant, which may be written as that of a file, ``file-...``."""
    return _PREFIX + reference.removeprefix(_OF_FILES) if reference.startswith(_OF_FILES) else reference


def _dataset_of(upload_id: str) -> str:
    return _OF_DATASETS + upload_id.removeprefix(_PREFIX)
