"""Chat completions as engines speak them, passed on nearly as they are: only the model has another name outside.

What an engine says of a request, good or bad, is the answer. A stream that breaks off ends with an error, never silently.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec

from tunesmith.errors import PromptRefused, TunesmithError, Unavailable
from tunesmith.inference.answers import decode_completion, error_of
from tunesmith.inference.chat import ANSWER_SECONDS, COMPLETIONS_PATH, SILENT_SECONDS, Endpoint, Loopback

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_DONE = b"data: [DONE]"
_END = b"\n\n"

Fields = Mapping[str, Any]
"""A request's fields as they came, each a JSON text or a value."""


class EngineRefused(PromptRefused):
    """The engine's own refusal, as it said it."""

    def __init__(self, status: int, body: bytes) -> None:
        said = error_of(status, body)
        super().__init__(said.message, where=said.where, mend=said.mend)
        self.status, self.body = status, body

    @property
    def error(self) -> TunesmithError:
        """What it means for whoever has asked."""
        return error_of(self.status, self.body)

    @property
    def code(self) -> str | None:
        """Its word for programs, such as ``context_length_exceeded``, where it has one."""
        try:
            said = decode_completion(self.body).error
        except msgspec.DecodeError:
            return None
        return said.code if said is not None and isinstance(said.code, str) else None


class Completions:
    """Asks the engine of a model."""

    def __init__(self, endpoint: Callable[[str], Awaitable[Endpoint]], loopback: Loopback) -> None:
        """``endpoint`` finds or starts what serves a model reference."""
        self._endpoint = endpoint
        self._loopback = loopback

    async def whole(self, model: str, fields: Fields) -> bytes:
        """The engine's answer, in which the model is called as it was asked for.

        Raises:
            EngineRefused: it answers something else.
            MissingReference: there is no such model.
            Unavailable: it cannot be served, or its engine broke.
        """
        endpoint = await self._endpoint(model)
        with endpoint.in_use():
            body = _encode({**fields, "model": endpoint.model_name})
            answer = await self._loopback.post_json(endpoint.port, COMPLETIONS_PATH, body, seconds=ANSWER_SECONDS)
        if not answer.ok:
            raise EngineRefused(answer.status, answer.body)
        return _renamed(answer.body, model)

    async def stream(self, model: str, fields: Fields) -> AsyncIterator[bytes]:
        """The same as server-sent events, whole ones; an empty text first, once the engine has begun. Raises as ``whole``."""
        endpoint = await self._endpoint(model)
        body = _encode({**fields, "model": endpoint.model_name})
        with endpoint.in_use():
            async with self._loopback.stream(
                endpoint.port, COMPLETIONS_PATH, body, seconds=SILENT_SECONDS, idle_seconds=SILENT_SECONDS
            ) as response:
                if not response.ok:
                    raise EngineRefused(response.status, b"".join([chunk async for chunk in response.chunks]))
                yield b""
                async for events in _events(response.chunks, _field(endpoint.model_name), _field(model)):
                    yield events


def _renamed(body: bytes, model: str) -> bytes:
    try:
        return _encode({**_decode_fields(body), "model": model})
    except msgspec.DecodeError as error:
        raise Unavailable(f"its engine said something else: {error}", mend="see the engine's log") from error


def _field(model: str) -> bytes:
    return _encode({"model": model})[1:-1]


async def _events(chunks: AsyncIterator[bytes], inside: bytes, outside: bytes) -> AsyncIterator[bytes]:
    """Events with the model's name outside. Within a text the quotation marks of such a field would be escaped."""
    rest, ended = b"", False
    async for chunk in chunks:
        whole, end, rest = (rest + chunk).rpartition(_END)
        if end:
            ended = ended or whole.endswith(_DONE)
            yield whole.replace(inside, outside) + end
    if not ended:
        raise Unavailable("its engine broke off in the middle of the answer", mend="see the engine's log; try again")
