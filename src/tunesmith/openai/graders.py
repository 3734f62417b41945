"""Runs a grader on one answer: a worker program grades, and the judges that it wants to ask are asked here.

The program runs no code of the request and has a deadline; which models may judge is the same as which may be chatted with.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import anyio
import msgspec

from tunesmith.errors import TunesmithError

_GRADE = "tunesmith_workers.rewards.grade"
_SECONDS = 120.0
_JUDGE_SECONDS = 600.0
_MOST_TOKENS = "max_completion_tokens"
_OTHER_NAMES = {"max_completions_tokens": _MOST_TOKENS, "max_tokens": _MOST_TOKENS}
"""The grader's type writes the one, chat completions the other."""

Ask = Callable[[str, Mapping[str, Any]], Awaitable[bytes]]
"""A model's completion of a request, as JSON."""


class Calls(Protocol):
    """Worker programs."""

    async def call(self, module: str, request: Mapping[str, Any], *, seconds: float = ...) -> dict[str, Any]: ...


class Need(msgspec.Struct, frozen=True):
    """A prompt that a judge has to answer first."""

    key: str
    model: str
    messages: list[dict[str, Any]]
    sampling_params: dict[str, Any] = {}
    response_format: dict[str, Any] | None = None


class Result(msgspec.Struct, frozen=True):
    """What one answer is worth."""

    reward: float | None
    sub_rewards: dict[str, float | None]
    errors: dict[str, Any] | None
    messages: list[str] = []


class _Answer(msgspec.Struct, frozen=True):
    name: str
    type: str
    results: list[Result] = []
    needs: list[Need] = []


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct, frozen=True):
    total_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage = _Usage()


_decode_completion = msgspec.json.Decoder(_Completion).decode


class Graded(msgspec.Struct, frozen=True, kw_only=True):
    """What a grader says of an answer, and what that took."""

    name: str
    type: str
    result: Result
    seconds: float
    tokens: dict[str, int]
    """By the model that judged."""


class Graders:
    """Checks graders and runs them."""

    def __init__(self, calls: Calls, ask: Ask) -> None:
        self._calls = calls
        self._ask = ask

    async def check(self, grader: Mapping[str, Any]) -> None:
        """Raises InvalidInput: it cannot be used; with every fault."""
        await self._calls.call(_GRADE, {"grader": grader}, seconds=_SECONDS)

    async def run(self, grader: Mapping[str, Any], answer: str, item: Any) -> Graded:
        """What the grader says of an answer. ``item`` is the row that it belongs to.

        Raises:
            InvalidInput: the grader cannot be used.
        """
        began = time.monotonic()
        request = {"grader": grader, "samples": [{"output_text": answer, "item": {} if item is None else item}]}
        said = await self._answer(request)
        tokens: dict[str, int] = {}
        if said.needs:
            replies = {need.key: await self._reply(need, tokens) for need in said.needs}
            said = await self._answer({**request, "answers": replies})
        seconds = time.monotonic() - began
        return Graded(name=said.name, type=said.type, result=said.results[0], seconds=seconds, tokens=tokens)

    async def _answer(self, request: Mapping[str, Any]) -> _Answer:
        return msgspec.convert(await self._calls.call(_GRADE, request, seconds=_SECONDS), _Answer)

    async def _reply(self, need: Need, tokens: dict[str, int]) -> Any:
        """What a judge says, or why it says nothing."""
        sampling = {
            _OTHER_NAMES.get(name, name): value for name, value in need.sampling_params.items() if value is not None
        }
        form = {"response_format": need.response_format} if need.response_format is not None else {}
        try:
            with anyio.fail_after(_JUDGE_SECONDS):
                completion = _decode_completion(
                    await self._ask(need.model, {"messages": need.messages, **sampling, **form})
                )
        except TimeoutError:
            return {"error": f"{need.model} gave no answer in {_JUDGE_SECONDS:g} seconds"}
        except (TunesmithError, msgspec.DecodeError) as error:
            return {"error": str(error)}
        tokens[need.model] = tokens.get(need.model, 0) + completion.usage.total_tokens
        message = completion.choices[0].message if completion.choices else _Message()
        return {"refusal": message.refusal} if message.refusal else message.content or ""
