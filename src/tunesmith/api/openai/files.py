"""``/v1/files``: the files that batches and trainings read and write. A file is an upload, whichever door it came through."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath, QueryParameter

from tunesmith.api.idempotency import caller_of
from tunesmith.api.openai.errors import READS, WRITES
from tunesmith.api.openai.form import ANCHOR, LEAST_SECONDS, MOST_SECONDS, PURPOSES, FileForm, incoming_form
from tunesmith.api.openai.pages import After, Order, page_of_ids
from tunesmith.api.ranges import file_response
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.datasets import Arrived, Details
from tunesmith.errors import InvalidInput, NotFound
from tunesmith.openai import FINE_TUNE, file_id, upload_id
from tunesmith.records import Upload

_NO_PURPOSE = "user_data"
"""What files of other doors are for, where nobody said."""
_SAME_WITHIN = timedelta(seconds=10)
"""A file that comes again so soon is the same one: clients send a request again when its answer was lost."""
_LATEST_COMPARED = 50
_LONGEST_DETAILS = 4000

FileLimit = Annotated[int, QueryParameter(ge=1, le=10_000, description="At most this many files.")]
Purpose = Annotated[str | None, QueryParameter(max_length=100, description="Only files for this.")]


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """A file."""

    id: str
    """`file-...`: what requests call it."""
    object: Literal["file"] = "file"
    bytes: int
    """How many."""
    created_at: int
    """Unix seconds."""
    filename: str
    """As the client called it."""
    purpose: str
    """`fine-tune`, `batch`, `fine-tune-results`, `batch_output`, ..."""
    status: Literal["uploaded", "processed", "error"]
    """`uploaded` while rows for fine-tuning are still looked at, `error` where some of them cannot be used."""
    expires_at: int | None = None
    """Unix seconds: when it is removed by itself."""
    status_details: str | None = None
    """With `error`: what is wrong, with line numbers."""


class FilePage(msgspec.Struct, frozen=True, kw_only=True):
    """Files; ask with the last one's id as `after` for the next page, while `has_more`."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    """In the order that was asked for."""
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool
    """Whether there are more."""


class DeletedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is not there any more."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


@post("/files", opt=WRITES, tags=["OpenAI"], status_code=200, request_max_body_size=None, operation_class=FileForm)
async def create_file(request: HttpRequest) -> FileObject:
    """Upload a file: multipart, with `file`, its `purpose`, and perhaps `expires_after[seconds]`.

    Rows for fine-tuning are looked at one by one then; the status is `processed` or `error` when that is over. The same file
    with the same fields and API key again within ten seconds is the same file.
    """
    services = services_of(request)
    limit = services.settings.max_upload_bytes
    form = await incoming_form(request, "file", limit=limit, setting="max_upload_bytes")

    def judge(arrived: Arrived) -> Details:
        details = Details(
            purpose=purpose_in(form.fields), keep_seconds=_seconds_in(form.fields), caller=caller_of(request)
        )
        return msgspec.structs.replace(details, instead=_same(services, arrived, details))

    received = await services.single_files.put(form.name, form.chunks(), judge)
    if received.upload.purpose == FINE_TUNE:
        services.openai.file_checks.ask(received.upload.id)
    return view_of(received.upload)


@get("/files", opt=READS, tags=["OpenAI"], sync_to_thread=True)
def list_files(
    request: HttpRequest, after: After = None, limit: FileLimit = 10_000, order: Order = "desc", purpose: Purpose = None
) -> FilePage:
    """All files, also those of other doors."""
    uploads = services_of(request).uploads
    page = page_of_ids(
        list(uploads.sorted_ids),
        after=upload_id(after) if after is not None else None,
        limit=limit,
        newest_first=order == "desc",
        keep=lambda one: one in uploads and purpose in (None, uploads.summary_of(one).purpose or _NO_PURPOSE),
    )
    data = []
    for one in page.ids:
        with contextlib.suppress(NotFound):  # it was removed meanwhile
            data.append(view_of(uploads.get(one)))
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return FilePage(data=data, first_id=first, last_id=last, has_more=page.has_more)


