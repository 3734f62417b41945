"""``/v1/batches``: files of requests that are answered in the background, in OpenAI's form."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from tunesmith.api.idempotency import caller_of
from tunesmith.api.openai.errors import READS, WRITES
from tunesmith.api.openai.pages import After, page_of_ids
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.errors import InvalidInput, MissingReference
from tunesmith.openai import file_id, upload_id
from tunesmith.openai.batches import BatchRequest
from tunesmith.records import Batch

ENDPOINT = "/v1/chat/completions"
_OTHER_ENDPOINTS = (
    *("/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations", "/v1/images/generations"),
    *("/v1/images/edits", "/v1/videos"),
)
_WINDOW = "24h"
_PURPOSE = "batch"

BatchLimit = Annotated[int, QueryParameter(ge=1, le=100, description="At most this many batches.")]
MetadataKey = Annotated[str, msgspec.Meta(max_length=64)]
MetadataValue = Annotated[str, msgspec.Meta(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], msgspec.Meta(max_length=16)]


class OutputExpiry(msgspec.Struct, frozen=True, kw_only=True):
    """How long the files of answers are kept."""

    seconds: Annotated[int, msgspec.Meta(ge=3600, le=30 * 24 * 3600)]
    """After they were made."""
    anchor: Literal["created_at"] = "created_at"
    """`created_at`, of the files."""


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A file of requests to be answered."""

    input_file_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    """A file of purpose `batch`, a request in each line: `custom_id`, `method`, `url`, `body`."""
    endpoint: Annotated[str, msgspec.Meta(max_length=200)]
    """`/v1/chat/completions`: what each request asks."""
    completion_window: Annotated[str, msgspec.Meta(max_length=100)]
    """`24h`: for how long it is tried."""
    metadata: Metadata | None = None
    """Up to 16 pairs of your own."""
    output_expires_after: OutputExpiry | None = None
    """Without it, the files of answers are kept until they are deleted."""


