"""Answering conversations: the model reference is resolved, its engine found or started, and the prompt passed on.

One at a time, as a stream, or many side by side. What is said is passed on as it is; nothing of it is kept or logged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

import anyio
import anyio.to_thread
import msgspec

from tunesmith.errors import Busy, InvalidInput, TunesmithError, Unavailable
from tunesmith.inference.answers import Answer, Completion, Usage, answer_of, decode_completion, error_of
from tunesmith.inference.request import ChatRequest, completion_body
from tunesmith.references import ResolvedModel

COMPLETIONS_PATH = "/v1/chat/completions"
_READY_SECONDS = 600.0
"""How long a model may take to load."""
ANSWER_SECONDS = 1800.0
SILENT_SECONDS = 300.0
"""How long an engine may say nothing in the middle of an answer: others may be ahead in its queue."""
_SIDE_BY_SIDE = 32
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0


class Endpoint(Protocol):
    """Where a model is served."""

    @property
    def port(self) -> int: ...

    @property
    def model_name(self) -> str: ...

    def in_use(self) -> AbstractContextManager[None]:
        """While something of it is answered."""
        ...


class Engines(Protocol):
    """Finds what serves a model, or starts it."""

    async def engine_for(self, resolved: ResolvedModel, *, seconds: float) -> Endpoint: ...


class EngineAnswer(Protocol):
    """A whole answer of an engine."""

    @property
    def status(self) -> int: ...

    @property
    def ok(self) -> bool: ...

    @property
    def body(self) -> bytes: ...


class EngineStream(Protocol):
    """An answer whose body is read as it comes."""

    @property
    def status(self) -> int: ...

    @property
    def ok(self) -> bool: ...

    @property
    def chunks(self) -> AsyncIterator[bytes]: ...


class Loopback(Protocol):
    """HTTP to engines on this machine."""

    async def post_json(self, port: int, path: str, content: Any, *, seconds: float) -> EngineAnswer: ...

    def stream(
        self, port: int, path: str, content: Any, *, seconds: float, idle_seconds: float
    ) -> AbstractAsyncContextManager[EngineStream]: ...


class Delta(msgspec.Struct, frozen=True):
    """More of an answer."""

    delta: str


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer ended."""

    model: str
    finish_reason: str | None
    usage: Usage


class ChatService:
    """Answers conversations with any model."""

    def __init__(
        self,
        *,
        resolve: Callable[[str], ResolvedModel],
        engines: Engines,
        loopback: Loopback,
        default_model: str,
    ) -> None:
        """``resolve`` reads folders, and is called in threads."""
        self._resolve = resolve
        self._engines = engines
        self._loopback = loopback
        self._default_model = default_model

    async def answer(self, request: ChatRequest) -> Answer:
        """The whole answer.

        Raises:
            MissingReference: there is no such model.
            PromptRefused: the engine says what is wrong with it.
            Busy: as many wait for an answer as may.
            Unavailable: the model cannot be served, or its engine broke.
        """
        model, endpoint = await self._endpoint(request)
        with endpoint.in_use():
            body = completion_body(request, endpoint.model_name)
            answer = await self._loopback.post_json(endpoint.port, COMPLETIONS_PATH, body, seconds=ANSWER_SECONDS)
        if not answer.ok:
            raise error_of(answer.status, answer.body)
        return answer_of(answer.body, model)

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta | End]:
        """The answer as it is made; the first part comes once the engine has taken the request. Raises as ``answer``."""
        model, endpoint = await self._endpoint(request)
        body = completion_body(request, endpoint.model_name, stream=True, stream_options={"include_usage": True})
        with endpoint.in_use():
            async with self._loopback.stream(
                endpoint.port, COMPLETIONS_PATH, body, seconds=SILENT_SECONDS, idle_seconds=SILENT_SECONDS
            ) as response:
                if not response.ok:
                    raise error_of(response.status, b"".join([chunk async for chunk in response.chunks]))
                yield Delta("")
                async for part in _parts(response.chunks, model):
                    yield part

    async def batch(self, requests: Sequence[ChatRequest]) -> list[Answer | TunesmithError]:
        """Each with its own answer or error, in their order. A full queue is waited for."""
        found: list[Answer | TunesmithError | None] = [None] * len(requests)
        places = iter(range(len(requests)))

        async def work() -> None:
            for place in places:
                found[place] = await self._patiently(requests[place])

        async with anyio.create_task_group() as tasks:
            for _ in range(min(_SIDE_BY_SIDE, len(requests))):
                tasks.start_soon(work)
        return [one for one in found if one is not None]

    async def _patiently(self, request: ChatRequest) -> Answer | TunesmithError:
        pause = _FIRST_PAUSE
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                while True:
                    try:
                        return await self.answer(request)
                    except Busy:
                        await anyio.sleep(pause)
                        pause = min(2 * pause, _LONGEST_PAUSE)
                    except TunesmithError as error:
                        return error
        except TimeoutError:
            return Unavailable(f"no answer in {ANSWER_SECONDS:g} seconds", mend="ask for less at a time")

    async def _endpoint(self, request: ChatRequest) -> tuple[str, Endpoint]:
        model = request.model or self._default_model
        if not model:
            raise InvalidInput(
                "no model is named, and the settings have no default_model",
                where="model",
                mend="name one: a run's id, a path, a hub id; or set default_model",
            )
        return model, await self.endpoint(model)

    async def endpoint(self, model: str) -> Endpoint:
        """What serves this model; it is started if need be.

        Raises:
            MissingReference: there is no such model.
            Unavailable: it cannot be served.
        """
        resolved = await anyio.to_thread.run_sync(self._resolve, model)
        return await self._engines.engine_for(resolved, seconds=_READY_SECONDS)


async def _parts(chunks: AsyncIterator[bytes], model: str) -> AsyncIterator[Delta | End]:
    finish, usage, ended = None, Usage(), False
    async for data in _events(chunks):
        if data == b"[DONE]":
            ended = True
            break
        completion = _read(data)
        usage = completion.usage or usage
        for choice in completion.choices:
            finish = choice.finish_reason or finish
            if choice.delta.content:
                yield Delta(choice.delta.content)
    if not ended:
        raise Unavailable("its engine broke off in the middle of the answer", mend="see the engine's log; try again")
    yield End(model=model, finish_reason=finish, usage=usage)


def _read(data: bytes) -> Completion:
    try:
        completion = decode_completion(data)
    except msgspec.DecodeError as error:
        raise Unavailable(f"its engine said something else: {error}", mend="see the engine's log") from error
    if completion.error is not None:
        raise error_of(500, data)
    return completion


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of server-sent events, one line each as engines write them."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
