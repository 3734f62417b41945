"""Multipart requests of OpenAI's clients: one file among fields, in any order, read as it comes in.

Clients in Python send the fields first, others the file. So a field is known for sure only when all of the file has come in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from multipart import MultipartSegment

from tunesmith.api.multipart_file import BYTES, MultipartFile, events_of, name_of, parser_of, too_large, wrong
from tunesmith.api.services import HttpRequest

PURPOSES = ("fine-tune", "batch", "assistants", "vision", "user_data", "evals")
ANCHOR = "created_at"
LEAST_SECONDS, MOST_SECONDS = 3600, 30 * 24 * 3600
"""How long a file may be kept that is to be removed by itself."""
_LONGEST_FIELD = 4096


@dataclass
class FileForm(MultipartFile):
    """What the call declares that takes a file with its purpose."""

    PARTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "file": {**BYTES, "description": "One file."},
        "purpose": {"type": "string", "enum": list(PURPOSES), "description": "What it is for."},
        "expires_after[anchor]": {"type": "string", "enum": [ANCHOR], "description": "From when `seconds` counts."},
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": LEAST_SECONDS,
            "maximum": MOST_SECONDS,
            "description": "When it is removed by itself; without it, never.",
        },
    }
    REQUIRED: ClassVar[tuple[str, ...]] = ("file", "purpose")


class IncomingForm:
    """A form on its way in, up to the first byte of its file."""

    def __init__(
        self, events: AsyncIterator[Any], name: str, fields: dict[str, str], limit: int, setting: str, field: str
    ) -> None:
        self.name = name
        """What the client calls the file."""
        self.fields = fields
        """Those before the file; once ``chunks`` is at its end, all of them."""
        self._events = events
        self._limit = limit
        self._setting = setting
        self._field = field

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the file; the fields behind it are read, too.

        Raises:
            TooLarge: more came than the limit.
            InvalidInput: the file is empty, or the request is no sound multipart, holds a second file, or ends early.
        """
        received = 0
        async for event in self._events:
            if event is None:
                break
            received += len(event)
            if received > self._limit:
                raise too_large(self._limit, self._setting, self._field)
            yield event
        if not received:
            raise wrong("the file is empty", field=self._field)
        if await _fields(self._events, self.fields) is not None:
            raise wrong("there is a second file; only one can be sent at a time", field=self._field)


async def incoming_form(
    request: HttpRequest, field: str, *, limit: int, setting: str = "", needs_name: bool = True
) -> IncomingForm:
    """Read the request up to the first byte of the file in the part named ``field``.

    Without ``needs_name`` that part counts as the file also where it has no file name.

    Raises:
        TooLarge: the request announces more than the limit, which ``setting`` is the name of.
        HTTPException: with 415, it is no multipart.
        InvalidInput: it is no sound multipart, or has no such file.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit + 1024 * 1024:
        raise too_large(limit, setting, field)
    events = events_of(request, parser_of(request, field), limit, setting, field)
    fields: dict[str, str] = {}
    file = await _fields(events, fields, unnamed=None if needs_name else field)
    if file is None:
        raise wrong(f"there is no file in it, in a part named {field!r}", field=field)
    name = name_of(file, field) if file.filename is not None else field
    return IncomingForm(events, name, fields, limit, setting, field)


async def _fields(
    events: AsyncIterator[Any], fields: dict[str, str], unnamed: str | None = None
) -> MultipartSegment | None:
    """Read fields up to a file, or the field that is one without a name; None: up to the end."""
    async for part in events:
        if not isinstance(part, MultipartSegment):
            continue
        if part.filename is not None or part.name == unnamed:
            return part
        fields[part.name] = await _text(events, part.name)
    return None


async def _text(events: AsyncIterator[Any], name: str) -> str:
    content = b""
    async for event in events:
        if event is None:
            break
        content += event
        if len(content) > _LONGEST_FIELD:
            raise wrong(f"the field has more than {_LONGEST_FIELD} bytes", where=name[:100])
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise wrong("the field is not UTF-8", where=name[:100]) from None
