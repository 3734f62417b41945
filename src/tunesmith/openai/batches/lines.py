"""The lines of a batch on their way to becoming its files: appended as soon as a request has its answer, counted, and read
again after a crash. A line that was cut off by it is cut away, and its request is asked again.

Everything that touches the disk blocks: it is called from threads.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from tunesmith.paths import BatchPaths
from tunesmith.records import BatchCounts, BatchUsage, new_id

EXPIRED = "batch_expired"
_encode = msgspec.json.Encoder().encode
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")
_LONGEST_TOLD = 2000


class Answer(NamedTuple):
    """What an engine has answered."""

    status: int
    body: bytes


class _Response(msgspec.Struct, kw_only=True):
    status_code: int
    request_id: str = ""
    body: msgspec.Raw


class _Error(msgspec.Struct, kw_only=True):
    code: str
    message: str


class _Line(msgspec.Struct, kw_only=True):
    id: str
    custom_id: str
    response: _Response | None
    error: _Error | None

    @property
    def is_completed(self) -> bool:
        return self.response is not None and 200 <= self.response.status_code < 300


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def answered(custom_id: str, answer: Answer) -> bytes:
    """The line of a request that an engine has answered or refused."""
    response = _Response(
        status_code=answer.status,
        request_id=f"req_{random.getrandbits(128):032x}",
        body=msgspec.Raw(_on_one_line(answer)),
    )
    return _encode(_Line(id=new_id("batch_req"), custom_id=custom_id, response=response, error=None)) + b"\n"


def not_asked(custom_id: str, code: str, message: str) -> bytes:
    """The line of a request that no engine was asked."""
    error = _Error(code=code, message=message)
    return _encode(_Line(id=new_id("batch_req"), custom_id=custom_id, response=None, error=error)) + b"\n"


def _on_one_line(answer: Answer) -> bytes:
    """Line ends stand only between the parts of a JSON text: within its strings they are escaped."""
    try:
        _decode_raw(answer.body)
        answer.body.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        told = answer.body[:_LONGEST_TOLD].decode(errors="replace")
        return _encode({"error": {"message": told, "type": "server_error", "param": None, "code": None}})
    return answer.body.translate(_LINE_ENDS)


class Tally:
    """What the lines of a batch add up to."""

    def __init__(self) -> None:
        self.completed = self.failed = self.expired = 0
        """Those that expired count as failed, too."""
        self._usage = _Usage()
        self._cached = self._reasoning = 0

    @property
    def counts(self) -> BatchCounts:
        usage = BatchUsage(
            input_tokens=self._usage.prompt_tokens,
            output_tokens=self._usage.completion_tokens,
            cached_tokens=self._cached,
            reasoning_tokens=self._reasoning,
        )
        return BatchCounts(completed=self.completed, failed=self.failed, usage=usage)

    def add(self, line: _Line) -> None:
        if line.is_completed:
            assert line.response is not None
            self.completed += 1
            self._add_usage(line.response.body)
        else:
            self.failed += 1
            self.expired += line.error is not None and line.error.code == EXPIRED

    def _add_usage(self, body: msgspec.Raw) -> None:
        try:
            usage = _decode_body(body).usage or _Usage()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # the engine counts in some way of its own
        self._usage.prompt_tokens += usage.prompt_tokens
        self._usage.completion_tokens += usage.completion_tokens
        self._cached += (usage.prompt_tokens_details or _Details()).cached_tokens or 0
        self._reasoning += (usage.completion_tokens_details or _Details()).reasoning_tokens or 0


class LineFiles:
    """The lines of one batch."""

    def __init__(self, paths: BatchPaths) -> None:
        self.tally = Tally()
        self._paths = paths
        self._turn = threading.Lock()

    def read_again(self) -> set[str]:
        """Count what is there, cut off what a crash has left of a line, and answer which requests have theirs.

        Raises OSError.
        """
        tally, found = Tally(), set()
        with self._turn:
            self._paths.folder.mkdir(mode=0o700, exist_ok=True)
            for path in (self._paths.output, self._paths.errors):
                for line in _lines_of(path):
                    found.add(line.custom_id)
                    tally.add(line)
            self.tally = tally
        return found

    def append(self, line: bytes) -> None:
        """Raises OSError: nothing of it was kept."""
        read = _decode_line(line)
        with self._turn:
            _append(self._paths.output if read.is_completed else self._paths.errors, line)
            self.tally.add(read)


def _lines_of(path: Path) -> Iterator[_Line]:
    if not path.exists():
        return
    with path.open("r+b") as file:
        sound = 0
        for raw in file:
            try:
                line = _decode_line(raw) if raw.endswith(b"\n") else None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                line = None
            if line is None:
                # After a power cut a line may be torn in the middle, too. What follows it is asked again.
                file.truncate(sound)
                return
            sound += len(raw)
            yield line


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(descriptor, memoryview(line)[written:])
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)
