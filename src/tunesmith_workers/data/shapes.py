"""What a row means: its shape, its messages with the roles' usual names, its texts. Training and validation both ask here.

Works on decoded JSON. Files are read in ``reader``; what is mended beyond reading is in ``normalise``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

Message = dict[str, Any]
Text = str | list[Message]
"""Plain text, or a conversation."""
Changes = list[str]
"""What reading a row took for granted, one name for each time; counted by whoever wants to know."""

ROLES = ("system", "developer", "user", "assistant", "tool")
ROLE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **{role: role for role in ROLES},
        "human": "user",
        "gpt": "assistant",
        "model": "assistant",
        "bot": "assistant",
        "chatgpt": "assistant",
        "observation": "tool",
        "function": "tool",
    }
)
_SPEAKERS = ("user", "assistant")
"""Whose content must say something; a tool may well answer nothing."""


class RowFault(Exception):
    """What is wrong with one row, in words that go on from its place: "has no known shape"."""

    def __init__(self, message: str, *, kind: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        """A short name that faults are counted by."""
        self.field = field


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


Reading = Conversation | Texts


def read(row: Any, changes: Changes | None = None) -> Reading:
    """What the row means. ``changes`` is told of every rename and conversion.

    Raises:
        RowFault: it cannot be used.
    """
    if not isinstance(row, dict):
        raise RowFault("is not a JSON object", kind="not_an_object")
    return _READERS[shape_of(row)](row, [] if changes is None else changes)


def shape_of(row: Mapping[str, Any]) -> str:
    """The first shape that one of the row's keys belongs to."""
    for key, shape in _SHAPE_BY_KEY:
        if key in row:
            return shape
    keys = ", ".join(str(key)[:40] for key in list(row)[:20]) or "none"
    raise RowFault(
        f"has no known shape (its keys: {keys}); expected messages, conversations, instruction/input/output, "
        "prompt/completion, prompt/chosen/rejected, prompt/response/score, or prompt",
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
    messages = _messages(row[shape], shape, changes)
    system = row.get("system")
    if isinstance(system, str) and system and messages[0]["role"] != "system":
        changes.append("system_field_moved")
        messages = [{"role": "system", "content": system}, *messages]
    if all(message["role"] != "assistant" for message in messages):
        raise RowFault(
            "has no assistant message, so there is nothing to learn from it", kind="no_assistant", field=shape
        )
    tools = row.get("tools") or []
    if not isinstance(tools, list):
        raise RowFault("tools must be a list", kind="wrong_type", field="tools")
    return Conversation(shape=shape, messages=messages, tools=tools)


def _messages(turns: Any, place: str, changes: Changes) -> list[Message]:
    if not isinstance(turns, list) or not turns:
        raise RowFault(f"{place} must be a list with at least one message", kind="no_messages", field=place)
    return [_message(turn, f"{place}[{number}]", changes) for number, turn in enumerate(turns)]


def _message(turn: Any, place: str, changes: Changes) -> Message:
    if not isinstance(turn, dict):
        raise RowFault(f"{place} must be an object with role and content", kind="wrong_type", field=place)
    role_key = "from" if "from" in turn and "role" not in turn else "role"
    content_key = "value" if "value" in turn and "content" not in turn else "content"
    role = turn.get(role_key)
    if not isinstance(role, str) or role not in ROLE_NAMES:
        said = f"has the role {role[:60]!r}" if isinstance(role, str) else "has no role"
        raise RowFault(f"{place} {said}; the roles are {', '.join(ROLES)}", kind="unknown_role", field=place)
    content = turn.get(content_key)
    if content is None and turn.get("tool_calls"):
        content = ""
    name = ROLE_NAMES[role]
    text = _text(content, f"{place}.{content_key}", changes)
    if name in _SPEAKERS and not turn.get("tool_calls"):
        _refuse_empty(text, f"{place}.{content_key}")
    if role_key == "from" or content_key == "value":
        changes.append("fields_renamed")
    if role != name:
        changes.append("role_renamed")
    rest = {key: value for key, value in turn.items() if key not in (role_key, content_key)}
    return {"role": name, "content": text, **rest}


def _text(content: Any, place: str, changes: Changes) -> str:
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        changes.append("parts_joined")
        return "".join(_text(part.get("text"), place, changes) for part in content)
    if not isinstance(content, str):
        raise RowFault(
            f"{place} must be text, not {'missing' if content is None else type(content).__name__}",
            kind="wrong_type",
            field=place,
        )
    return content


def _refuse_empty(text: str, place: str) -> None:
    if not text or text.isspace():
        raise RowFault(f"{place} is empty", kind="empty_content", field=place)


def _instruction(row: dict[str, Any], changes: Changes) -> Conversation:
    parts = [_text(row[key], key, changes) for key in ("instruction", "input") if row.get(key) is not None]
    question = "\n\n".join(part for part in parts if part)
    if not question or question.isspace():
        raise RowFault("has an output, but neither instruction nor input", kind="empty_content", field="instruction")
    answer = _text(row["output"], "output", changes)
    _refuse_empty(answer, "output")
    system = [{"role": "system", "content": _text(row["system"], "system", changes)}] if row.get("system") else []
    messages = [*system, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(shape="instruction", messages=messages)


def _prompt_completion(row: dict[str, Any], changes: Changes) -> Texts:
    prompt = _text(row.get("prompt", ""), "prompt", changes)
    completion = _text(row["completion"], "completion", changes)
    if not completion:
        raise RowFault("has an empty completion", kind="empty_content", field="completion")
    return Texts(shape="prompt_completion", fields={"prompt": prompt, "completion": completion})


def _preference(row: dict[str, Any], changes: Changes) -> Texts:
    fields = {name: _text_or_messages(row, name, changes) for name in ("prompt", "chosen", "rejected")}
    if fields["chosen"] == fields["rejected"]:
        raise RowFault("chosen and rejected are the same, so there is nothing to prefer", kind="no_preference")
    return Texts(shape="preference", fields=fields)


def _scored(row: dict[str, Any], changes: Changes) -> Texts:
    fields = {name: _text_or_messages(row, name, changes) for name in ("prompt", "response")}
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise RowFault("score must be a number", kind="wrong_type", field="score")
    return Texts(shape="scored", fields=fields, score=float(score))


def _prompt(row: dict[str, Any], changes: Changes) -> Texts:
    return Texts(shape="prompt", fields={"prompt": _text_or_messages(row, "prompt", changes)})


def _text_or_messages(row: dict[str, Any], name: str, changes: Changes) -> Text:
    value = row.get(name)
    if value is None:
        raise RowFault(f"has no {name}", kind="missing_field", field=name)
    # Parts of a content are objects with a type; messages have a role.
    if isinstance(value, list) and not all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return _messages(value, name, changes)
    text = _text(value, name, changes)
    _refuse_empty(text, name)
    return text


_SHAPE_BY_KEY = (
    ("messages", "messages"),
    ("conversations", "conversations"),
    ("output", "instruction"),
    ("completion", "prompt_completion"),
    ("chosen", "preference"),
    ("rejected", "preference"),
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
