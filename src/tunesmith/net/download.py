"""An answer as a file: whole and durable, or not there at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from functools import partial
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
import httpcore
import httpx
import msgspec

from tunesmith.errors import InvalidInput, MissingReference, OutOfSpace, TooLarge
from tunesmith.files import NO_ROOM, sync_folder
from tunesmith.net.urls import shown

_WRITE_BYTES = 1024 * 1024


class Downloaded(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is complete and durable."""

    path: Path
    bytes: int
    sha256: str


def expect_file(response: httpcore.Response, target: httpx.URL, max_bytes: int) -> None:
    """Refuse by the head what need not be read."""
    headers = headers_of(response)
    if response.status != 200:
        raise MissingReference(
            f"it was answered with {response.status} instead of a file", where=shown(target), mend="check the address"
        )
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise InvalidInput("it comes compressed, though that was not asked for", where=shown(target))
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(target, max_bytes)


async def save(
    response: httpcore.Response, target: httpx.URL, into: Path, max_bytes: int, expect_sha256: str | None
) -> Downloaded:
    part = into.with_name(f".{into.name}.{secrets.token_hex(4)}.part")
    try:
        file = await anyio.to_thread.run_sync(part.open, "wb", 0)
        try:
            size, digest = await _pour(response, target, file, max_bytes)
            if expect_sha256 is not None and digest != expect_sha256.strip().lower():
                raise InvalidInput(
                    f"its sha256 is {digest}, not {expect_sha256}", where=shown(target), mend="check file and hash"
                )
        finally:
            file.close()
        await anyio.to_thread.run_sync(_publish, part, into)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OutOfSpace("no room for the download", where=str(into), mend="free space on that disk") from error
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(part.unlink, missing_ok=True))
    return Downloaded(path=into, bytes=size, sha256=digest)


async def _pour(response: httpcore.Response, target: httpx.URL, file: BinaryIO, max_bytes: int) -> tuple[int, str]:
    """From the network into the file; answers length and sha256."""
    hasher = hashlib.sha256()

    def write(content: bytes) -> None:
        hasher.update(content)
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]

    size = 0
    waiting = bytearray()
    async for chunk in response.aiter_stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(target, max_bytes)
        waiting += chunk
        if len(waiting) >= _WRITE_BYTES:
            await anyio.to_thread.run_sync(write, bytes(waiting))
            waiting.clear()
    await anyio.to_thread.run_sync(write, bytes(waiting))
    return size, hasher.hexdigest()


def _publish(part: Path, into: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(into)
    sync_folder(into.parent)


def _too_large(target: httpx.URL, max_bytes: int) -> TooLarge:
    return TooLarge(f"it has more than {max_bytes} bytes", where=shown(target), mend="offer a smaller file")


def headers_of(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
