"""Files that come alone, as OpenAI's clients send them: each gets a dataset of its own, which other doors see as any other.

The dataset's id is that of the upload under another prefix, so the two are found from each other, and a server that ended
between them finishes what it began.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, Iterator

import anyio
import anyio.abc
import structlog

from tunesmith.datasets.arrival import Judge
from tunesmith.datasets.service import DatasetRequest, DatasetService
from tunesmith.datasets.uploads import Received, UploadService
from tunesmith.errors import Conflict, NotFound, TunesmithError
from tunesmith.records import Clock, Upload, new_id

_log = structlog.get_logger()
_PREFIX, _OF_FILES, _OF_DATASETS = "upl_", "file-", "ds_"
_TYPE = "file"
_LOOK_EVERY_SECONDS = 30.0


class SingleFiles:
    """Puts single files there, removes them, and ends those that are past their time."""

    def __init__(self, datasets: DatasetService, uploads: UploadService, clock: Clock) -> None:
        self._datasets = datasets
        self._uploads = uploads
        self._clock = clock

    async def put(
        self, name: str, chunks: AsyncIterable[bytes], judge: Judge, upload_id: str | None = None
    ) -> Received:
        """Take in a file, under an id that the caller has made for it. Raises what ``UploadService.receive`` raises."""
        upload_id = upload_id or new_id(_PREFIX.rstrip("_"))
        received = await self._uploads.receive(_dataset_of(upload_id), name, chunks, judge=judge, upload_id=upload_id)
        if received.is_new:
            with anyio.CancelScope(shield=True):
                await self._give_dataset(received.upload)
        return received

    async def _give_dataset(self, upload: Upload) -> None:
        request = DatasetRequest(
            name=_OF_FILES + upload.id.removeprefix(_PREFIX),
            type=_TYPE,
            description=upload.name,
            metadata={"purpose": upload.purpose},
        )
        await self._datasets.create(request, dataset_id=upload.dataset_id)

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
        """After a start: give those a dataset that a server has put on record in its last moment."""
        for upload_id in list(self._uploads.sorted_ids):
            summary = self._uploads.summary_of(upload_id)
            if summary.dataset_id == _dataset_of(upload_id) and not self._datasets.was_ever(summary.dataset_id):
                try:
                    await self._give_dataset(self._uploads.get(upload_id))
                except TunesmithError as error:  # the next start will, and until then it is a file all the same
                    _log.warning("file_without_dataset", upload_id=upload_id, reason=str(error))

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled: remove what is past its time. What a run uses stays until that is over."""
        task_status.started()
        while True:
            for upload_id in list(self._expired()):
                with contextlib.suppress(Conflict, NotFound):
                    await self._expire(upload_id)
            await anyio.sleep(_LOOK_EVERY_SECONDS)

    def _expired(self) -> Iterator[str]:
        now = self._clock()
        for upload_id in self._uploads.sorted_ids:
            expires_at = self._uploads.summary_of(upload_id).expires_at
            if expires_at is not None and expires_at <= now:
                yield upload_id

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
