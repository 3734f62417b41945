"""The one file of a multipart request, read as it comes in: nothing is spooled, and no more is held than came last.

Where the bytes go is for the caller to say. Everything that is wrong with the request is told in words, as 4xx.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import unquote

from litestar.exceptions import HTTPException, InternalServerException
from litestar.openapi.spec import Operation
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from tunesmith.api.services import HttpRequest
from tunesmith.errors import InvalidInput, TooLarge

FIELD = "file"
# What a request may hold beside the file: boundaries, and the headers of one part.
_AROUND = 64 * 1024
_LONGEST_BOUNDARY = 200
_MOST_PARTS = 32
_LONGEST_HEADER = 4096 + 128
_EXTENDED_NAME = re.compile(r"""filename\*\s*=\s*"?([\w.-]+)'[^']*'([^;"\s]+)""", re.IGNORECASE)
_MEND = 'send one file as multipart/form-data in a part named "{0}", such as curl -F {0}=@train.jsonl'


BYTES: Mapping[str, Any] = MappingProxyType({"type": "string", "contentMediaType": "application/octet-stream"})
"""The schema of a part that is a file."""


@dataclass
class MultipartFile(Operation):
    """What a call declares that takes such a file: how its body looks in the OpenAPI document."""

    PARTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {FIELD: {**BYTES, "description": "One file."}}
    """The schema of each part, by its name."""
    REQUIRED: ClassVar[tuple[str, ...]] = (FIELD,)


class IncomingFile:
    """A file on its way in: its name is known, its bytes are still to come."""

    def __init__(self, name: str, rest: AsyncIterator[Any], limit: int, setting: str) -> None:
        self.name = name
        """As the client sent it."""
        self._rest = rest
        self._limit = limit
        self._setting = setting

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, up to the end of the request.

        Raises:
            TooLarge: more came than the limit.
            InvalidInput: the file is empty, or the request is no sound multipart, holds another part, or ends early.
        """
        received = 0
        async for event in self._rest:
            if isinstance(event, MultipartSegment):
                raise wrong(f"there is a second part, named {_shown(event.name)}; only one file can be sent at a time")
            if event is not None:
                received += len(event)
                if received > self._limit:
                    raise too_large(self._limit, self._setting)
                yield event
        if not received:
            raise wrong("the file is empty")

    async def read(self) -> bytes:
        """All of it at once, for a file whose limit is small. Raises as ``chunks`` does."""
        return b"".join([chunk async for chunk in self.chunks()])


async def incoming_file(request: HttpRequest, *, limit: int, setting: str) -> IncomingFile:
    """Read the request up to the first byte of its file.

    Args:
        request: whose body nobody has read.
        limit: how many bytes the file may have.
        setting: what the limit is called in the settings.

    Raises:
        TooLarge: the request announces more than the limit; its body was not read.
        HTTPException: with 415, it is no multipart.
        InvalidInput: it is no sound multipart, or has no file where it should.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit + _AROUND:
        raise too_large(limit, setting)
    events = events_of(request, parser_of(request), limit, setting)
    first = await anext(events, None)
    if first is None:
        raise wrong("there is no part in it")
    return IncomingFile(name_of(first, FIELD), events, limit, setting)


def parser_of(request: HttpRequest, field: str = FIELD) -> PushMultipartParser:
    """Raises HTTPException with 415, or InvalidInput: the body is no multipart, or its boundary cannot be used."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data":
        raise HTTPException(
            status_code=415, detail=f"the body is {_shown(kind)}, not multipart/form-data; {_MEND.format(field)}"
        )
    boundary = options.get("boundary", "")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise wrong("Content-Type names no usable boundary", where="Content-Type")
    return PushMultipartParser(boundary, max_header_size=_LONGEST_HEADER, max_segment_count=_MOST_PARTS)


async def events_of(
    request: HttpRequest, parser: PushMultipartParser, limit: int, setting: str, field: str = FIELD
) -> AsyncIterator[Any]:
    """What the parser makes of the body: a segment, its chunks, None at its end, and so on."""
    received, begun = 0, False
    async for chunk in _body(request, field):
        received += len(chunk)
        if received > limit + _AROUND:
            raise too_large(limit, setting, field)
        try:
            for event in parser.parse(chunk):
                begun = True
                yield event
        except MultipartError as error:
            raise wrong(f"it cannot be read: {_reason(error)}", field=field) from error
        if not begun and received > _AROUND:
            raise _no_boundary(field)
    if not received:
        raise wrong("the body is empty", field=field)
    try:
        parser.close()
    except MultipartError as error:
        raise (wrong("it ends before its last boundary", field=field) if begun else _no_boundary(field)) from error


async def _body(request: HttpRequest, field: str) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except InternalServerException as error:  # how Litestar says that nobody is there any more to be answered
        raise wrong("the connection was closed in the middle of the file", field=field) from error


def name_of(part: MultipartSegment, field: str) -> str:
    """The name of the file in a part.

    Raises:
        InvalidInput: the part is named otherwise than ``field``, or is no file.
    """
    if part.name != field:
        raise wrong(f"the first part is named {_shown(part.name)}, not {field!r}", field=field)
    if part.charset is not None and not _is_charset(part.charset):
        raise wrong(f"the part names an unknown charset, {_shown(part.charset)}", field=field)
    name: str | None = part.filename
    extended = _EXTENDED_NAME.search(part.header("Content-Disposition", ""))
    if extended is not None:
        try:
            name = unquote(extended[2], encoding=extended[1], errors="strict")
        except (LookupError, UnicodeError) as error:
            raise wrong("the file's name is not in the encoding that it claims", field=field) from error
    if name is None:
        raise wrong(f"the part {field!r} is a text and no file: it has no file name", field=field)
    if not name.strip():
        raise wrong("the file's name is empty", field=field)
    return name.encode(errors="replace").decode()


def _is_charset(name: str) -> bool:
    try:
        codecs.lookup(name)
    except (LookupError, ValueError):  # ValueError: it holds a NUL
        return False
    return True


def _reason(error: MultipartError) -> str:
    """The parser's words; where it could not decode a header it says little."""
    text = str(error.args[0]) if error.args else "it is broken"
    if "failed to decode" in text:
        return "the file's name is not UTF-8"
    if "header length exceeded" in text:
        return f"the headers of the part, with the file's name, are longer than {_LONGEST_HEADER} bytes"
    return text[:1].lower() + text[1:]


def too_large(limit: int, setting: str, field: str = FIELD) -> TooLarge:
    """``setting`` is the name of the limit in the settings; empty: it is none of them."""
    mend = f"send smaller files, or raise the setting {setting}" if setting else "send less at a time"
    return TooLarge(f"the file has more than {limit} bytes", where=field, mend=mend)


def _no_boundary(field: str) -> InvalidInput:
    message = "no part begins in it; Content-Type names a boundary that is not there, or the body was cut off"
    return wrong(message, field=field)


def wrong(message: str, *, where: str | None = None, field: str = FIELD) -> InvalidInput:
    """``field`` is what the part with the file should be called; ``where`` names another part that is wrong."""
    return InvalidInput(f"the upload cannot be used: {message}", where=where or field, mend=_MEND.format(field))


def _shown(text: str | None) -> str:
    return repr((text or "")[:100])
