"""What a row means: its shape, its messages with the roles' usual names, its texts. Training and validation both ask here.

Works on decoded JSON. Files are read in ``reader``; messages in ``messages``; what is mended beyond reading is in ``normalise``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from tunesmith_workers.data.messages import (
    ROLE_NAMES,
    ROLES,
    Message,
    ends_with_answer,
    is_trained,
    messages_of,
    refuse_empty,
    text_of,
)
from tunesmith_workers.data.row_faults import Changes, RowFault
from tunesmith_workers.data.tool_calls import tools_of

__all__ = [
    "ROLES",
    "ROLE_NAMES",
    "SHAPE_KEYS",
    "Changes",
    "Conversation",
    "Message",
    "Reading",
    "RowFault",
    "Shape",
    "Texts",
    "is_trained",
    "read",
    "shape_of",
    "texts_of",
]

Shape = Literal["messages", "conversations", "instruction", "prompt_completion", "preference", "scored", "prompt"]
Text = str | list[Message]
"""Plain text, or a conversation."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``messages``, ``conversations`` or ``instruction``: all become messages."""

    shape: str
    messages: list[Message]
    tools: list[Any] = []


class Texts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Every other shape: its fields by name, in order."""

    shape: str
    fields: dict[str, Text]
    score: float | None = None
    tools: list[Any] = []


Reading = Conversation | Texts


def read(row: Any, changes: Changes | None = None, shapes: Collection[str] | None = None) -> Reading:
    """What the row means. ``changes`` is told of every rename and conversion; without ``shapes``, rows of all are taken.

    Where prompts are taken, ``messages`` that do not end with an answer are one, as in OpenAI's files for reinforcement.

    Raises:
        RowFault: it cannot be used.
    """
    if not isinstance(row, dict):
        raise RowFault("is not a JSON object", kind="not_an_object")
    shape = shape_of(row)
    reader = _READERS[shape]
    if shapes is not None:
        if shape == "messages" and "prompt" in shapes and not ends_with_answer(row["messages"]):
            shape, reader = "prompt", _prompt_of_messages
        _refuse_other(row, shape, shapes)
    return reader(row, [] if changes is None else changes)


def shape_of(row: Mapping[str, Any]) -> str:
    """The first shape that one of the row's keys belongs to."""
    for key, shape in _SHAPE_BY_KEY:
        if key in row:
            return shape
    keys = ", ".join(str(key)[:40] for key in list(row)[:20]) or "none"
    raise RowFault(
        f"has no known shape (its keys: {keys}); expected messages, conversations, instruction/input/output, "
        "prompt/completion, prompt/chosen/rejected, input/preferred_output/non_preferred_output, prompt/response/score, "
        "or prompt",
        kind="unknown_shape",
    )


def texts_of(reading: Reading) -> list[tuple[str, str]]:
    """Every text in it, with the role or field it belongs to."""
    if isinstance(reading, Conversation):
        return [(message["role"], message["content"]) for message in reading.messages]
    found: list[tuple[str, str]] = []
    for name, text in reading.fields.items():
        found += [(name, text)] if isinstance(text, str) else [(name, message["content"]) for message in text]
    return found


def _conversation(row: dict[str, Any], changes: Changes) -> Conversation:
    shape = "messages" if "messages" in row else "conversations"
    messages = messages_of(row[shape], shape, changes)
    system = row.get("system")
    if isinstance(system, str) and system and messages[0]["role"] != "system":
        changes.append("system_field_moved")
        messages = [{"role": "system", "content": system}, *messages]
    _refuse_untrained(messages, shape)
    return Conversation(shape=shape, messages=messages, tools=tools_of(row, changes))


def _refuse_untrained(messages: list[Message], place: str) -> None:
    if any(map(is_trained, messages)):
        return
    if any(message["role"] == "assistant" for message in messages):
        said, kind = "has weight 0 on every assistant message", "no_trained_message"
    else:
        said, kind = "has no assistant message", "no_assistant"
    raise RowFault(f"{said}, so there is nothing to learn from it", kind=kind, field=place)


def _refuse_other(row: Mapping[str, Any], shape: str, shapes: Collection[str]) -> None:
    if shape in shapes:
        return
    if shape == "messages" and "prompt" in shapes:
        field = f"messages[{len(row['messages']) - 1}]"
        raise RowFault(
            f"{field} is the assistant's, and here the last message must be one to be answered",
            kind="other_shape",
            field=field,
        )
    raise RowFault(f"has the shape {shape}, and only {', '.join(shapes)} can be used here", kind="other_shape")


