"""The engine over HTTP, on loopback: chat completions, models, adapters and health, in the words of OpenAI and of vLLM."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.response import Stream

from tunesmith_workers.engine.chat import ChatRequest, Refusal, read_request
from tunesmith_workers.engine.conversation import Exchange, Failed, Piece
from tunesmith_workers.engine.engine import Busy, Engine
from tunesmith_workers.engine.replies import DONE, Reply, encode, error_object, usage
from tunesmith_workers.engine.sampling import Drawn

_JSON = "application/json"
_LARGEST_BODY = 16 * 1024 * 1024
_T = TypeVar("_T")
HttpRequest = Request[Any, Any, Any]


class AdapterRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/load_lora_adapter``, and of its opposite."""

    lora_name: str
    lora_path: str = ""


_decode_adapter = msgspec.json.Decoder(AdapterRequest).decode


def create_app(engine: Engine) -> Litestar:
    """The application over an engine that is loaded."""

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.running.stop()

    app = Litestar(
        route_handlers=[health, models, chat_completions, load_lora_adapter, unload_lora_adapter],
        lifespan=[lifespan],
        exception_handlers={Refusal: _refused, Failed: _failed, Exception: _bug},
        openapi_config=None,
        request_max_body_size=_LARGEST_BODY,
        logging_config=None,
    )
    app.state.engine = engine
    return app


def _engine(request: HttpRequest) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


@get("/health", sync_to_thread=False)
def health(request: HttpRequest) -> Response[dict[str, Any]]:
    """Whether it computes, how many answers are under way and how many wait."""
    running = _engine(request).running
    status = "ok" if running.alive else "the thread that computes has ended"
    content = {"status": status, "running": running.active, "waiting": running.waiting}
    return Response(content, status_code=200 if running.alive else 503)


@get("/v1/models", sync_to_thread=False)
def models(request: HttpRequest) -> dict[str, Any]:
    """The base and its adapters."""
    engine = _engine(request)
    found = [
        {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "tunesmith",
            "parent": parent,
            "max_model_len": engine.longest,
            "dtype": engine.dtype,
        }
        for name, parent in ((name, None if name == engine.name else engine.name) for name in engine.names)
    ]
    return {"object": "list", "data": found}


@post("/v1/load_lora_adapter", status_code=200)
async def load_lora_adapter(request: HttpRequest) -> dict[str, str]:
    """Serve an adapter of the base, by a name."""
    asked = _adapter(await request.body())
    await _engine(request).load_adapter(asked.lora_name, asked.lora_path)
    return {"status": "loaded", "lora_name": asked.lora_name}


@post("/v1/unload_lora_adapter", status_code=200)
async def unload_lora_adapter(request: HttpRequest) -> dict[str, str]:
    """Serve it no longer."""
    asked = _adapter(await request.body())
    await _engine(request).unload_adapter(asked.lora_name)
    return {"status": "unloaded", "lora_name": asked.lora_name}


def _adapter(body: bytes) -> AdapterRequest:
    try:
        return _decode_adapter(body)
    except msgspec.DecodeError as error:
        raise Refusal(str(error)) from error


@post("/v1/chat/completions", status_code=200)
async def chat_completions(request: HttpRequest) -> Response[bytes] | Stream:
    """Answer a conversation, at once or as a stream."""
    engine = _engine(request)
    asked = read_request(await request.body())
    exchange = await engine.exchange(asked)
    reply = Reply(asked.model or engine.name, exchange.tokenizer)
    if asked.stream:
        chunks = _chunks(exchange, reply, asked)
        first = await anext(chunks)  # from here on it ends what it began, also when nobody reads on
        headers = {"Cache-Control": "no-store"}
        return Stream(_from(first, chunks), media_type="text/event-stream", headers=headers)
    try:
        content = await _while_connected(request, _whole(exchange, reply, asked))
    finally:
        exchange.leave()
    return Response(encode(content), media_type=_JSON)


