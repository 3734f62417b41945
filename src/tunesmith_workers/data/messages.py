"""What a message means: its role by the usual name, its content as one text, and whether it is trained.

Takes the messages of OpenAI's training files, and those of ShareGPT. Calls are read in ``tool_calls``, rows in ``shapes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tunesmith_workers.data.row_faults import Changes, RowFault
from tunesmith_workers.data.tool_calls import with_tool_calls

Message = dict[str, Any]

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
_TEXT_OF_PART: Mapping[str, str] = MappingProxyType({"text": "text", "refusal": "refusal"})
"""Parts of a content that are words, and the field that has them."""


def messages_of(turns: Any, place: str, changes: Changes) -> list[Message]:
    """The messages in a list; ``place`` is the list's name.

    Raises:
        RowFault: it is none, it is empty, or one of them cannot be used.
    """
    if not isinstance(turns, list) or not turns:
        raise RowFault(f"{place} must be a list with at least one message", kind="no_messages", field=place)
    return [_message(turn, f"{place}[{number}]", changes) for number, turn in enumerate(turns)]


def is_trained(message: Mapping[str, Any]) -> bool:
    """Whether it is what the model learns to say. Weight 0 is how OpenAI's training files exclude an answer."""
    return bool(message["role"] == "assistant" and message.get("weight") != 0)


def ends_with_answer(turns: Any) -> bool:
    """Whether the last of the messages, as they are in the file, is the assistant's."""
    last = turns[-1] if isinstance(turns, list) and turns else None
    if not isinstance(last, dict):
        return False
    role = last.get("role", last.get("from"))
    return isinstance(role, str) and ROLE_NAMES.get(role) == "assistant"


def text_of(content: Any, place: str, changes: Changes) -> str:
    """The content as one text.

    Raises:
        RowFault: it is none, or a part of it is no text.
    """
    if isinstance(content, list):
        changes.append("parts_joined")
        return "".join(_part(part, f"{place}[{number}]", place) for number, part in enumerate(content))
    if not isinstance(content, str):
        raise _not_text(content, place)
    return content


def refuse_empty(text: str, place: str) -> None:
    """Raises RowFault for a text that says nothing."""
    if not text or text.isspace():
        raise RowFault(f"{place} is empty", kind="empty_content", field=place)


def _message(turn: Any, place: str, changes: Changes) -> Message:
    if not isinstance(turn, dict):
        raise RowFault(f"{place} must be an object with role and content", kind="wrong_type", field=place)
    role_key = "from" if "from" in turn and "role" not in turn else "role"
    content_key = "value" if "value" in turn and "content" not in turn else "content"
    role = turn.get(role_key)
    if not isinstance(role, str) or role not in ROLE_NAMES:
        said = f"has the role {role[:60]!r}" if isinstance(role, str) else "has no role"
        raise RowFault(f"{place} {said}; the roles are {', '.join(ROLES)}", kind="unknown_role", field=place)
    name = ROLE_NAMES[role]
    _refuse_weight(turn.get("weight"), f"{place}.weight")
    rest = {key: value for key, value in turn.items() if key not in (role_key, content_key)}
    rest = with_tool_calls(rest, place, changes)
    content = _content(turn.get(content_key), name, rest, changes)
    text = text_of(content, f"{place}.{content_key}", changes)
    if name in _SPEAKERS and not rest.get("tool_calls"):
        refuse_empty(text, f"{place}.{content_key}")
    if role_key == "from" or content_key == "value":
        changes.append("fields_renamed")
    if role != name:
        changes.append("role_renamed")
    return {"role": name, "content": text, **rest}


def _content(content: Any, role: str, rest: Message, changes: Changes) -> Any:
    """What stands for a content that is missing: a refusal's words, or nothing where a message may say nothing."""
    if content is not None:
        return content
    if role == "assistant" and rest.get("refusal"):
        changes.append("refusal_as_content")
        return rest.pop("refusal")
    return "" if role == "tool" or rest.get("tool_calls") else None


def _refuse_weight(weight: Any, place: str) -> None:
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if weight is None or (is_number and weight in (0, 1)):
        return
    said = str(weight)[:20] if is_number else type(weight).__name__
    raise RowFault(
        f"{place} must be 0 (read, not trained) or 1 (trained), not {said}", kind="wrong_weight", field=place
    )


def _part(part: Any, place: str, content: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise _not_text([part], content)
    if kind not in _TEXT_OF_PART:
        raise RowFault(f"{place} is {kind[:60]!r}, and training is on text", kind="not_text", field=place)
    text = part.get(_TEXT_OF_PART[kind])
    if not isinstance(text, str):
        raise _not_text(text, place)
    return text


def _not_text(value: Any, place: str) -> RowFault:
    said = "missing" if value is None else type(value).__name__
    return RowFault(f"{place} must be text, not {said}", kind="wrong_type", field=place)
