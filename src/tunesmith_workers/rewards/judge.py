"""What a score_model grader asks a model, and how the reply is read. Asking is the caller's.

A reply without a score, and a score out of range, is an error and never guessed at or moved into the range.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tunesmith_workers.rewards.json_match import find_json
from tunesmith_workers.rewards.sample import CannotGrade, Flag

LONGEST_REPLY: Final = 100_000
_NUMBER = re.compile(r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,3})?")
_encode = msgspec.json.Encoder(order="deterministic").encode


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message to a judge."""

    role: str
    content: str


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt that a model has to answer."""

    key: str
    """The same for the same prompt: whoever answers may answer it once."""
    model: str
    messages: tuple[Message, ...]
    sampling_params: dict[str, Any]
    response_format: dict[str, Any]
    """For engines that can be held to a form: ``{"result": a number in the range}``."""


class Unanswered(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no reply: the model refused to grade, or could not be asked."""

    refusal: str | None = None
    error: str | None = None


Reply = str | Unanswered
Ask = Callable[[Question], Reply]
"""Asks the model; called once for each score_model grader of a sample."""


def question(
    model: str, messages: tuple[Message, ...], sampling_params: dict[str, Any], score_range: tuple[float, float]
) -> Question:
    content = _encode([model, messages, sampling_params, score_range])
    low, high = score_range
    score = {"type": "number", "minimum": low, "maximum": high}
    schema = {"type": "object", "properties": {"result": score}, "required": ["result"], "additionalProperties": False}
    return Question(
        key=hashlib.sha256(content).hexdigest()[:32],
        model=model,
        messages=messages,
        sampling_params=sampling_params,
        response_format={"type": "json_schema", "json_schema": {"name": "score", "strict": True, "schema": schema}},
    )


def score_in(reply: Reply, score_range: tuple[float, float], where: str) -> float:
    """The score that a reply gives, as a bare number or as JSON ``{"result": number}``.

    Raises:
        CannotGrade: it gives none, or one out of range.
    """
    if isinstance(reply, Unanswered):
        flag: Flag = "model_grader_refusal_error" if reply.refusal is not None else "model_grader_server_error"
        raise CannotGrade(flag, f"{where}: {reply.refusal or reply.error or 'the model gave no answer'}")
    text = _after_thought(reply)
    score = _number(text) if len(text) <= LONGEST_REPLY else None
    if score is None:
        raise CannotGrade(
            "model_grader_parse_error", f"{where}: the reply is neither a number nor JSON with a result: {text[:200]!r}"
        )
    low, high = score_range
    if not low <= score <= high:
        raise CannotGrade(
            "model_grader_parse_error", f"{where}: the reply's score {score:g} is not between {low:g} and {high:g}"
        )
    return score


def _after_thought(reply: str) -> str:
    """Without what a model thinks aloud; some chat templates begin the thought, so that the reply only ends it."""
    return reply.rpartition("</think>")[2].partition("<think>")[0].strip()


def _number(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    found = find_json(text)
    result = found.value.get("result") if found and isinstance(found.value, dict) else None
    if isinstance(result, str) and _NUMBER.fullmatch(result.strip()):
        return float(result)
    if isinstance(result, bool) or not isinstance(result, int | float):
        return None
    try:
        return float(result) if math.isfinite(result) else None
    except OverflowError:
        return None
