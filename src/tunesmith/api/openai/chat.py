"""``POST /v1/chat/completions``: the request goes to the model's engine nearly as it came, and so does the answer back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

import msgspec
import structlog
from litestar import Response, post
from litestar.params import JSONBody
from litestar.response import Stream

from tunesmith.api.leaving import while_connected
from tunesmith.api.openai.errors import WRITES, ErrorAnswer, ErrorBody, OpenAIError, message_of
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.errors import PromptRefused, TunesmithError
from tunesmith.inference import EngineRefused

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_JSON = "application/json"
_LARGEST_REQUEST = 32 * 1024 * 1024


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation to be answered. Any other field of OpenAI's API may be there: what the engine does not know is passed over."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    """Any model reference: a fine-tuned model's name, an alias, a run, a deployment, ..."""
    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    """The conversation so far: each has a `role`, and as its `content` a text or a list of text parts."""
    max_tokens: int | None = None
    """Where an answer is cut; without it, at the end of the model's context."""
    max_completion_tokens: int | None = None
    """The newer name of `max_tokens`."""
    temperature: float | None = None
    """0 to 2; 0 is always the most likely token."""
    top_p: float | None = None
    """Only from the most likely tokens up to this sum of probabilities."""
    n: int | None = None
    """How many answers."""
    stop: str | list[str] | None = None
    """What ends an answer."""
    seed: int | None = None
    """The same seed gives the same answer."""
    stream: bool | None = None
    """Whether the answer comes as server-sent events, as it is made."""
    stream_options: dict[str, Any] | None = None
    """`include_usage`: whether the last event tells how many tokens it took."""
    logprobs: bool | None = None
    """Whether each token is told with the logarithm of its probability."""
    top_logprobs: int | None = None
    """How many other tokens are told with theirs, 0 to 20."""
    frequency_penalty: float | None = None
    """-2 to 2: against tokens by how often the answer has them."""
    presence_penalty: float | None = None
    """-2 to 2: against tokens that the answer has."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}` or `{"type": "json_schema", ...}`: the answer is JSON of that form."""
    tools: list[dict[str, Any]] | None = None
    """Passed to the model's chat template."""


class CompletionMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says."""

    role: str
    """`assistant`"""
    content: str | None = None
    """The text."""


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    index: int
    """Its place among the `n` answers, from 0."""
    message: CompletionMessage
    finish_reason: str | None = None
    """`stop`: it came to its end. `length`: it was cut."""
    logprobs: dict[str, Any] | None = None
    """Of its tokens, if they were asked for."""


class CompletionUsage(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens it took."""

    prompt_tokens: int
    """Of the conversation as the chat template renders it."""
    completion_tokens: int
    """Of the answers, with the tokens that ended them."""
    total_tokens: int
    """Both."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The answers to a conversation."""

    id: str
    object: str
    """`chat.completion`"""
    created: int
    """Unix seconds."""
    model: str
    """As it was asked for."""
    choices: list[CompletionChoice]
    """As many as `n` asked for."""
    usage: CompletionUsage | None = None
    """Of all answers."""


@post("/chat/completions", opt=WRITES, tags=["OpenAI"], status_code=200, request_max_body_size=_LARGEST_REQUEST)
async def create_completion(request: HttpRequest, data: JSONBody[CompletionRequest]) -> Response[Completion] | Stream:
    """The answer of any model to a conversation, whole or with `stream` as server-sent events, in OpenAI's form.

    A model that nobody deployed is loaded first, and kept warm. A stream ends with `data: [DONE]`; a failure in its middle is
    `data: {"error": ...}`.
    """
    fields = _decode_fields(await request.body())
    completions = services_of(request).openai.completions
    try:
        if not data.stream:
            body = await while_connected(request, completions.whole(data.model, fields))
            return Response(cast(Any, body), media_type=_JSON)
        parts = completions.stream(data.model, fields)
        # What is refused is refused with its own status; from here on the answer is under way.
        await while_connected(request, anext(parts))
    except EngineRefused as refused:
        raise _refusal(refused) from refused
    return Stream(_lines(request.url.path, parts), media_type="text/event-stream", headers=_HEADERS)


def _refusal(refused: EngineRefused) -> TunesmithError:
    """With the engine's own word for programs where the request is at fault."""
    error = refused.error
    if isinstance(error, PromptRefused):
        return OpenAIError(400, error.message, param=error.where, code=refused.code)
    return error


async def _lines(path: str, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for events in parts:
            yield events
    except TunesmithError as error:
        _log.warning("stream_failed", path=path, reason=str(error))
        body = ErrorAnswer(error=ErrorBody(message=message_of(error), type="server_error"))
        yield b"data: " + _encode(body) + b"\n\n"


HANDLERS: list[Any] = [create_completion]