def _instruction(row: dict[str, Any], changes: Changes) -> Conversation:
    parts = [text_of(row[key], key, changes) for key in ("instruction", "input") if row.get(key) is not None]
    question = "\n\n".join(part for part in parts if part)
    if not question or question.isspace():
        raise RowFault("has an output, but neither instruction nor input", kind="empty_content", field="instruction")
    answer = text_of(row["output"], "output", changes)
    refuse_empty(answer, "output")
    system = [{"role": "system", "content": text_of(row["system"], "system", changes)}] if row.get("system") else []
    messages = [*system, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(shape="instruction", messages=messages)


def _prompt_completion(row: dict[str, Any], changes: Changes) -> Texts:
    prompt = text_of(row.get("prompt", ""), "prompt", changes)
    completion = text_of(row["completion"], "completion", changes)
    if not completion:
        raise RowFault("has an empty completion", kind="empty_content", field="completion")
    return Texts(shape="prompt_completion", fields={"prompt": prompt, "completion": completion})


def _preference(row: dict[str, Any], changes: Changes) -> Texts:
    if "chosen" not in row and "rejected" not in row:
        return _preferred_output(row, changes)
    fields = {name: _text_or_messages(row, name, changes) for name in ("prompt", "chosen", "rejected")}
    if fields["chosen"] == fields["rejected"]:
        raise RowFault("chosen and rejected are the same, so there is nothing to prefer", kind="no_preference")
    return Texts(shape="preference", fields=fields, tools=tools_of(row, changes))


def _preferred_output(row: dict[str, Any], changes: Changes) -> Texts:
    """OpenAI's form, in which the prompt is a conversation with its tools."""
    asked = row.get("input")
    if not isinstance(asked, dict):
        raise RowFault("input must be an object with messages", kind="missing_field", field="input")
    prompt = messages_of(asked.get("messages"), "input.messages", changes)
    chosen, rejected = (_output(row, name, changes) for name in ("preferred_output", "non_preferred_output"))
    if chosen == rejected:
        raise RowFault(
            "preferred_output and non_preferred_output are the same, so there is nothing to prefer",
            kind="no_preference",
        )
    changes.append("fields_renamed")
    fields: dict[str, Text] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return Texts(shape="preference", fields=fields, tools=tools_of(asked, changes, "input."))


def _output(row: dict[str, Any], name: str, changes: Changes) -> list[Message]:
    messages = messages_of(row.get(name), name, changes)
    if messages[-1]["role"] != "assistant":
        field = f"{name}[{len(messages) - 1}]"
        raise RowFault(f"{field} must be the assistant's answer", kind="no_assistant", field=field)
    return messages


def _scored(row: dict[str, Any], changes: Changes) -> Texts:
    fields = {name: _text_or_messages(row, name, changes) for name in ("prompt", "response")}
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise RowFault("score must be a number", kind="wrong_type", field="score")
    return Texts(shape="scored", fields=fields, score=float(score))


def _prompt(row: dict[str, Any], changes: Changes) -> Texts:
    fields = {"prompt": _text_or_messages(row, "prompt", changes)}
    return Texts(shape="prompt", fields=fields, tools=tools_of(row, changes))


def _prompt_of_messages(row: dict[str, Any], changes: Changes) -> Texts:
    messages = messages_of(row["messages"], "messages", changes)
    return Texts(shape="prompt", fields={"prompt": messages}, tools=tools_of(row, changes))


def _text_or_messages(row: dict[str, Any], name: str, changes: Changes) -> Text:
    value = row.get(name)
    if value is None:
        raise RowFault(f"has no {name}", kind="missing_field", field=name)
    if isinstance(value, list) and not all(map(_is_part, value)):
        return messages_of(value, name, changes)
    text = text_of(value, name, changes)
    refuse_empty(text, name)
    return text


def _is_part(value: Any) -> bool:
    # Parts of a content are objects with a type; messages have a role.
    return isinstance(value, dict) and "type" in value and "role" not in value and "from" not in value


_SHAPE_BY_KEY = (
    ("messages", "messages"),
    ("conversations", "conversations"),
    ("output", "instruction"),
    ("completion", "prompt_completion"),
    ("chosen", "preference"),
    ("rejected", "preference"),
    ("preferred_output", "preference"),
    ("non_preferred_output", "preference"),
    ("response", "scored"),
    ("score", "scored"),
    ("prompt", "prompt"),
)
SHAPE_KEYS = frozenset(key for key, _ in _SHAPE_BY_KEY)
"""Keys by which a row is known."""
_READERS: Mapping[str, Callable[[dict[str, Any], Changes], Reading]] = MappingProxyType(
    {
        "messages": _conversation,
        "conversations": _conversation,
        "instruction": _instruction,
        "prompt_completion": _prompt_completion,
        "preference": _preference,
        "scored": _scored,
        "prompt": _prompt,
    }
)
