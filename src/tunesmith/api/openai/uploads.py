"""``/v1/uploads``: files that are too large for one request, sent in parts. What comes of one is a file like any other.

``DELETE /v1/uploads/{upload_id}`` is a call of the datasets door, and is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from litestar import post
from litestar.params import FromPath, JSONBody

from tunesmith.api.multipart_file import BYTES, MultipartFile
from tunesmith.api.openai.errors import WRITES
from tunesmith.api.openai.files import FileObject, purpose_in, view_of
from tunesmith.api.openai.form import LEAST_SECONDS, MOST_SECONDS, incoming_form
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.errors import InvalidInput
from tunesmith.openai import FINE_TUNE, LARGEST_PART, MOST_PARTS, Announced
from tunesmith.records import UploadInParts, utc_now

_PART = "data"


class ExpiresAfter(msgspec.Struct, frozen=True, kw_only=True):
    """How long a file is kept."""

    anchor: Literal["created_at"]
    """From when `seconds` counts: when the file is whole."""
    seconds: Annotated[int, msgspec.Meta(ge=LEAST_SECONDS, le=MOST_SECONDS)]
    """After so many it is removed by itself."""


class UploadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is going to come in parts. Any other field of OpenAI's API may be there."""

    bytes: Annotated[int, msgspec.Meta(ge=1)]
    """How many all parts have together; at most `max_file_bytes` of the settings."""
    filename: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    """What the file is called."""
    mime_type: Annotated[str, msgspec.Meta(max_length=255)] = ""
    """What it is said to be; kept, and not looked at."""
    purpose: str
    """What it is for: `fine-tune`, `batch`, `assistants`, `vision`, `user_data` or `evals`."""
    expires_after: ExpiresAfter | None = None
    """How long the file is kept; without it, until it is deleted."""


class CompleteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which parts make the file."""

    part_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_PARTS)]
    """In their order in the file, in whichever order they came."""
    md5: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """The MD5 of the whole file in hexadecimal digits, to be checked."""


class UploadObject(msgspec.Struct, frozen=True, kw_only=True):
    """A file that comes in parts."""

    id: str
    """`upload_...`: what requests call it."""
    object: Literal["upload"] = "upload"
    bytes: int
    """As announced."""
    created_at: int
    """Unix seconds."""
    expires_at: int
    """Unix seconds: what was not completed by then is removed."""
    filename: str
    """As the client called it."""
    purpose: str
    """What the file is for."""
    status: Literal["pending", "completed", "cancelled", "expired"]
    """`pending` while parts may come."""
    file: FileObject | None = None
    """What came of it, once it is completed; null when that was deleted since."""


class UploadPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part that is on the disk."""

    id: str
    """`part_...`: what `part_ids` call it."""
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    """Unix seconds."""
    upload_id: str


@dataclass
class PartForm(MultipartFile):
    """What the call declares that takes a part."""

    PARTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {_PART: {**BYTES, "description": "The bytes, at most 64 MiB."}}
    REQUIRED: ClassVar[tuple[str, ...]] = (_PART,)


@post("/uploads", opt=WRITES, tags=["OpenAI"], status_code=200)
async def create_upload(request: HttpRequest, data: JSONBody[UploadRequest]) -> UploadObject:
    """Announce a file that comes in parts. It has to be completed within an hour."""
    services = services_of(request)
    most = services.settings.max_file_bytes
    if data.bytes > most:
        raise InvalidInput(
            f"{data.bytes} are more than {most}", where="bytes", mend="send less, or raise the setting max_file_bytes"
        )
    if not data.filename.strip():
        raise InvalidInput("is empty", where="filename", mend="name the file")
    announced = Announced(
        name=data.filename,
        bytes=data.bytes,
        mime_type=data.mime_type,
        purpose=purpose_in({"purpose": data.purpose}),
        keep_seconds=data.expires_after.seconds if data.expires_after is not None else None,
    )
    return _view(services, await services.openai.uploads_in_parts.create(announced))


@post(
    "/uploads/{upload_id:str}/parts",
    opt=WRITES,
    tags=["OpenAI"],
    status_code=200,
    request_max_body_size=None,
    operation_class=PartForm,
)
async def create_part(request: HttpRequest, upload_id: FromPath[str]) -> UploadPart:
    """Send a part: multipart, in a part named `data`. Several may be sent at once, in any order.

    It is on the disk when this answers.
    """
    uploads = services_of(request).openai.uploads_in_parts
    uploads.get(upload_id)
    form = await incoming_form(request, _PART, limit=LARGEST_PART, needs_name=False)
    part_id = await uploads.add_part(upload_id, form.chunks())
    return UploadPart(id=part_id, created_at=_seconds(utc_now()), upload_id=upload_id)


@post("/uploads/{upload_id:str}/complete", opt=WRITES, tags=["OpenAI"], status_code=200)
async def complete_upload(
    request: HttpRequest, upload_id: FromPath[str], data: JSONBody[CompleteRequest]
) -> UploadObject:
    """Put the parts together to a file. The same call again answers the same; with other parts it is refused."""
    services = services_of(request)
    upload = await services.openai.uploads_in_parts.complete(upload_id, data.part_ids, data.md5)
    view = _view(services, upload)
    if view.file is not None and upload.purpose == FINE_TUNE:
        services.openai.file_checks.ask(upload.upload_id or "")
    return view


@post("/uploads/{upload_id:str}/cancel", opt=WRITES, tags=["OpenAI"], status_code=200)
async def cancel_upload(request: HttpRequest, upload_id: FromPath[str]) -> UploadObject:
    """Remove the parts that have come. A completed upload cannot be cancelled: delete its file."""
    services = services_of(request)
    return _view(services, await services.openai.uploads_in_parts.cancel(upload_id))


def _view(services: Services, upload: UploadInParts) -> UploadObject:
    own_id = upload.upload_id
    is_whole = upload.status == "completed" and own_id is not None and own_id in services.uploads
    return UploadObject(
        id=upload.id,
        bytes=upload.bytes,
        created_at=_seconds(upload.created_at),
        expires_at=_seconds(upload.expires_at),
        filename=upload.name,
        purpose=upload.purpose,
        status=upload.status.value,
        file=view_of(services.uploads.get(own_id)) if is_whole and own_id is not None else None,
    )


def _seconds(at: datetime) -> int:
    return int(at.timestamp())


HANDLERS: list[Any] = [create_upload, create_part, complete_upload, cancel_upload]
