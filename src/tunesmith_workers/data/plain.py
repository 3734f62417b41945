"""Plain rows: texts, an ``id`` perhaps, and nothing else. Decoded by type, looked at by column, written anew.

What is said here of a shape must be what ``shapes`` and ``normalise`` say of it; rows that are not plain are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from tunesmith_workers.data.by_roles import Roles, Wanted, group_by_roles, picked, saying_something
from tunesmith_workers.data.reader import as_lines
from tunesmith_workers.data.shapes import ROLE_NAMES

_AnyRole = Literal[
    "system", "developer", "user", "assistant", "tool",
    "human", "gpt", "model", "bot", "chatgpt", "observation", "function",
]  # fmt: skip


class Plain(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Good rows of one kind, by column."""

    shape: str
    names: Roles
    """Of the columns: roles in a conversation, fields in other rows."""
    columns: Sequence[Sequence[str]]
    places: Sequence[int]
    values: Callable[[], Iterable[Any]]
    """What goes out."""
    is_conversation: bool = True
    changes: Sequence[str] = ()
    """Of every row."""
    scores: Sequence[float] | None = None

    def outgoing(self) -> list[bytes]:
        """The rows as lines with their ends."""
        return as_lines(_encode_lines(self.values()))


Found = tuple[list[Plain], list[int]]
"""Good rows, and the places of those to look at closely."""


