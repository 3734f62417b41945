"""What is asked of a model, and the body that an engine is sent for it. The engine checks what only it can know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

MOST_IN_A_BATCH = 1000
_Tokens = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_Content = Annotated[str, msgspec.Meta(max_length=2_000_000)]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """Who says it."""
    content: _Content | None
    """What is said."""
    name: str | None = None
    """Who exactly, for templates that tell speakers of one role apart."""
    tool_calls: list[dict[str, Any]] | None = None
    """Of the assistant, given to the chat template."""
    tool_call_id: str | None = None
    """Which call a tool's message answers."""


class GenerationFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an answer is made. What is left out is as the model's authors set it."""

    model: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    """Any model reference; without one, `default_model` from the settings."""
    max_tokens: _Tokens | None = None
    """Tokens after which an answer is cut; without it, only the model's context limits it."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    """0: always the most likely token."""
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Only from the most likely tokens that make up this much together."""
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    """Only from so many of the most likely tokens; 0 and -1: from all."""
    seed: int | None = None
    """The same seed gives the same answer."""
    stop: str | list[str] | None = None
    """Texts that end an answer; they are not part of it."""
    frequency_penalty: _Penalty | None = None
    """Makes a token less likely, the more often the answer has it already."""
    presence_penalty: _Penalty | None = None
    """Makes a token less likely once the answer has it."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}`, or `{"type": "json_schema", "json_schema": {"schema": {...}}}`."""
    tools: list[dict[str, Any]] | None = None
    """Given to the model's chat template."""


class ChatRequest(GenerationFields, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A conversation to be answered."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=10_000)]
    """What was said so far, ending with what is to be answered."""


class BatchItem(GenerationFields, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One conversation of a batch; what it says itself goes before what the batch says for all."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=10_000)]
    """What was said so far, ending with what is to be answered."""


class BatchRequest(GenerationFields, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Many conversations, or prompts, to be answered side by side."""

    requests: Annotated[list[BatchItem], msgspec.Meta(max_length=MOST_IN_A_BATCH)] | None = None
    """Conversations, each with its own fields where it has any."""
    prompts: Annotated[list[_Content], msgspec.Meta(max_length=MOST_IN_A_BATCH)] | None = None
    """Each the one message of a user."""


def completion_body(request: ChatRequest, served_name: str, **others: Any) -> dict[str, Any]:
    """The body of an engine's ``/v1/chat/completions``."""
    return {**msgspec.to_builtins(request), "model": served_name, "n": 1, **others}


def chats_of(batch: BatchRequest) -> list[ChatRequest]:
    """The conversations of a batch, each with all of its fields."""
    shared = _given(batch, leaving_out=("requests", "prompts"))
    if batch.requests is not None:
        return [ChatRequest(**{**shared, **_given(item)}) for item in batch.requests]
    return [ChatRequest(**shared, messages=[Message(role="user", content=prompt)]) for prompt in batch.prompts or ()]


def _given(fields: msgspec.Struct, leaving_out: tuple[str, ...] = ()) -> Mapping[str, Any]:
    found = msgspec.structs.asdict(fields)
    return {name: value for name, value in found.items() if value is not None and name not in leaving_out}