async def _whole(exchange: Exchange, reply: Reply, asked: ChatRequest) -> dict[str, Any]:
    texts = [""] * len(exchange.answers)
    drawn: list[list[Drawn]] = [[] for _ in texts]
    finish: list[str | None] = [None] * len(texts)
    async for piece in exchange.pieces():
        texts[piece.index] += piece.text
        drawn[piece.index] += piece.drawn
        finish[piece.index] = piece.finish
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": reply.logprobs(drawn[index]),
            "finish_reason": finish[index],
            **({"token_ids": [one.token for one in drawn[index]]} if asked.return_token_ids else {}),
        }
        for index, text in enumerate(texts)
    ]
    content = reply.whole(choices, _usage(exchange, sum(map(len, drawn))))
    return {**content, "prompt_token_ids": exchange.answers[0].prompt} if asked.return_token_ids else content


def _usage(exchange: Exchange, completion: int) -> dict[str, Any]:
    first = exchange.answers[0]
    return usage(len(first.prompt), completion, first.reused)


async def _chunks(exchange: Exchange, reply: Reply, asked: ChatRequest) -> AsyncIterator[bytes]:
    completion = 0
    with_usage = asked.stream_options is not None and asked.stream_options.include_usage
    others = {"usage": None} if with_usage else {}
    try:
        begins = [_choice(index, {"role": "assistant", "content": ""}) for index in range(len(exchange.answers))]
        yield b"".join(reply.chunk([choice], **others) for choice in begins)
        async for piece in exchange.pieces():
            completion += len(piece.drawn)
            if choices := _choices(piece, reply, asked):
                yield b"".join(reply.chunk([choice], **others) for choice in choices)
        if with_usage:
            yield reply.chunk([], usage=_usage(exchange, completion))
        yield DONE
    except Failed as failure:
        yield b"data: " + encode(error_object(_as_refusal(failure))) + b"\n\n"
    finally:
        exchange.leave()


def _choices(piece: Piece, reply: Reply, asked: ChatRequest) -> list[dict[str, Any]]:
    logprobs = reply.logprobs(piece.drawn)
    found = []
    if piece.text or logprobs or asked.return_token_ids:
        choice = _choice(piece.index, {"content": piece.text}, logprobs=logprobs)
        if asked.return_token_ids:
            choice["token_ids"] = [one.token for one in piece.drawn]
        found.append(choice)
    if piece.finish is not None:
        found.append(_choice(piece.index, {}, finish_reason=piece.finish))
    return found


def _choice(index: int, delta: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **others}


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _while_connected(request: HttpRequest, work: Awaitable[_T]) -> _T:
    """What ``work`` answers; it is cancelled when the client leaves."""
    done: list[_T] = []
    failed: list[Exception] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_leave, request, tasks.cancel_scope)
        try:
            done.append(await work)
        except Exception as error:  # noqa: BLE001  # raised below, where no group is made of it
            failed.append(error)
        tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not done:
        raise Refusal("the client left before its answer was ready", status=499)
    return done[0]


async def _leave(request: HttpRequest, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
    scope.cancel()


def _refused(_request: HttpRequest, refusal: Refusal) -> Response[bytes]:
    headers = {"Retry-After": str(refusal.retry_seconds)} if isinstance(refusal, Busy) else {}
    return Response(encode(error_object(refusal)), status_code=refusal.status, media_type=_JSON, headers=headers)


def _as_refusal(failure: Failed) -> Refusal:
    return Refusal(f"the model could not go on: {failure}", status=500)


def _failed(request: HttpRequest, failure: Failed) -> Response[bytes]:
    return _refused(request, _as_refusal(failure))


def _bug(request: HttpRequest, error: Exception) -> Response[bytes]:
    status = getattr(error, "status_code", 500)
    if status == 500:
        traceback.print_exception(error)
    text = getattr(error, "detail", "") or "this is a bug of the engine; its log has the traceback"
    return _refused(request, Refusal(text, status=status))
