"""The inference door: chat with any model, whole, as a stream, or many conversations at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Router, post
from litestar.params import JSONBody
from litestar.response import Stream

from tunesmith.api.access import NEEDS_WRITE
from tunesmith.api.leaving import while_connected
from tunesmith.api.problems import Problem, status_of
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.errors import InvalidInput, TunesmithError
from tunesmith.inference import Answer, BatchRequest, ChatRequest, Delta, End, Usage
from tunesmith.inference.request import MOST_IN_A_BATCH, chats_of

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
_DONE = b"data: [DONE]\n\n"


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation of a batch: its answer, or what is wrong with it."""

    index: int
    """Its place in the batch, from 0."""
    answer: Answer | None = None
    """Null where it failed."""
    error: Problem | None = None
    """Null where it was answered."""


class BatchResults(msgspec.Struct, frozen=True, kw_only=True):
    """In the order of the requests."""

    results: list[BatchResult]
    """One for each request."""
    answered: int
    """How many have an answer."""
    failed: int
    """How many have an error."""
    usage: Usage
    """Of all answers together."""


@post("/chat", opt=NEEDS_WRITE, tags=["Inference"], status_code=200)
async def chat(request: HttpRequest, data: JSONBody[ChatRequest]) -> Answer:
    """The answer to a conversation. A model that nobody deployed is loaded first, and kept warm."""
    return await while_connected(request, services_of(request).chat.answer(data))


@post("/chat/stream", opt=NEEDS_WRITE, tags=["Inference"], status_code=200, media_type="text/event-stream")
async def chat_stream(request: HttpRequest, data: JSONBody[ChatRequest]) -> Stream:
    """The answer as it is made, as server-sent events.

    `{"delta": ...}`, then one with `usage` and `finish_reason`, then `[DONE]`. A failure after the beginning is an event `error`
    with a problem document.
    """
    parts = services_of(request).chat.stream(data)
    # What is refused is refused with its own status; from here on the answer is under way, and ends if nobody reads it.
    first = await while_connected(request, anext(parts))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(_lines(request.url.path, first, parts), media_type="text/event-stream", headers=headers)


@post("/batch", opt=NEEDS_WRITE, tags=["Inference"], status_code=200)
async def chat_batch(request: HttpRequest, data: JSONBody[BatchRequest]) -> BatchResults:
    """Answers to many conversations, or prompts, each with its own error if it has one."""
    if (data.requests is None) == (data.prompts is None):
        raise InvalidInput(
            "either requests or prompts must be given",
            where="requests",
            mend=f"send up to {MOST_IN_A_BATCH} requests, each with messages, or as many prompts",
        )
    found = await while_connected(request, services_of(request).chat.batch(chats_of(data)))
    results = [_result(request.url.path, index, one) for index, one in enumerate(found)]
    usage = sum((one.usage for one in found if isinstance(one, Answer)), Usage())
    failed = sum(isinstance(one, TunesmithError) for one in found)
    return BatchResults(results=results, answered=len(found) - failed, failed=failed, usage=usage)


def _result(path: str, index: int, found: Answer | TunesmithError) -> BatchResult:
    if isinstance(found, Answer):
        return BatchResult(index=index, answer=found)
    return BatchResult(index=index, error=_problem(path, found))


async def _lines(path: str, first: Delta | End, parts: AsyncIterator[Delta | End]) -> AsyncIterator[bytes]:
    try:
        if isinstance(first, Delta) and first.delta:
            yield _line(first)
        async for part in parts:
            yield _line(part)
        yield _DONE
    except TunesmithError as error:
        _log.warning("stream_failed", path=path, reason=str(error))
        yield b"event: error\ndata: " + _encode(_problem(path, error)) + b"\n\n"


def _line(part: Delta | End) -> bytes:
    return b"data: " + _encode(part) + b"\n\n"


def _problem(path: str, error: TunesmithError) -> Problem:
    status = status_of(error)
    return Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        instance=path,
        where=error.where,
        mend=error.mend,
        errors=error.faults,
    )


_CALLS: list[Any] = [chat, chat_stream, chat_batch]
HANDLERS = [Router("/api/inference", route_handlers=_CALLS)]