class BatchError(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with the input file."""

    code: str
    """For programs, such as `duplicate_custom_id`."""
    message: str
    """What is wrong."""
    line: int | None = None
    """From 1; null where it is about all of the file."""
    param: str | None = None
    """The field of the line."""


class BatchErrors(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the input file."""

    object: Literal["list"] = "list"
    """`list`"""
    data: list[BatchError]
    """At most about a hundred."""


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the requests so far."""

    total: int
    """0 while the file is validated."""
    completed: int
    """Answered."""
    failed: int
    """Refused, could not be asked, or not answered in time."""


class InputTokens(msgspec.Struct, frozen=True, kw_only=True):
    """More about the input."""

    cached_tokens: int
    """Those that an engine had from earlier requests, where it tells."""


class OutputTokens(msgspec.Struct, frozen=True, kw_only=True):
    """More about the output."""

    reasoning_tokens: int
    """Those that an engine counts as reasoning, where it tells."""


class TokensUsed(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of all answers together."""

    input_tokens: int
    """Of all prompts."""
    input_tokens_details: InputTokens
    """How many of these an engine had already."""
    output_tokens: int
    """Of all answers."""
    output_tokens_details: OutputTokens
    """How many of these are reasoning."""
    total_tokens: int
    """Both together."""


class BatchObject(msgspec.Struct, frozen=True, kw_only=True):
    """A batch. Times are Unix seconds."""

    id: str
    """`batch_...`: what requests call it."""
    object: Literal["batch"] = "batch"
    """`batch`"""
    endpoint: str
    """As it was asked for."""
    model: str | None = None
    """The model of its requests; null while it is validated, and where they name several."""
    errors: BatchErrors | None = None
    """With `failed`: what is wrong with its input file."""
    input_file_id: str
    """The file of its requests; it cannot be deleted before the batch is over."""
    completion_window: str
    """As it was asked for."""
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    """Where it is."""
    output_file_id: str | None = None
    """A line for each request that was answered; there when the batch is over."""
    error_file_id: str | None = None
    """A line for each request that was not; null where there is none."""
    created_at: int
    """When it was asked for."""
    in_progress_at: int | None = None
    """When its input file had been found good."""
    expires_at: int
    """When what is not answered is given up."""
    finalizing_at: int | None = None
    """When each request had its line."""
    completed_at: int | None = None
    """When its files were there."""
    failed_at: int | None = None
    """When its input file had been found wrong."""
    expired_at: int | None = None
    """When the files were there of one that was not answered in time."""
    cancelling_at: int | None = None
    """When somebody asked for its end."""
    cancelled_at: int | None = None
    """When it had ended."""
    request_counts: RequestCounts
    """Of every answer that there is. After a start of the server they may be too low until the lines were counted."""
    usage: TokensUsed
    """Of what is answered so far."""
    metadata: dict[str, str] | None = None
    """As it was given."""


class BatchPage(msgspec.Struct, frozen=True, kw_only=True):
    """Batches, newest first; ask with the last one's id as `after` for the next page, while `has_more`."""

    object: Literal["list"] = "list"
    """`list`"""
    data: list[BatchObject]
    """As many as `limit` asked for, or the rest."""
    first_id: str | None = None
    """Of the first one of the page."""
    last_id: str | None = None
    """Of the last one: what to ask for the next page with."""
    has_more: bool
    """Whether there are more."""


@post("/batches", opt=WRITES, tags=["OpenAI"], status_code=200)
async def create_batch(request: HttpRequest, data: JSONBody[NewBatch]) -> BatchObject:
    """Answer a file of requests in the background; the batch is validated first.

    The same request with the same API key again within ten seconds is the same batch.
    """
    services = services_of(request)
    _check(services, data)
    expiry = data.output_expires_after
    batch = await services.openai.batches.create(
        BatchRequest(
            input_upload=upload_id(data.input_file_id),
            endpoint=data.endpoint,
            completion_window=data.completion_window,
            metadata=data.metadata,
            output_seconds=expiry.seconds if expiry is not None else None,
            caller=caller_of(request),
        )
    )
    return _view(services, batch)


@get("/batches", opt=READS, tags=["OpenAI"], sync_to_thread=False)
def list_batches(request: HttpRequest, after: After = None, limit: BatchLimit = 20) -> BatchPage:
    """All batches."""
    services = services_of(request)
    book = services.openai.batches.book
    page = page_of_ids(book.sorted_ids, after=after, limit=limit)
    data = [_view(services, book.get(one)) for one in page.ids]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return BatchPage(data=data, first_id=first, last_id=last, has_more=page.has_more)


@get("/batches/{batch_id:str}", opt=READS, tags=["OpenAI"], sync_to_thread=False)
def show_batch(request: HttpRequest, batch_id: FromPath[str]) -> BatchObject:
    """One batch."""
    services = services_of(request)
    return _view(services, services.openai.batches.book.get(batch_id))


@post("/batches/{batch_id:str}/cancel", opt=WRITES, tags=["OpenAI"], status_code=200)
async def cancel_batch(request: HttpRequest, batch_id: FromPath[str]) -> BatchObject:
    """Ask for the end of a batch. What was answered becomes its output file; refused when it is over already."""
    services = services_of(request)
    return _view(services, await services.openai.batches.cancel(batch_id))


def _check(services: Services, data: NewBatch) -> None:
    """Raises InvalidInput."""
    if data.endpoint != ENDPOINT:
        has = "is not served here" if data.endpoint in _OTHER_ENDPOINTS else "is no endpoint"
        raise InvalidInput(f"{data.endpoint!r} {has}", where="endpoint", mend=f"batches answer {ENDPOINT}")
    if data.completion_window != _WINDOW:
        raise InvalidInput(f"must be {_WINDOW}", where="completion_window", mend=f"send {_WINDOW}")
    own_id = upload_id(data.input_file_id)
    if own_id not in services.uploads:
        raise MissingReference(
            f"there is no file {data.input_file_id!r}", where="input_file_id", mend="upload it with purpose batch"
        )
    purpose = services.uploads.summary_of(own_id).purpose
    if purpose not in ("", _PURPOSE):
        raise InvalidInput(
            f"the file's purpose is {purpose}", where="input_file_id", mend="upload it with purpose batch"
        )


def _view(services: Services, batch: Batch) -> BatchObject:
    counts = services.openai.batches.counts_of(batch)
    usage = counts.usage
    faults = [BatchError(code=one.code, message=one.message, line=one.line, param=one.param) for one in batch.faults]
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=BatchErrors(data=faults) if faults else None,
        input_file_id=file_id(batch.input_upload),
        completion_window=batch.completion_window,
        status=batch.status.value,
        output_file_id=file_id(batch.output_upload) if batch.output_upload is not None else None,
        error_file_id=file_id(batch.error_upload) if batch.error_upload is not None else None,
        created_at=int(batch.created_at.timestamp()),
        expires_at=int(batch.expires_at.timestamp()),
        request_counts=RequestCounts(total=batch.total, completed=counts.completed, failed=counts.failed),
        usage=TokensUsed(
            input_tokens=usage.input_tokens,
            input_tokens_details=InputTokens(cached_tokens=usage.cached_tokens),
            output_tokens=usage.output_tokens,
            output_tokens_details=OutputTokens(reasoning_tokens=usage.reasoning_tokens),
            total_tokens=usage.input_tokens + usage.output_tokens,
        ),
        metadata=batch.metadata,
        **_times(batch),
    )


def _times(batch: Batch) -> dict[str, Any]:
    """Of its statuses, those that it has come to."""
    times: dict[str, datetime | None] = {
        "in_progress_at": batch.in_progress_at,
        "finalizing_at": batch.finalizing_at,
        "completed_at": batch.completed_at,
        "failed_at": batch.failed_at,
        "expired_at": batch.expired_at,
        "cancelling_at": batch.cancelling_at,
        "cancelled_at": batch.cancelled_at,
    }
    return {name: int(at.timestamp()) if at is not None else None for name, at in times.items()}


HANDLERS: list[Any] = [create_batch, list_batches, show_batch, cancel_batch]
