"""The datasets door: datasets, the files put into them, and train configs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from litestar import Response, Router, delete, get, post, put
from litestar.params import FromPath, JSONBody

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.api.idempotency import IdempotencyKey, call_of, made_once
from tunesmith.api.multipart_file import MultipartFile, incoming_file
from tunesmith.api.ranges import file_response
from tunesmith.api.runs import AnyOf, Cursor, Limit
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.datasets import DatasetRequest, InFlight
from tunesmith.records import Dataset, TrainConfigFile, Upload


class CreatedDataset(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a new dataset."""

    id: str
    created_at: datetime


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a dataset."""

    upload_id: str
    name: str
    """As the client called it."""
    stored_name: str
    bytes: int
    sha256: str
    uploaded_at: datetime
    replaced_by: str | None = None
    """The newer upload of the same name, which runs use instead; this one stays until it is deleted."""


class TrainConfigView(msgspec.Struct, frozen=True, kw_only=True):
    """A train config that fits its recipe."""

    filename: str
    uploaded_at: datetime
    size: int
    """In bytes."""
    recipe: str


class UploadProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How many files are there, and what is coming in right now."""

    files_count: int
    in_flight: list[InFlight]


class DatasetView(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset with what is in it."""

    id: str
    name: str
    type: str
    source: str
    task_type: str
    description: str
    status: Literal["empty", "ready", "deleted"]
    metadata: dict[str, Any]
    """As given, with `total_files`, `total_bytes` and `has_train_config` as they are."""
    files: list[FileView]
    train_config: TrainConfigView | None
    upload_progress: UploadProgress
    created_at: datetime
    deleted_at: datetime | None = None


class DatasetList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ask with ``cursor`` for the next page, until it is null."""

    datasets: list[DatasetView]
    cursor: str | None


class ReceivedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is on disk now."""

    upload_id: str
    dataset_id: str
    bytes: int
    filename: str
    sha256: str
    replaces: list[str] = []
    """Earlier uploads of the same name in this dataset. Runs use this one; the others stay until they are deleted."""


class AbortedUpload(msgspec.Struct, frozen=True, kw_only=True):
    """An upload of which nothing is left."""

    upload_id: str
    status: Literal["aborted"] = "aborted"


class DatasetConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The train config of a dataset."""

    dataset_id: str
    train_config: TrainConfigView


class RemovedDatasetConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset has no train config any more."""

    dataset_id: str
    status: Literal["train_config_deleted"] = "train_config_deleted"


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The train config of the whole service."""

    train_config: TrainConfigView


class RemovedServiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The service has no train config any more."""

    status: Literal["train_config_deleted"] = "train_config_deleted"


@post("/datasets", opt=NEEDS_WRITE, tags=["Datasets"])
async def create_dataset(
    request: HttpRequest, data: JSONBody[DatasetRequest], idempotency_key: IdempotencyKey = None
) -> Response[CreatedDataset]:
    """Create an empty dataset. Its name is taken until it is deleted."""
    book = services_of(request).datasets
    dataset, is_new = await made_once(
        request,
        idempotency_key,
        data,
        scope="datasets",
        make=lambda call: book.create(data, call),
        find=book.get,
    )
    answer = CreatedDataset(id=dataset.id, created_at=dataset.created_at)
    return Response(answer, status_code=201 if is_new else 200)


@get("/datasets", opt=NEEDS_READ, tags=["Datasets"], sync_to_thread=False)
def list_datasets(request: HttpRequest, limit: Limit = 50, cursor: Cursor = None, name: AnyOf = ()) -> DatasetList:
    """All datasets with their files, or the one of that name; a page ends earlier where there is much to say of them."""
    services = services_of(request)
    page = services.datasets.page(limit=limit, cursor=cursor, names=name)
    return DatasetList(datasets=[_view(services, dataset) for dataset in page.datasets], cursor=page.cursor)


@get("/datasets/{dataset_id:str}", opt=NEEDS_READ, tags=["Datasets"], sync_to_thread=False)
def show_dataset(request: HttpRequest, dataset_id: FromPath[str]) -> DatasetView:
    """One dataset, by its id or name."""
    services = services_of(request)
    return _view(services, services.datasets.find(dataset_id))


@delete("/datasets/{dataset_id:str}", opt=NEEDS_WRITE, tags=["Datasets"], status_code=200)
async def delete_dataset(request: HttpRequest, dataset_id: FromPath[str]) -> DatasetView:
    """Delete it with its files; refused while an unfinished run uses it. Answers what it was."""
    services = services_of(request)
    before = _view(services, services.datasets.find(dataset_id))
    deleted = await services.datasets.delete(before.id)
    await services.previews.forget_deleted()
    return msgspec.structs.replace(before, status="deleted", deleted_at=deleted.deleted_at)


@put(
    "/datasets/{dataset_id:str}/files",
    opt=NEEDS_WRITE,
    tags=["Datasets"],
    request_max_body_size=None,
    operation_class=MultipartFile,
)
async def upload_file(
    request: HttpRequest, dataset_id: FromPath[str], idempotency_key: IdempotencyKey = None
) -> ReceivedFile:
    """Put one file into a dataset: multipart, in a part named `file`. It is on disk, whole, when this answers."""
    services = services_of(request)
    dataset_id = services.datasets.find(dataset_id).id
    call = call_of(request, idempotency_key, scope=f"files of {dataset_id}")
    file = await incoming_file(request, limit=services.settings.max_upload_bytes, setting="max_upload_bytes")
    upload, replaces, _ = await services.datasets.receive(dataset_id, file.name, file.chunks(), call)
    return ReceivedFile(
        upload_id=upload.id,
        dataset_id=dataset_id,
        bytes=upload.bytes,
        filename=upload.name,
        sha256=upload.sha256,
        replaces=replaces,
    )


@get("/datasets/{dataset_id:str}/files/{upload_id:str}/content", opt=NEEDS_READ, tags=["Datasets"])
async def download_file(request: HttpRequest, dataset_id: FromPath[str], upload_id: FromPath[str]) -> Response[Any]:
    """The bytes as they were uploaded; `Range` gives a part of them, `ETag` is their SHA-256."""
    services = services_of(request)
    dataset_id = services.datasets.find(dataset_id).id
    upload = services.uploads.get_in(dataset_id, upload_id)
    return file_response(request, services.uploads.path(upload_id), upload.name, upload.sha256)


@delete("/uploads/{upload_id:str}", opt=NEEDS_WRITE, tags=["Datasets"], status_code=200)
async def delete_upload(request: HttpRequest, upload_id: FromPath[str]) -> AbortedUpload:
    """Stop an upload that is coming in, or remove a file; refused while an unfinished run uses it."""
    services = services_of(request)
    await services.datasets.remove_upload(upload_id)
    await services.previews.forget_deleted()
    return AbortedUpload(upload_id=upload_id)


@put(
    "/datasets/{dataset_id:str}/train-config",
    opt=NEEDS_WRITE,
    tags=["Train configs"],
    request_max_body_size=None,
    operation_class=MultipartFile,
)
async def put_dataset_config(request: HttpRequest, dataset_id: FromPath[str]) -> DatasetConfig:
    """Give the dataset a train config, checked against the recipe that its `job` names; with every fault at once."""
    services = services_of(request)
    dataset_id = services.datasets.find(dataset_id).id
    name, content = await _config_in(request, services)
    config = await services.datasets.put_train_config(dataset_id, name, content)
    return DatasetConfig(dataset_id=dataset_id, train_config=_config_view(config))


@get("/datasets/{dataset_id:str}/train-config", opt=NEEDS_READ, tags=["Train configs"], sync_to_thread=False)
def show_dataset_config(request: HttpRequest, dataset_id: FromPath[str]) -> DatasetConfig:
    """The dataset's train config."""
    services = services_of(request)
    dataset_id = services.datasets.find(dataset_id).id
    return DatasetConfig(dataset_id=dataset_id, train_config=_config_view(services.train_configs.get(dataset_id)))


@delete("/datasets/{dataset_id:str}/train-config", opt=NEEDS_WRITE, tags=["Train configs"], status_code=200)
async def delete_dataset_config(request: HttpRequest, dataset_id: FromPath[str]) -> RemovedDatasetConfig:
    """Remove it. Runs keep the config they were created with."""
    services = services_of(request)
    dataset_id = services.datasets.find(dataset_id).id
    await services.train_configs.remove(dataset_id)
    return RemovedDatasetConfig(dataset_id=dataset_id)


@put(
    "/train-config",
    opt=NEEDS_WRITE,
    tags=["Train configs"],
    request_max_body_size=None,
    operation_class=MultipartFile,
)
async def put_service_config(request: HttpRequest) -> ServiceConfig:
    """The train config of runs that name none and whose dataset has none for their recipe."""
    services = services_of(request)
    name, content = await _config_in(request, services)
    return ServiceConfig(train_config=_config_view(await services.train_configs.put(None, name, content)))


@get("/train-config", opt=NEEDS_READ, tags=["Train configs"], sync_to_thread=False)
def show_service_config(request: HttpRequest) -> TrainConfigView:
    """The train config of the whole service."""
    return _config_view(services_of(request).train_configs.get(None))


@delete("/train-config", opt=NEEDS_WRITE, tags=["Train configs"], status_code=200)
async def delete_service_config(request: HttpRequest) -> RemovedServiceConfig:
    """Remove it. Runs keep the config they were created with."""
    await services_of(request).train_configs.remove(None)
    return RemovedServiceConfig()


async def _config_in(request: HttpRequest, services: Services) -> tuple[str, bytes]:
    file = await incoming_file(
        request, limit=services.settings.max_train_config_bytes, setting="max_train_config_bytes"
    )
    return file.name, await file.read()


def _view(services: Services, dataset: Dataset) -> DatasetView:
    total_files, total_bytes = services.datasets.totals(dataset.id)
    config = services.train_configs.find(dataset.id)
    totals = {"total_files": total_files, "total_bytes": total_bytes, "has_train_config": config is not None}
    uploads = services.uploads.of(dataset.id)
    newest = {upload.name: upload.id for upload in uploads}
    return DatasetView(
        id=dataset.id,
        name=dataset.name,
        type=dataset.type,
        source=dataset.source,
        task_type=dataset.task_type,
        description=dataset.description,
        status="ready" if total_files else "empty",
        metadata={**dataset.metadata, **totals},
        files=[_file_view(upload, newest[upload.name]) for upload in uploads],
        train_config=_config_view(config) if config is not None else None,
        upload_progress=UploadProgress(files_count=total_files, in_flight=services.uploads.in_flight(dataset.id)),
        created_at=dataset.created_at,
    )


def _file_view(upload: Upload, newest: str) -> FileView:
    return FileView(
        upload_id=upload.id,
        name=upload.name,
        stored_name=upload.stored_name,
        bytes=upload.bytes,
        sha256=upload.sha256,
        uploaded_at=upload.uploaded_at,
        replaced_by=newest if newest != upload.id else None,
    )


def _config_view(config: TrainConfigFile) -> TrainConfigView:
    return TrainConfigView(
        filename=config.filename, uploaded_at=config.uploaded_at, size=config.size, recipe=config.recipe
    )


_HANDLERS = [
    create_dataset,
    list_datasets,
    show_dataset,
    delete_dataset,
    upload_file,
    download_file,
    delete_upload,
    put_dataset_config,
    show_dataset_config,
    delete_dataset_config,
    put_service_config,
    show_service_config,
    delete_service_config,
]

HANDLERS = [
    Router("/api/v1", route_handlers=_HANDLERS),
    Router("/v1", route_handlers=_HANDLERS, include_in_schema=False),
    # Where a client looks who reads the path of an upload as below that of the datasets, or as it is written.
    Router("/api/v1/datasets", route_handlers=[delete_upload], include_in_schema=False),
    Router("/v1/datasets", route_handlers=[delete_upload], include_in_schema=False),
    Router("/", route_handlers=[delete_upload], include_in_schema=False),
]
