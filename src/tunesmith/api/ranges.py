"""Downloads: one file below the state folder, whole or a range of it, as RFC 9110 says.

Several ranges at once are answered with the whole file, which the RFC allows. What may be downloaded is for the doors
to decide; here only regular files are opened, and no symbolic link is followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import anyio.to_thread
from litestar import Response
from litestar.response import Stream

from tunesmith.api.problems import refusal
from tunesmith.api.services import HttpRequest
from tunesmith.errors import NotFound

_CHUNK = 256 * 1024
_ONE_RANGE = re.compile(r"bytes\s*=\s*(?:([0-9]{1,19})\s*-\s*([0-9]{1,19})?|-\s*([0-9]{1,19}))\s*", re.IGNORECASE)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._ -]")
_NOT_IN_A_NAME = re.compile(r"[\x00-\x1f\x7f/\\]")


class Span(NamedTuple):
    """Bytes from ``start`` up to and without ``end``."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """The range begins behind the end of the file."""


def file_response(
    request: HttpRequest, path: Path, filename: str, etag: str, *, media_type: str = "application/octet-stream"
) -> Response[Any]:
    """The file as an attachment: 200, 206 for a range, 304 when the client has it, 416 for a range behind its end.

    Args:
        request: read for ``Range``, ``If-Range`` and ``If-None-Match``.
        path: where the bytes are. Made by the server, never from a request.
        filename: what the client should call it; any text.
        etag: changes whenever the bytes do, such as their SHA-256; without quotes.
        media_type: of the content.

    Raises:
        NotFound: there is no regular file at ``path``.
    """
    size = _size_of(path, filename)
    tag = f'"{etag}"'
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(filename),
        "X-Content-Type-Options": "nosniff",
    }
    if {tag, "*"} & _tags(request.headers.get("if-none-match")):
        return Response(None, status_code=304, headers=headers)
    wanted = request.headers.get("range")
    if wanted is not None and request.headers.get("if-range", tag).strip() != tag:
        wanted = None  # the client has a part of another version
    try:
        span = parse_range(wanted, size)
    except Unsatisfiable:
        return _unsatisfiable(request, size)
    status = 200
    if span is not None:
        status = 206
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    start, end = span or Span(0, size)
    headers["Content-Length"] = str(end - start)
    return Stream(_read(path, start, end), status_code=status, media_type=media_type, headers=headers)


def parse_range(header: str | None, size: int) -> Span | None:
    """What one ``Range`` header asks of a file of that size; None for the whole file.

    A header that is malformed, has another unit, or names several ranges counts as none.

    Raises:
        Unsatisfiable: no byte of the range is in the file.
    """
    found = _ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last is not None else size
        if last is not None and int(last) < start:
            return None
    if start >= end:
        raise Unsatisfiable
    return Span(start, end)


def disposition(filename: str) -> str:
    """``Content-Disposition`` for any name: plain ASCII for old clients, and the name itself as RFC 5987 writes it."""
    name = _NOT_IN_A_NAME.sub("_", filename.encode(errors="replace").decode()).strip(". ") or "file"
    plain = _NOT_PLAIN.sub("_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _tags(header: str | None) -> set[str]:
    """The entity tags of ``If-None-Match``, which are compared weakly."""
    return {tag.strip().removeprefix("W/") for tag in (header or "").split(",")}


def _size_of(path: Path, filename: str) -> int:
    try:
        found = path.lstat()
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise NotFound(
            f"the content of {filename[:300]!r} is not there any more", where="content", mend="upload or make it again"
        )
    return found.st_size


async def _read(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    descriptor = await anyio.to_thread.run_sync(os.open, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while start < end:
            chunk = await anyio.to_thread.run_sync(os.pread, descriptor, min(_CHUNK, end - start), start)
            if not chunk:
                return  # it was cut short meanwhile: the answer ends early, which the client sees by its length
            start += len(chunk)
            yield chunk
    finally:
        os.close(descriptor)


def _unsatisfiable(request: HttpRequest, size: int) -> Response[Any]:
    return refusal(
        request,
        416,
        detail=f"the range lies behind the end: there are {size} bytes",
        where="Range",
        mend="ask for bytes that are there, or for all of them",
        headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"},
    )
