"""Datasets: created, found, listed, deleted; and what must not happen to their files while a run uses them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog

from tunesmith.datasets.configs import ChosenConfig, TrainConfigs
from tunesmith.datasets.uploads import Received, UploadService
from tunesmith.errors import Conflict, InvalidInput, NotFound, TunesmithError
from tunesmith.journal import PAGE_BYTES, Entry, Journal, newest_first, page_of
from tunesmith.recipes.notes import check_notes
from tunesmith.recipes.suggest import nearest, shortened
from tunesmith.records import Clock, Dataset, IdempotentCall, Run, TrainConfigFile, new_id

_log = structlog.get_logger()
_MOST_FILES = 1000
_MOST_FILES_ON_A_PAGE = 2000
_LEAST_BYTES_OF_A_FILE = PAGE_BYTES // _MOST_FILES_ON_A_PAGE
"""A page counts so much for each, also where its record is shorter."""
_MOST_COMPARED = 500
"""Comparing names takes time: a wrong one is compared with the latest."""
_READ_AS_PATHS = ("/", "./", "../", "~")

Name = Annotated[str, msgspec.Meta(max_length=500)]
Text = Annotated[str, msgspec.Meta(max_length=20_000)]


class DatasetSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every dataset."""

    name: str
    deleted_at: datetime | None = None
    idempotency: IdempotentCall | None = None


class DatasetRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dataset as a client asks for it."""

    name: Name
    """Runs may name the dataset by it, so no other may have it."""
    type: Name = ""
    source: Text = ""
    task_type: Name = ""
    description: Text = ""
    metadata: dict[str, Any] = {}
    """Whatever is worth knowing: description, version, records, license, tags, language, ..."""


class DatasetPage(msgspec.Struct, frozen=True):
    """Newest first; ``cursor`` is None on the last page."""

    datasets: list[Dataset]
    cursor: str | None


class DatasetService:
    """All datasets, and the way to change what is in them."""

    def __init__(
        self,
        *,
        journal: Journal[Dataset, DatasetSummary],
        uploads: UploadService,
        configs: TrainConfigs,
        unfinished: Callable[[], Iterable[Run]],
        clock: Clock,
        other_users: Callable[[Collection[str]], list[str]] = lambda _: [],
    ) -> None:
        """``other_users`` tells who else than unfinished runs uses some of these uploads."""
        self._journal = journal
        self._uploads = uploads
        self._configs = configs
        self._unfinished = unfinished
        self._clock = clock
        self._other_users = other_users
        self._order = list(journal.summaries)
        self._by_name = {one.name: key for key, one in journal.summaries.items() if one.deleted_at is None}
        self._creating: set[str] = set()
        """Names on their way to the disk."""
        self._leaving: set[str] = set()
        """Datasets that are about to be deleted: already gone for whoever asks."""
        journal.on_commit(self._committed)

    def _committed(self, _entry: Entry, dataset: Dataset, previous: DatasetSummary | None) -> None:
        if previous is None:
            self._order.append(dataset.id)
        if dataset.deleted_at is None:
            self._by_name[dataset.name] = dataset.id
        elif self._by_name.get(dataset.name) == dataset.id:
            del self._by_name[dataset.name]

    def __contains__(self, dataset_id: str) -> bool:
        summary = self._journal.summary(dataset_id)
        return summary is not None and summary.deleted_at is None and dataset_id not in self._leaving

    def was_ever(self, dataset_id: str) -> bool:
        """Whether it is or was on record."""
        return dataset_id in self._journal

    async def create(
        self, request: DatasetRequest, idempotency: IdempotentCall | None = None, dataset_id: str | None = None
    ) -> Dataset:
        """A new dataset, empty unless there are uploads for its id already.

        Raises:
            InvalidInput: a name that is empty or would be read as a path, or metadata that no reader could take.
            Conflict: another dataset has the name.
        """
        _check(request)
        if request.name in self._by_name or request.name in self._creating or request.name in self._journal:
            raise Conflict(
                f"there is a dataset {request.name!r} already", where="name", mend="choose another, or delete that one"
            )
        self._creating.add(request.name)
        try:
            dataset = Dataset(
                id=dataset_id or new_id("ds"),
                created_at=self._clock(),
                idempotency=idempotency,
                **msgspec.structs.asdict(request),
            )
            await self._journal.append("created", dataset)
        finally:
            self._creating.discard(request.name)
        return dataset

    def get(self, dataset_id: str) -> Dataset:
        """Raises NotFound, also for one that was deleted."""
        dataset = self._journal.get(dataset_id) if dataset_id in self else None
        if dataset is None:
            raise NotFound(f"there is no dataset {dataset_id!r}", mend="GET /api/v1/datasets lists them")
        return dataset

    def find(self, reference: str) -> Dataset:
        """The dataset with this id or name; ids win, and no two datasets that are there have one name.

        Raises:
            NotFound: there is none, or it was deleted.
        """
        found = self.id_of(reference)
        if found is None:
            close = nearest(reference, list(self._by_name)[-_MOST_COMPARED:])
            raise NotFound(
                f"there is no dataset {shortened(reference)!r}",
                mend=(f"did you mean {close}? " if close else "") + "GET /api/v1/datasets lists them",
            )
        return self.get(found)

    def id_of(self, reference: str) -> str | None:
        """The dataset that goes by this id or name, if there is one. Also to be asked from threads."""
        found = reference if reference in self else self._by_name.get(reference)
        return found if found is not None and found in self else None

    def files_of(self, reference: str) -> list[tuple[str, Path]] | None:
        """Names and paths of the files of the dataset with this id or name; None: there is no such dataset.

        Of several with one name, the newest. Also to be asked from threads.
        """
        dataset_id = self.id_of(reference)
        if dataset_id is None:
            return None
        newest = {one.name: key for key, one in self._uploads.summaries_of(dataset_id)}
        return [(name, self._uploads.path(key)) for name, key in newest.items()]

    def config_for(self, reference: str | None, recipe: str) -> ChosenConfig | None:
        """The train config of a run that names none; ``reference`` is how it names its dataset."""
        return self._configs.chosen_for(self.id_of(reference) if reference is not None else None, recipe)

    def totals(self, dataset_id: str) -> tuple[int, int]:
        """How many files it has, and how many bytes they take."""
        found = self._uploads.summaries_of(dataset_id)
        return len(found), sum(summary.bytes for _, summary in found)

    def page(self, *, limit: int, cursor: str | None = None, names: Collection[str] = ()) -> DatasetPage:
        """Up to ``limit`` datasets, newest first; fewer when they hold much or very many files. A cursor stays valid for ever.

        With names, those of them that there are.
        """
        named = {self._by_name.get(name) for name in names}
        positions = (
            position
            for position in newest_first(self._order, cursor)
            if (one := self._order[position]) in self and (not names or one in named)
        )
        page = page_of(self._journal, self._order, positions, limit=limit, more_bytes=self._bytes_of_files)
        return DatasetPage([self.get(one) for one in page.ids], page.cursor)

    def _bytes_of_files(self, dataset_id: str) -> int:
        return sum(max(size, _LEAST_BYTES_OF_A_FILE) for size in self._uploads.record_sizes(dataset_id))

    async def receive(
        self, dataset_id: str, name: str, chunks: AsyncIterable[bytes], call: IdempotentCall | None = None
    ) -> Received:
        """Put one more file into a dataset, or find the one that the same call has put there.

        Raises:
            NotFound: no such dataset.
            Conflict: it holds as many files as it may.
            TunesmithError: whatever ``UploadService.receive`` raises.
        """
        self.get(dataset_id)
        files = len(self._uploads.ids_of(dataset_id)) + len(self._uploads.in_flight(dataset_id))
        if files >= _MOST_FILES and not self._uploads.is_repeat(call):
            raise Conflict(
                f"the dataset holds {_MOST_FILES} files, and no more may be in one",
                where="dataset_id",
                mend="put more rows into each file, or make another dataset",
            )
        # Nothing is awaited up to where the upload is known to be in flight: a deletion sees it, or it sees the deletion.
        return await self._uploads.receive(dataset_id, name, chunks, call)

    async def remove_upload(self, upload_id: str) -> None:
        """Stop an upload that is coming in, or remove one that is there.

        Raises:
            NotFound: there is none.
            Conflict: an unfinished run uses it.
        """
        stopped = await self._uploads.stop(upload_id)
        if stopped and upload_id not in self._uploads:
            return
        upload = self._uploads.get(upload_id)
        with self._uploads.leaving([upload_id]):
            self._refuse_if_used([upload_id], f"upload {upload_id}")
            await self._uploads.remove(upload.id)

    async def delete(self, dataset_id: str) -> Dataset:
        """Delete a dataset with its files and its train config; what is coming in for it is stopped.

        Raises:
            NotFound: no such dataset.
            Conflict: an unfinished run uses it.
            OutOfSpace: it could not be written down; nothing was deleted.
        """
        dataset = self.get(dataset_id)
        self._leaving.add(dataset_id)
        try:
            self._refuse_if_used(self._uploads.ids_of(dataset_id), f"dataset {dataset_id}")
            deleted = msgspec.structs.replace(dataset, deleted_at=self._clock())
            await self._journal.append("deleted", deleted)
        finally:
            self._leaving.discard(dataset_id)
        # It is gone now. What follows is finished by the next start, should this one not come to it.
        await self._uploads.remove_all_of(dataset_id)
        await self._remove_config(dataset_id)
        _log.info("dataset_deleted", dataset_id=dataset_id)
        return deleted

    async def put_train_config(self, dataset_id: str, filename: str, content: bytes) -> TrainConfigFile:
        """Raises NotFound for the dataset, and what ``TrainConfigs.put`` raises."""
        self.get(dataset_id)
        config = await self._configs.put(dataset_id, filename, content)
        if dataset_id not in self:  # deleted while the config was checked
            await self._remove_config(dataset_id)
            self.get(dataset_id)
        return config

    async def _remove_config(self, dataset_id: str) -> None:
        """Of a dataset whose deletion is on record."""
        if self._configs.find(dataset_id) is not None:
            try:
                await self._configs.remove(dataset_id)
            except TunesmithError as error:
                _log.warning("train_config_not_removed", dataset_id=dataset_id, reason=str(error))

    async def recover(self) -> None:
        """After a start, before anybody is served: finish what a crash has cut short."""
        await self._uploads.recover(self._was_deleted)
        await self._configs.recover(self._was_deleted)

    def _was_deleted(self, dataset_id: str) -> bool:
        # Not the same as being unknown: the record of a dataset may have been lost with a damaged journal, not its files.
        summary = self._journal.summary(dataset_id)
        return summary is not None and summary.deleted_at is not None

    def _refuse_if_used(self, upload_ids: list[str], what: str) -> None:
        users = [run.id for run in self._unfinished() if _uses(run, upload_ids)] + self._other_users(upload_ids)
        if users:
            raise Conflict(
                f"{what} is used by {', '.join(users[:10])}" + (" and others" if len(users) > 10 else ""),
                mend="wait until these are over, or cancel them",
            )


def _uses(run: Run, upload_ids: list[str]) -> bool:
    # The id is part of every path to the upload, whether the run was given it by us or wrote it into its config.
    named = msgspec.json.encode((run.dataset, run.hyperparams, run.labels)).decode()
    return any(upload_id in named for upload_id in upload_ids)


def _check(request: DatasetRequest) -> None:
    if not request.name.strip():
        raise InvalidInput("must not be empty", where="name", mend="give it some text")
    if request.name.startswith(_READ_AS_PATHS):
        raise InvalidInput(
            "would be read as a path where a run names its dataset", where="name", mend="begin it with a letter"
        )
    check_notes(request.metadata, "metadata", instead="upload it as a file of the dataset")
