"""Makes rows uniform: one shape, the roles' usual names, system first, no two turns of one role in a row.

Every change has a name and is counted; what cannot be used is a RowFault. Fields that are not understood are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from tunesmith_workers.data.shapes import Changes, Conversation, Message, Reading, RowFault, Texts, read

ToShape = Literal["messages", "conversations", "instruction", "prompt_completion"]
_SHAREGPT_ROLES = MappingProxyType(
    {"system": "system", "developer": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
)
_OWN_KEYS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "messages": frozenset({"messages", "system", "tools", "functions"}),
        "conversations": frozenset({"conversations", "system", "tools", "functions"}),
        "instruction": frozenset({"instruction", "input", "output", "system"}),
        "prompt_completion": frozenset({"prompt", "completion"}),
        "preference": frozenset({"prompt", "chosen", "rejected", "tools", "functions"}),
        "scored": frozenset({"prompt", "response", "score"}),
        "prompt": frozenset({"prompt", "tools", "functions"}),
    }
)
_OPENAI_PREFERENCE = frozenset({"input", "messages", "preferred_output", "non_preferred_output"})
_JOINED = "\n\n"


class Normalised:
    """A row as it goes out."""

    __slots__ = ("changes", "reading", "row")

    def __init__(self, row: dict[str, Any], reading: Reading, changes: Changes) -> None:
        self.row = row
        self.reading = reading
        """What it meant before anything was mended."""
        self.changes = changes


class Normaliser:
    """Knows which shape is wanted. Without one, a row stays what it is, but ShareGPT's turns and ``instruction`` become
    ``messages``.
    """

    def __init__(self, to_shape: ToShape | None = None, default_system: str | None = None) -> None:
        self._to_shape = to_shape
        self._default_system = default_system

    @property
    def leaves_tidy_messages(self) -> bool:
        """Whether a ``messages`` row with nothing to mend goes out byte for byte."""
        return self._to_shape in (None, "messages") and not self._default_system

    def __call__(self, row: Any) -> Normalised:
        """Raises RowFault when the row cannot be used, or not in the shape that is wanted."""
        changes: Changes = []
        reading = read(row, changes)
        if isinstance(reading, Conversation):
            # Read before what is tidied: a turn of its own fields (from, value) has been renamed, one of ours has not.
            kept_shape = reading.shape if "fields_renamed" not in changes else "messages"
            tidy = self._with_system(_tidied(reading.messages, changes), changes)
            shape: str = self._to_shape or (kept_shape if kept_shape == "conversations" else "messages")
            content = _FROM_MESSAGES[shape](tidy) if self._to_shape or shape == "messages" else {shape: tidy}
        else:
            shape = reading.shape
            content = _as_row(reading)
            if self._to_shape not in (None, shape):
                shape = str(self._to_shape)
                content = _FROM_MESSAGES[shape](self._with_system(_as_messages(reading, shape), changes))
        if shape != reading.shape:
            changes.append(f"{reading.shape}_to_{shape}")
        tools = {"tools": reading.tools} if reading.tools else {}
        return Normalised({**content, **tools, **_kept(row, reading.shape, content)}, reading, changes)

    def _with_system(self, messages: list[Message], changes: Changes) -> list[Message]:
        if not self._default_system or messages[0]["role"] == "system":
            return messages
        changes.append("system_added")
        return [{"role": "system", "content": self._default_system}, *messages]


def _kept(row: dict[str, Any], shape: str, content: dict[str, Any]) -> dict[str, Any]:
    """What the row says beside what is understood."""
    own = _OWN_KEYS[shape]
    if shape == "preference" and "chosen" not in row:
        row = {**row["input"], **row}
        own |= _OPENAI_PREFERENCE
    return {key: value for key, value in row.items() if key not in own and key not in content}


def _tidied(messages: list[Message], changes: Changes) -> list[Message]:
    """System first and once, nothing empty in it, turns of one role joined."""
    system = [message for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if any(message["role"] == "system" for message in messages[len(system) :]):
        changes.append("system_moved_first")
    said = [message for message in system if message["content"].strip()]
    changes += ["empty_system_removed"] * (len(system) - len(said))
    tidy: list[Message] = []
    for message in [*said, *others]:
        if tidy and _can_join(tidy[-1], message):
            changes.append("turns_merged")
            tidy[-1] = {**message, "content": tidy[-1]["content"] + _JOINED + message["content"]}
        else:
            tidy.append(message)
    return tidy


def _can_join(one: Message, other: Message) -> bool:
    # Answers of tools stay apart, each is to a call of its own; and a turn that carries more than text is not touched.
    return one["role"] == other["role"] != "tool" and one.keys() == other.keys() == {"role", "content"}


def _as_row(reading: Texts) -> dict[str, Any]:
    return {**reading.fields, **({} if reading.score is None else {"score": reading.score})}


def _as_messages(reading: Texts, shape: str) -> list[Message]:
    prompt, completion = reading.fields.get("prompt"), reading.fields.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str) or not prompt.strip() or not completion.strip():
        raise _unfit(f"a row of the shape {reading.shape}", shape)
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def _messages_row(messages: list[Message]) -> dict[str, Any]:
    return {"messages": messages}


def _conversations_row(messages: list[Message]) -> dict[str, Any]:
    turns = [
        {
            "from": _SHAREGPT_ROLES[message["role"]],
            "value": message["content"],
            **{key: value for key, value in message.items() if key not in ("role", "content")},
        }
        for message in messages
    ]
    return {"conversations": turns}


def _instruction_row(messages: list[Message]) -> dict[str, Any]:
    system, question, answer = _one_question(messages, "instruction")
    return {"instruction": question, "input": "", "output": answer, **({"system": system} if system else {})}


def _prompt_completion_row(messages: list[Message]) -> dict[str, Any]:
    system, question, answer = _one_question(messages, "prompt_completion")
    return {"prompt": system + _JOINED + question if system else question, "completion": answer}


def _one_question(messages: list[Message], shape: str) -> tuple[str, str, str]:
    roles = [message["role"] for message in messages]
    system = messages[0]["content"] if roles[0] == "system" else ""
    turns = messages[1:] if system else messages
    if [turn["role"] for turn in turns] != ["user", "assistant"] or any(turn.keys() - _PLAIN for turn in turns):
        raise _unfit(f"a conversation of {', '.join(roles[:8])}", shape)
    return system, turns[0]["content"], turns[1]["content"]


def _unfit(what: str, shape: str) -> RowFault:
    return RowFault(f"{what} cannot become {shape}", kind="no_conversion")


_PLAIN = {"role", "content"}
_FROM_MESSAGES: Mapping[str, Callable[[list[Message]], dict[str, Any]]] = MappingProxyType(
    {
        "messages": _messages_row,
        "conversations": _conversations_row,
        "instruction": _instruction_row,
        "prompt_completion": _prompt_completion_row,
    }
)
