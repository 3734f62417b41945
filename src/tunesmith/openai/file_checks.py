"""A look at every row of a file for fine-tuning, as soon as it is here: what can be used, and what is wrong on which line.

The look is taken by a worker process; what it finds is on record with the upload, so it is taken once. Whoever needs the
verdict of a file waits for it here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.abc
import msgspec
import structlog

from tunesmith.errors import InvalidInput, NotFound, TunesmithError, WorkerFailed
from tunesmith.records import FileCheck, Upload

FINE_TUNE = "fine-tune"
"""The purpose of files that are looked at."""
_log = structlog.get_logger()
_VALIDATE = "tunesmith_workers.data.validate"
_LONGEST_SECONDS = 3600.0
_PROMPT = "prompt"
_MOST_TOLD = 20
_RETRY_SECONDS = 5.0
_MOST_TRIES = 3
_NOT_LOOKED_AT = (
    f"the process that looks at rows ended {_MOST_TRIES} times without an answer, for want of memory or time; "
    "the server's log has its last words; send the rows in smaller files"
)


class Summary(Protocol):
    """What is known of an upload without reading its record."""

    @property
    def purpose(self) -> str: ...

    @property
    def check(self) -> object | None: ...


class Uploads(Protocol):
    """All uploads."""

    def __contains__(self, upload_id: str, /) -> bool: ...

    def get(self, upload_id: str) -> Upload: ...

    def path(self, upload_id: str) -> Path: ...

    def summary_of(self, upload_id: str) -> Summary: ...

    @property
    def sorted_ids(self) -> Sequence[str]: ...

    async def note_check(self, upload_id: str, check: FileCheck) -> Upload: ...


class Calls(Protocol):
    """Worker programs."""

    async def call(self, module: str, request: Mapping[str, Any], *, seconds: float = ...) -> dict[str, Any]: ...


class _Fault(msgspec.Struct):
    line: int
    message: str
    field: str | None = None


class _Stats(msgspec.Struct):
    shapes: dict[str, int] = {}


class _Verdict(msgspec.Struct):
    total: int
    error_count: int
    errors: list[_Fault]
    stats: _Stats


class FileChecks:
    """Looks at files, one after the other, and keeps what was found."""

    def __init__(self, uploads: Uploads, calls: Calls, scratch: Path) -> None:
        """``scratch`` is a folder on a disk with some room."""
        self._uploads = uploads
        self._calls = calls
        self._scratch = scratch
        self._waiting: dict[str, None] = {}
        """Uploads to be looked at, in order."""
        self._wake = asyncio.Event()
        self._over: dict[str, asyncio.Event] = {}
        self._failed: set[str] = set()
        """Uploads of which a look has failed, for whatever reason."""
        self._ended: Counter[str] = Counter()
        """How often the worker process of an upload has ended without an answer."""

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled: look at what was asked for, and first at what an earlier server has left.

        One that cannot be looked at makes way for the others. After some tries it is told so in its verdict.
        """
        for upload_id in self._uploads.sorted_ids:
            summary = self._uploads.summary_of(upload_id)
            if summary.purpose == FINE_TUNE and summary.check is None:
                self.ask(upload_id)
        task_status.started()
        while True:
            self._wake.clear()
            while self._waiting:
                upload_id = next(iter(self._waiting))
                if not await self._looked(upload_id):
                    del self._waiting[upload_id]
                    self._waiting[upload_id] = None  # behind the others
                    if next(iter(self._waiting)) in self._failed:  # each of them has failed
                        await anyio.sleep(_RETRY_SECONDS)
            await self._wake.wait()

    def ask(self, upload_id: str) -> None:
        """Have it looked at; done at once where that is on record."""
        self._waiting.setdefault(upload_id)
        self._over.setdefault(upload_id, asyncio.Event())
        self._wake.set()

    async def verdict(self, upload_id: str) -> FileCheck:
        """What was found in it; waits for it.

        Raises:
            NotFound: there is no such upload, or it was removed before it was looked at.
        """
        while (check := self._uploads.get(upload_id).check) is None:
            self.ask(upload_id)
            await self._over[upload_id].wait()
        return check

    async def _looked(self, upload_id: str) -> bool:
        """Look at it; whether that is over."""
        try:
            if upload_id in self._uploads and self._uploads.get(upload_id).check is None:
                await self._uploads.note_check(upload_id, await self._found_in(upload_id))
        except NotFound:
            pass  # removed meanwhile
        except TunesmithError as error:
            _log.warning("file_not_checked_yet", upload_id=upload_id, reason=error.message.partition("\n")[0])
            self._failed.add(upload_id)
            return False
        except Exception:  # noqa: BLE001  # descriptors are short, or a bug: it must not end the server
            _log.exception("file_not_checked_yet", upload_id=upload_id)
            self._failed.add(upload_id)
            return False
        self._failed.discard(upload_id)
        self._waiting.pop(upload_id, None)
        over = self._over.pop(upload_id, None)
        if over is not None:
            over.set()
        return True

    async def _found_in(self, upload_id: str) -> FileCheck:
        try:
            found = await self._verdict(upload_id)
            if not found.ok:
                # Conversations without an answer are wrong among others; a file of nothing else is for reinforcement.
                of_prompts = await self._verdict(upload_id, shapes=(_PROMPT,))
                found = of_prompts if of_prompts.ok else found
        except InvalidInput as error:
            if upload_id not in self._uploads:
                raise NotFound(f"upload {upload_id} was removed") from error
            return FileCheck(rows=0, faults=1, told=(error.message,))
        except WorkerFailed:
            self._ended[upload_id] += 1
            if self._ended[upload_id] < _MOST_TRIES:
                raise
            del self._ended[upload_id]
            return FileCheck(rows=0, faults=1, told=(_NOT_LOOKED_AT,))
        return found

    async def _verdict(self, upload_id: str, **more: Any) -> FileCheck:
        asked = {
            "file": str(self._uploads.path(upload_id)),
            "max_errors": _MOST_TOLD,
            "scratch": str(self._scratch.resolve()),
            **more,
        }
        answer = await self._calls.call(_VALIDATE, asked, seconds=_LONGEST_SECONDS)
        verdict = msgspec.convert(answer, _Verdict)
        return FileCheck(
            rows=verdict.total,
            shapes=verdict.stats.shapes,
            faults=verdict.error_count,
            told=tuple(_told(fault) for fault in verdict.errors),
        )


def _told(fault: _Fault) -> str:
    return f"line {fault.line}: {fault.message}"
