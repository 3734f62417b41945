"""What an engine answered, read back: completions, chunks of a stream, and OpenAI's error objects as our errors."""

from __future__ import annotations

from typing import Any

import msgspec

from tunesmith.errors import Busy, PromptRefused, TunesmithError, Unavailable

_LONGEST_TOLD = 2000


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a prompt and its answer."""

    prompt_tokens: int = 0
    """Of the conversation as the chat template renders it."""
    completion_tokens: int = 0
    """Of the answer, with the token that ended it."""
    total_tokens: int = 0
    """Both."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said."""

    role: str = "assistant"
    """Always the assistant."""
    content: str | None = None
    """The text."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a conversation."""

    model: str
    """The model reference that was asked for."""
    message: AnswerMessage
    """What it said."""
    finish_reason: str | None
    """`stop`: it ended by itself, or with a stop text; `length`: it was cut."""
    usage: Usage
    """Of this answer."""


class _Choice(msgspec.Struct, frozen=True):
    message: AnswerMessage = AnswerMessage()
    delta: AnswerMessage = AnswerMessage()
    finish_reason: str | None = None


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    param: str | None = None
    code: Any = None


class Completion(msgspec.Struct, frozen=True):
    """A completion, or a chunk of one, as far as it is read here."""

    choices: tuple[_Choice, ...] = ()
    usage: Usage | None = None
    error: _Error | None = None


decode_completion = msgspec.json.Decoder(Completion).decode


def error_of(status: int, body: bytes) -> TunesmithError:
    """The error that an engine's refusal is."""
    try:
        said = decode_completion(body).error or _Error()
    except msgspec.DecodeError:
        said = _Error(message=body[:_LONGEST_TOLD].decode(errors="replace"))
    text = said.message[:_LONGEST_TOLD] or f"its engine answered {status}"
    if status == 429:
        return Busy(text, mend="try again in a moment")
    if status == 404:
        return Unavailable(text, where="model", mend="try again: its engine has just been restarted")
    if 400 <= status < 500:
        return PromptRefused(text, where=said.param, mend="change the request")
    return Unavailable(f"its engine failed: {text}", mend="see the engine's log; try again")


def answer_of(body: bytes, model: str) -> Answer:
    """The answer in an engine's completion.

    Raises:
        Unavailable: it is none.
    """
    try:
        completion = decode_completion(body)
        choice = completion.choices[0]
    except (msgspec.DecodeError, IndexError) as error:
        raise Unavailable(f"its engine answered something else: {error}", mend="see the engine's log") from error
    return Answer(
        model=model, message=choice.message, finish_reason=choice.finish_reason, usage=completion.usage or Usage()
    )
