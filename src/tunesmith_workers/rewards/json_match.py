"""How much of a JSON answer is right, field by field. Text around the JSON, such as a code fence, is allowed for and told.

A field is a value that holds no others, named by its path: ``{"a": {"b": [1]}}`` has the one field a, b, 0. The order of keys
does not matter, 1 equals 1.0, and true is no number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

_MOST_OPENINGS = 50
"""How many brackets are tried as the beginning of the JSON: each may be read to the end of the answer."""
_FENCE = re.compile(r"```[\w-]*[^\S\n]*\n(.*?)```", re.DOTALL)

Path: TypeAlias = tuple[str | int, ...]


class Found(msgspec.Struct, frozen=True):
    """The JSON in an answer."""

    value: Any
    wrapped: bool
    """Whether there is text around it."""


class JsonScore(msgspec.Struct, frozen=True):
    """One answer beside the expected one."""

    fields: int
    """How many either of them has: a field that nobody asked for is wrong, too."""
    right: int
    valid: bool
    wrapped: bool

    @property
    def share(self) -> float:
        return self.right / self.fields


def score_json(expected: Any, answer: str) -> JsonScore:
    """Compare an answer with the expected JSON, already read."""
    wanted = dict(_fields(expected, ()))
    found = find_json(answer, type(expected))
    if found is None:
        return JsonScore(len(wanted), 0, valid=False, wrapped=False)
    got = dict(_fields(found.value, ()))
    right = sum(path in got and _equal(value, got[path]) for path, value in wanted.items())
    return JsonScore(len(wanted.keys() | got.keys()), right, valid=True, wrapped=found.wrapped)


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON."""
    ours, theirs = dict(_fields(one, ())), dict(_fields(other, ()))
    return ours.keys() == theirs.keys() and all(_equal(value, theirs[path]) for path, value in ours.items())


def find_json(text: str, kind: type = dict) -> Found | None:
    """The JSON in a text: all of it, or what a code fence holds, or the first that begins as ``kind`` does."""
    whole = _read(text.strip())
    if whole is not None:
        return Found(whole[0], wrapped=False)
    for fenced in _FENCE.findall(text):
        inside = _read(fenced.strip())
        if inside is not None:
            return Found(inside[0], wrapped=True)
    opening = "{" if kind is dict else "[" if kind is list else None
    if opening is None:
        return None
    for start in _places(text, opening):
        begun = _read_beginning(text, start)
        if begun is not None:
            return Found(begun[0], wrapped=True)
    return None


def read_json(text: str) -> Any:
    """A text that is JSON and nothing else.

    Raises:
        ValueError: it is not.
    """
    found = _read(text.strip())
    if found is None:
        raise ValueError("no JSON")
    return found[0]


def _read(text: str) -> tuple[Any] | None:
    """In a tuple, because null is a value."""
    try:
        return (json.loads(text, parse_constant=_refuse),)
    except (ValueError, RecursionError):
        return None


def _read_beginning(text: str, start: int) -> tuple[Any] | None:
    try:
        return (json.JSONDecoder(parse_constant=_refuse).raw_decode(text, start)[0],)
    except (ValueError, RecursionError):
        return None


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _places(text: str, opening: str) -> Iterator[int]:
    start = text.find(opening)
    for _ in range(_MOST_OPENINGS):
        if start < 0:
            return
        yield start
        start = text.find(opening, start + 1)


def _fields(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value that holds no others; an empty list or mapping is one."""
    todo = [(path, value)]
    while todo:
        here, one = todo.pop()
        if isinstance(one, dict) and one:
            todo += [((*here, key), inner) for key, inner in one.items()]
        elif isinstance(one, list) and one:
            todo += [((*here, place), inner) for place, inner in enumerate(one)]
        else:
            yield here, one


def _equal(wanted: Any, got: Any) -> bool:
    return isinstance(wanted, bool) == isinstance(got, bool) and bool(wanted == got)
