"""Looks at conversations by column: all first contents, all second ones, and so on, of those whose roles are the same.

Only for what is decoded and typed already; what is wrong with the others is for ``shapes`` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import chain, pairwise
from typing import Any, Protocol, TypeVar

import msgspec

Roles = tuple[str, ...]
Wanted = Callable[[Roles], bool]
_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)


class Turn(Protocol):
    """A message, whatever its fields are called in the file."""

    role: Any
    content: str


class SameRoles(msgspec.Struct, frozen=True, gc=False):
    """Good conversations whose messages have the same roles."""

    roles: Roles
    columns: Sequence[Sequence[str]]
    places: Sequence[int]


def group_by_roles(
    talks: Sequence[Sequence[Turn]], places: Sequence[int], wanted: Wanted
) -> tuple[list[SameRoles], list[int]]:
    """Conversations by their roles, in the order of the first of each; and the places of those whose roles are not
    wanted, or in which somebody says nothing.
    """
    found: list[tuple[int, SameRoles]] = []
    doubtful: list[int] = []
    for size, sized in _grouped(list(map(len, talks))):
        turns = list(chain.from_iterable(picked(talks, sized)))
        roles = [turn.role for turn in turns]
        contents = [turn.content for turn in turns]
        patterns = list(zip(*[roles[number::size] for number in range(size)], strict=True)) or [()] * len(sized)
        where = picked(places, sized)
        for pattern, same in _grouped(patterns):
            here = picked(where, same)
            columns = [picked(contents[number::size], same) for number in range(size)]
            good = saying_something(columns) if wanted(pattern) else ()
            if good:
                some = [picked(column, good) for column in columns]
                found.append((here[0], SameRoles(pattern, some, picked(here, good))))
            if len(good) < len(here):
                doubtful += set(here).difference(picked(here, good))
    found.sort(key=lambda one: one[0])
    return [one for _, one in found], doubtful


def saying_something(columns: Sequence[Sequence[str]]) -> Sequence[int]:
    """The numbers of the rows that have no blank text."""
    if all(map(_says_something, columns)):
        return range(len(columns[0]))
    return [number for number, texts in enumerate(zip(*columns, strict=True)) if _says_something(texts)]


def picked(items: Sequence[_Item], numbers: Sequence[int]) -> Sequence[_Item]:
    """Those with the numbers, which are in order and no two the same."""
    return items if len(numbers) == len(items) else [items[number] for number in numbers]


def teaches(roles: Roles) -> bool:
    """Whether there is an answer to learn from."""
    return "assistant" in roles


def is_tidy(roles: Roles) -> bool:
    """Whether processing would leave the conversation as it is: no two turns of one role together, system first."""
    return "assistant" in roles and "system" not in roles[1:] and all(a != b or a == "tool" for a, b in pairwise(roles))


def _grouped(keys: Sequence[_Key]) -> list[tuple[_Key, Sequence[int]]]:
    """Every key with the numbers of its places, in the order of the first ones."""
    if keys and keys.count(keys[0]) == len(keys):
        return [(keys[0], range(len(keys)))]
    groups: dict[_Key, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    return list(groups.items())


def _says_something(texts: Sequence[str]) -> bool:
    return all(texts) and not any(map(str.isspace, texts))