class Kind(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One way that rows of a shape are written."""

    shape: str
    sign: bytes
    """Such a row has it; in a text, its quotes would have backslashes."""
    decode: Callable[[bytes], Any]
    sort_out: Callable[[Sequence[Any], Sequence[int], Wanted], Found]
    """Given decoded rows and their places."""


class _Strict(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """What else a row says is kept with care, elsewhere."""


class _Message(_Strict, gc=False):
    role: _AnyRole
    content: str


class _Messages(_Strict, gc=False):
    messages: list[_Message]
    system: str | UnsetType | None = UNSET
    id: Any = UNSET


class _Conversations(_Strict, gc=False, rename={"messages": "conversations"}):
    messages: list[_Message]
    system: str | None = None
    id: Any = UNSET


class _ShareGptMessage(_Strict, gc=False, rename={"role": "from", "content": "value"}):
    role: _AnyRole
    content: str


class _ShareGpt(_Strict, gc=False, rename={"messages": "conversations"}):
    messages: list[_ShareGptMessage]
    system: str | None = None
    id: Any = UNSET


class _Instruction(_Strict, gc=False):
    output: str
    instruction: str | None = None
    input: str | None = None
    system: str | None = None
    id: Any = UNSET


class _PromptCompletion(_Strict, gc=False, kw_only=True):
    prompt: str = ""
    completion: str
    id: Any = UNSET

    def is_good(self) -> bool:
        return bool(self.completion)


class _Preference(_Strict, gc=False):
    prompt: str
    chosen: str
    rejected: str
    id: Any = UNSET

    def is_good(self) -> bool:
        return _says_something(self.prompt, self.chosen, self.rejected) and self.chosen != self.rejected


class _Scored(_Strict, gc=False):
    prompt: str
    response: str
    score: float
    id: Any = UNSET

    def is_good(self) -> bool:
        return _says_something(self.prompt, self.response)


class _Prompt(_Strict, gc=False):
    prompt: str
    id: Any = UNSET

    def is_good(self) -> bool:
        return _says_something(self.prompt)


class _OutMessage(msgspec.Struct, gc=False):
    role: str
    content: str


class _Out(msgspec.Struct, gc=False):
    """A conversation as it goes out."""

    messages: list[_OutMessage]
    id: Any


class _OutConversations(msgspec.Struct, gc=False, rename={"messages": "conversations"}):
    """The same, where it came in with role and content below this key."""

    messages: list[_OutMessage]
    id: Any


_Row = TypeVar("_Row")
_encode_lines = msgspec.json.Encoder().encode_lines


def has_usual_names(row: Any) -> bool:
    """Whether a decoded row of the kind ``messages`` may go out as it came: no system text beside them, no other roles."""
    return row.system is UNSET and all(ROLE_NAMES[message.role] == message.role for message in row.messages)


def _conversations(
    shape: str, changes: Sequence[str], out: type, rows: Sequence[Any], places: Sequence[int], wanted: Wanted
) -> Found:
    """``changes`` are those to every message."""
    found: list[Plain] = []
    doubtful: list[int] = []
    for system, some, where in _apart(rows, places, _moves_system):
        talks = [[_Message("system", row.system), *row.messages] if system else row.messages for row in some]
        groups, others = group_by_roles(talks, range(len(some)), lambda roles: wanted(_usual(roles)))
        doubtful += [where[number] for number in others]
        for group in groups:
            told = [change for role in group.roles[system:] for change in (*changes, *_rename(role))]
            told += ["system_field_moved"] * system
            here = picked(where, group.places)
            found.append(
                _conversation(shape, _usual(group.roles), group.columns, here, picked(some, group.places), told, out)
            )
    return found, doubtful


def _instructions(rows: Sequence[_Instruction], places: Sequence[int], _wanted: Wanted) -> Found:
    found: list[Plain] = []
    doubtful: list[int] = []
    for system, some, where in _apart(rows, places, lambda row: bool(row.system)):
        questions = ["\n\n".join(filter(None, (row.instruction, row.input))) for row in some]
        columns: list[Sequence[str]] = [questions, [row.output for row in some]]
        names: Roles = ("user", "assistant")
        if system:
            columns, names = [[row.system or "" for row in some], *columns], ("system", *names)
        good = saying_something(columns)
        doubtful += _without(where, good)
        if good:
            columns = [picked(column, good) for column in columns]
            found.append(_conversation("instruction", names, columns, picked(where, good), picked(some, good), []))
    return found, doubtful


def _texts(shape: str, names: Roles, rows: Sequence[Any], places: Sequence[int], _wanted: Wanted) -> Found:
    good = [number for number, row in enumerate(rows) if row.is_good()]
    if not good:
        return [], list(places)
    some = picked(rows, good)
    plain = Plain(
        shape=shape,
        names=names,
        columns=[[getattr(row, name) for row in some] for name in names],
        places=picked(places, good),
        values=lambda: some,
        is_conversation=False,
        scores=[row.score for row in some] if shape == "scored" else None,
    )
    return [plain], _without(places, good)


def _conversation(
    shape: str,
    names: Roles,
    columns: Sequence[Sequence[str]],
    places: Sequence[int],
    rows: Sequence[Any],
    changes: list[str],
    out: type = _Out,
) -> Plain:
    def values() -> list[Any]:
        said = zip(*columns, strict=True)
        return [out(list(map(_OutMessage, names, texts)), row.id) for texts, row in zip(said, rows, strict=True)]

    if shape != "messages" and out is _Out:
        changes = [*changes, f"{shape}_to_messages"]
    return Plain(shape=shape, names=names, columns=columns, places=places, values=values, changes=changes)


def _apart(
    rows: Sequence[_Row], places: Sequence[int], is_marked: Callable[[_Row], bool]
) -> list[tuple[bool, Sequence[_Row], Sequence[int]]]:
    """The rows without the mark and those with it, if there are any, with their places."""
    marks = list(map(is_marked, rows))
    both = ((one, [number for number, mark in enumerate(marks) if mark is one]) for one in (False, True))
    return [(one, picked(rows, numbers), picked(places, numbers)) for one, numbers in both if numbers]


def _without(places: Sequence[int], numbers: Sequence[int]) -> list[int]:
    return [] if len(numbers) == len(places) else list(set(places).difference(picked(places, numbers)))


def _moves_system(row: Any) -> bool:
    return bool(row.system and row.messages and row.messages[0].role != "system")


def _usual(roles: Roles) -> Roles:
    return tuple([ROLE_NAMES[role] for role in roles])


def _rename(role: str) -> Sequence[str]:
    return () if ROLE_NAMES[role] == role else ("role_renamed",)


def _says_something(*texts: str) -> bool:
    return all(texts) and not any(map(str.isspace, texts))


def _of_conversations(shape: str, key: str, row: type, changes: Sequence[str] = (), out: type = _Out) -> Kind:
    return Kind(shape, _sign(key), msgspec.json.Decoder(row).decode, partial(_conversations, shape, changes, out))


def _of_texts(shape: str, key: str, row: type, *names: str) -> Kind:
    return Kind(shape, _sign(key), msgspec.json.Decoder(row).decode, partial(_texts, shape, names))


def _sign(key: str) -> bytes:
    return b'"%s"' % key.encode()


_MESSAGES = _of_conversations("messages", "messages", _Messages)
_SHAREGPT = _of_conversations("conversations", "from", _ShareGpt, ("fields_renamed",))
_INSTRUCTION = Kind("instruction", _sign("output"), msgspec.json.Decoder(_Instruction).decode, _instructions)
TO_MESSAGES = (
    _MESSAGES,
    _SHAREGPT,
    _of_conversations("conversations", "conversations", _Conversations),
    _INSTRUCTION,
)
"""Where every row is to become ``messages``."""
KINDS = (
    _MESSAGES,
    _SHAREGPT,
    _of_conversations("conversations", "conversations", _Conversations, out=_OutConversations),
    _INSTRUCTION,
    _of_texts("prompt_completion", "completion", _PromptCompletion, "prompt", "completion"),
    _of_texts("preference", "chosen", _Preference, "prompt", "chosen", "rejected"),
    _of_texts("scored", "score", _Scored, "prompt", "response"),
    _of_texts("prompt", "prompt", _Prompt, "prompt"),
)
"""The first whose sign a row has is tried; when the row is of another, it is looked at closely."""
