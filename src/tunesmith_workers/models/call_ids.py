"""Ids of tool calls for chat templates that refuse all but nine letters or digits, as those of the Mistral family do.

OpenAI's ids are longer, and its older form has none. Other templates are given the ids as they are.
"""

from __future__ import annotations

from collections import deque
from typing import Any

_LENGTH = 9
_ASKS_LENGTH = f"|length != {_LENGTH}"


def asks_short_ids(template: Any) -> bool:
    """Whether the template, a text or several by name, refuses other ids."""
    return _ASKS_LENGTH in str(template).replace(" | ", "|")


def with_short_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with an id on every call, and the same one on its answer. Answers without one are in the calls' order."""
    waiting: deque[str] = deque()
    found: list[dict[str, Any]] = []
    count = 0
    for message in messages:
        if message.get("tool_calls"):
            calls = [
                {**call, "id": _short(call.get("id") or str(count + at))}
                for at, call in enumerate(message["tool_calls"])
            ]
            count += len(calls)
            waiting.extend(call["id"] for call in calls)
            found.append({**message, "tool_calls": calls})
        elif message["role"] == "tool":
            given = message.get("tool_call_id")
            call_id = _short(given) if given else waiting[0] if waiting else _short("")
            if call_id in waiting:
                waiting.remove(call_id)
            found.append({**message, "tool_call_id": call_id})
        else:
            found.append(message)
    return found


def _short(call_id: Any) -> str:
    return "".join(filter(str.isalnum, str(call_id)))[-_LENGTH:].rjust(_LENGTH, "0")
