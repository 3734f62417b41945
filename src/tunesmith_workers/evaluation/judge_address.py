"""Asks a judge behind an OpenAI-shaped address: a few requests at a time, each with a deadline, tried again when that helps.

Redirects are not followed, and where a request may go is looked at each time; see ``judge_network``. The key comes from the
environment and is in no message.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import httpx
import msgspec

from tunesmith_workers.evaluation.judge_network import GuardedTransport
from tunesmith_workers.process.config import Judge
from tunesmith_workers.process.faults import BadConfig, ModelUnavailable, WorkerFault

KEY_PREFIX = "JUDGE_"
"""Of every variable that a config may name: no request may have another secret sent to an address of its choice."""
_TRIES = 5
_LONGEST_WAIT = 30.0
"""Seconds between two tries, whatever the server asks for."""
_LARGEST_REPLY = 4 * 1024 * 1024
_MOST_FAILURES = 10
"""So many prompts may fail before any was answered; then the judge is taken to be out of order."""
_EXAMPLE = "such as http://127.0.0.1:8000/v1"
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


_completion = msgspec.json.Decoder(_Completion).decode


class _Again(Exception):
    """Another try may help."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class _State:
    """What the requests have come to so far."""

    def __init__(self, count: int) -> None:
        self.replies: list[str | None] = [None] * count
        self.finished = 0
        self.answered = 0
        self.fault: WorkerFault | None = None


def ask_address(judge: Judge, prompts: Sequence[str], progress: Callable[[int], None]) -> list[str | None]:
    """The reply to each prompt; None where none came, however often it was asked for.

    Raises:
        BadConfig: as ``headers_for``.
        ModelUnavailable: the address refuses, or has answered nothing at all.
    """
    return anyio.run(_ask_all, judge, prompts, headers_for(judge), progress)


def headers_for(judge: Judge) -> dict[str, str]:
    """What every request carries, once it is certain that there can be one.

    Raises:
        BadConfig: the address is none, no model is named there, or the key's variable cannot be used.
    """
    _check_address(str(judge.url))
    if not judge.url_model:
        raise BadConfig("must be given", where="evaluation.judge.url_model", mend="name the model at the address")
    return {"Authorization": f"Bearer {_key(judge.key_variable)}"} if judge.key_variable else {}


def _key(variable: str) -> str:
    if not variable.startswith(KEY_PREFIX):
        raise BadConfig(
            f"must begin with {KEY_PREFIX}",
            where="evaluation.judge.key_variable",
            mend=f"put the key into a variable such as {KEY_PREFIX}API_KEY, and list it in the setting run_environment",
        )
    key = os.environ.get(variable)
    if not key:
        raise BadConfig(
            f"the variable {variable} is not set",
            where="evaluation.judge.key_variable",
            mend="set it for the server and list it in the setting run_environment",
        )
    return key


def _check_address(address: str) -> None:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise BadConfig(f"is no address: {error}", where="evaluation.judge.url", mend=_EXAMPLE) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise BadConfig("is no http or https address", where="evaluation.judge.url", mend=_EXAMPLE)


async def _ask_all(
    judge: Judge, prompts: Sequence[str], headers: dict[str, str], progress: Callable[[int], None]
) -> list[str | None]:
    state = _State(len(prompts))
    places = iter(range(len(prompts)))
    transport = GuardedTransport(httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=judge.concurrency)))
    async with (
        httpx.AsyncClient(headers=headers, transport=transport, timeout=judge.timeout_seconds) as client,
        anyio.create_task_group() as tasks,
    ):

        async def work() -> None:
            for place in places:  # shared: whoever is free takes the next one
                await _ask_one(client, judge, prompts[place], place, state)
                if state.fault is not None:
                    tasks.cancel_scope.cancel()
                    return
                progress(state.finished)

        for _ in range(judge.concurrency):
            tasks.start_soon(work)
    if state.fault is not None:
        raise state.fault
    return state.replies


async def _ask_one(client: httpx.AsyncClient, judge: Judge, prompt: str, place: int, state: _State) -> None:
    reason = ""
    for attempt in range(_TRIES):
        try:
            with anyio.fail_after(judge.timeout_seconds):
                state.replies[place] = await _post(client, judge, prompt)
        except WorkerFault as fault:
            state.fault = fault
            return
        except (_Again, TimeoutError, httpx.RequestError) as error:
            reason = str(error) or f"no answer within {judge.timeout_seconds:g} seconds"
            if attempt + 1 < _TRIES:
                await anyio.sleep(_pause(attempt, error))
        else:
            state.answered += 1
            break
    state.finished += 1
    if not state.answered and state.finished >= min(_MOST_FAILURES, len(state.replies)):
        state.fault = _unavailable(judge, f"has answered none of {state.finished} prompts: {reason}")


async def _post(client: httpx.AsyncClient, judge: Judge, prompt: str) -> str | None:
    body = {
        "model": judge.url_model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": judge.reply_tokens,
    }
    async with client.stream("POST", _endpoint(judge), json=body) as response:
        content = b""
        async for part in response.aiter_bytes():
            content += part
            if len(content) > _LARGEST_REPLY:
                raise _unavailable(judge, f"sends more than {_LARGEST_REPLY} bytes for one reply")
    if response.status_code in _AGAIN:
        raise _Again(f"status {response.status_code}", _retry_after(response))
    if response.status_code != httpx.codes.OK:
        shown = content[:300].decode(errors="replace")
        raise _unavailable(judge, f"refuses with status {response.status_code}: {shown}")
    try:
        choices = _completion(content).choices
    except msgspec.DecodeError as error:
        raise _unavailable(judge, f"does not answer as OpenAI's chat completions do: {error}") from error
    return choices[0].message.content if choices else None


def _endpoint(judge: Judge) -> str:
    address = str(judge.url).rstrip("/")
    return address if address.endswith("/chat/completions") else f"{address}/chat/completions"


def _unavailable(judge: Judge, text: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"the judge at {judge.url} {text}",
        where="evaluation.judge.url",
        mend="check the address (it usually ends in /v1), evaluation.judge.url_model and the key",
    )


def _pause(attempt: int, error: Exception) -> float:
    asked: Any = getattr(error, "after", None)
    if asked is not None:
        return float(min(max(asked, 0.0), _LONGEST_WAIT))
    return float(min(0.5 * 2**attempt, _LONGEST_WAIT)) * (0.5 + random.random())


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds. A date is not read: the usual pause does."""
    given = response.headers.get("retry-after", "")
    return float(given) if given.isascii() and given.isdigit() and len(given) < 10 else None