@get("/files/{file_id:str}", opt=READS, tags=["OpenAI"], sync_to_thread=False)
def show_file(request: HttpRequest, file_id: FromPath[str]) -> FileObject:
    """One file."""
    return view_of(found(services_of(request), file_id))


@delete("/files/{file_id:str}", opt=WRITES, tags=["OpenAI"], status_code=200)
async def delete_file(request: HttpRequest, file_id: FromPath[str]) -> DeletedFile:
    """Remove a file; refused while an unfinished run uses it."""
    services = services_of(request)
    upload = found(services, file_id)
    await services.single_files.remove(upload.id)
    await services.previews.forget_deleted()
    return DeletedFile(id=view_of(upload).id)


@get("/files/{file_id:str}/content", opt=READS, tags=["OpenAI"])
async def file_content(request: HttpRequest, file_id: FromPath[str]) -> Response[Any]:
    """The bytes of a file."""
    services = services_of(request)
    upload = found(services, file_id)
    return file_response(request, services.uploads.path(upload.id), upload.name, upload.sha256)


def found(services: Services, name: str) -> Upload:
    """Raises NotFound."""
    own_id = upload_id(name)
    if own_id not in services.uploads:
        raise NotFound(f"there is no file {name[:100]!r}", where="file_id", mend="GET /v1/files lists them")
    return services.uploads.get(own_id)


def view_of(upload: Upload) -> FileObject:
    status: Literal["uploaded", "processed", "error"] = "processed"
    details = None
    if upload.check is not None and not upload.check.ok:
        more = upload.check.faults - len(upload.check.told)
        told = "; ".join(upload.check.told)[:_LONGEST_DETAILS]
        status, details = "error", f"{told}; and {more} more" if more > 0 else told
    elif upload.check is None and upload.purpose == FINE_TUNE:
        status = "uploaded"
    return FileObject(
        id=file_id(upload.id),
        bytes=upload.bytes,
        created_at=int(upload.uploaded_at.timestamp()),
        filename=upload.name,
        purpose=upload.purpose or _NO_PURPOSE,
        status=status,
        expires_at=int(upload.expires_at.timestamp()) if upload.expires_at is not None else None,
        status_details=details,
    )


def purpose_in(fields: dict[str, str]) -> str:
    """Raises InvalidInput."""
    purpose = fields.get("purpose", "")
    if purpose not in PURPOSES:
        given = f"is {purpose[:100]!r}" if purpose else "is missing"
        raise InvalidInput(given, where="purpose", mend=f"choose one of {', '.join(PURPOSES)}")
    return purpose


def _seconds_in(fields: dict[str, str]) -> int | None:
    if not any(name.startswith("expires_after") for name in fields):
        return None
    seconds = fields.get("expires_after[seconds]", "")
    if fields.get("expires_after[anchor]", ANCHOR) != ANCHOR:
        raise InvalidInput(f"must be {ANCHOR}", where="expires_after[anchor]", mend=f"send {ANCHOR}")
    if not seconds.isdecimal() or not LEAST_SECONDS <= int(seconds[:12]) <= MOST_SECONDS:
        raise InvalidInput(
            f"must be a whole number from {LEAST_SECONDS} to {MOST_SECONDS}",
            where="expires_after[seconds]",
            mend="leave it out to keep the file until it is deleted",
        )
    return int(seconds)


def _same(services: Services, arrived: Arrived, details: Details) -> Upload | None:
    """The same file with the same details, if it came a moment ago."""
    uploads = services.uploads
    since = arrived.at - _SAME_WITHIN
    for one in uploads.sorted_ids[-_LATEST_COMPARED:]:
        if one in uploads and uploads.summary_of(one).bytes == arrived.bytes:
            upload = uploads.get(one)
            same = (upload.name, upload.sha256) == (arrived.name, arrived.sha256) and _has(upload, details)
            if same and upload.uploaded_at >= since:
                return upload
    return None


def _has(upload: Upload, details: Details) -> bool:
    kept = (upload.expires_at - upload.uploaded_at).total_seconds() if upload.expires_at is not None else None
    return (upload.purpose, kept, upload.caller) == (details.purpose, details.keep_seconds, details.caller)


HANDLERS: list[Any] = [create_file, list_files, show_file, delete_file, file_content]
