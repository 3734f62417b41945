"""The fast way to know that rows are good ``messages`` rows: one typed decoding, and a look at roles and contents by column.

It says yes or "look closer", never what is wrong; whatever it does not vouch for is read by ``shapes``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

Roles = tuple[str, ...]


class _Message(msgspec.Struct, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
    tool_calls: UnsetType = UNSET


class _Row(msgspec.Struct, gc=False):
    messages: list[_Message]
    system: UnsetType = UNSET
    tools: list[msgspec.Raw] | None = None


class Sorted(msgspec.Struct, frozen=True, gc=False):
    """Good rows by the roles of their messages, each as its contents; and the places of those to look at closely."""

    good: dict[Roles, list[list[str]]]
    doubtful: list[int]


_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder(_Row).decode


def sort_out(rows: Sequence[bytes], wanted: Callable[[Roles], bool]) -> Sorted:
    """Tell the rows that are good, and have ``wanted`` roles, from the others."""
    groups: dict[Roles, tuple[list[list[str]], list[int]]] = {}
    doubtful: list[int] = []
    for place, row in enumerate(rows):
        try:
            messages = _decode(row).messages
        except _REFUSALS:
            doubtful.append(place)
            continue
        roles: Roles = tuple([message.role for message in messages])
        try:
            contents, places = groups[roles]
        except KeyError:
            contents, places = groups[roles] = ([], [])
        contents.append([message.content for message in messages])
        places.append(place)
    good: dict[Roles, list[list[str]]] = {}
    for roles, (contents, places) in groups.items():
        if not wanted(roles):
            doubtful += places
        elif all(_says_something(column) for column in zip(*contents, strict=True)):
            good[roles] = contents
        else:
            some = [one for one in contents if _says_something(one)]
            if some:
                good[roles] = some
            doubtful += [place for one, place in zip(contents, places, strict=True) if not _says_something(one)]
    return Sorted(good, sorted(doubtful))


def teaches(roles: Roles) -> bool:
    """Whether there is an answer to learn from."""
    return "assistant" in roles


def is_tidy(roles: Roles) -> bool:
    """Whether processing would leave the conversation as it is: no two turns of one role together, system first."""
    return "assistant" in roles and "system" not in roles[1:] and all(a != b or a == "tool" for a, b in pairwise(roles))


def _says_something(contents: Sequence[str]) -> bool:
    return all(contents) and not any(map(str.isspace, contents))
