"""What the fields of a run's events may hold: numbers where numbers belong, and all of it bounded.

A process prints what it likes. Between its log and everybody who reads its events stands this check, so that nobody behind
it meets text in the place of a step, or a number that no float can hold. Pure; what is left out is said in words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

MOST_NAMES = 1000
"""So many names one event may have, and so many metrics a run."""
_LONGEST_NAME = 200
_LONGEST_TEXT = 1000
_LONGEST_PATH = 4096
_LONGEST_MESSAGE = 16_384
_BEYOND_COUNTING = 2**53
_BEYOND_WHOLE = 2**63
_SHOWN = 60

# As transformers prints numbers, also as text. What float() takes besides, such as 1_000, is no number to anybody else.
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_LONGEST_NUMBER = 40


class Checked(NamedTuple):
    """An event's fields as everybody may use them, and what was left out, for people."""

    fields: dict[str, Any]
    faults: tuple[str, ...]


class _Wrong(NamedTuple):
    """Stands for a value that is left out."""

    what: str


_Check: TypeAlias = Callable[[Any], Any]
"""Answers the value as it may be used, or what is wrong with it."""


def checked(kind: str, fields: Mapping[str, Any]) -> Checked:
    """The fields without those that are not what they must be. A null stays: it says that there is no value."""
    known = _CHECKS.get(kind, {})
    others = _measure if kind == "metrics" else _anything
    kept: dict[str, Any] = {}
    faults: dict[str, None] = {}
    for name, value in islice(fields.items(), MOST_NAMES):
        good = known.get(name, others)(value) if value is not None else None
        if isinstance(good, Checked):
            faults |= dict.fromkeys(good.faults)
            good = good.fields
        if len(name) > _LONGEST_NAME:
            faults[f"a {kind} line has a name of more than {_LONGEST_NAME} characters; it was left out"] = None
        elif isinstance(good, _Wrong):
            faults[f"{name[:_SHOWN]} in a {kind} line is {good.what}; it was left out"] = None
        else:
            kept[name] = good
    if len(fields) > MOST_NAMES:
        faults[f"a {kind} line has more than {MOST_NAMES} names; those beyond were left out"] = None
    return Checked(kept, tuple(faults))


def finite(value: object) -> float | None:
    """A number, or a number as text, that a float can hold."""
    if isinstance(value, str):
        value = _read_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _read_number(text: str) -> int | float | None:
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    return float(text) if set(text) & set(".eE") else int(text)


def _number(value: Any) -> Any:
    if isinstance(value, str) and _NOT_FINITE.fullmatch(value):
        return None
    number = finite(value)
    return number if number is not None else _Wrong(f"{_described(value)} where a number belongs")


def _position(value: Any) -> Any:
    """A number on an axis: an epoch, seconds left."""
    number = _number(value)
    if isinstance(number, float) and not 0 <= number < _BEYOND_COUNTING:
        return _Wrong("no number that it can have")
    return number


def _count(value: Any) -> Any:
    """A count: steps are never negative, and beyond 2**53 a number is no count but a mistake."""
    number = _position(value)
    return int(number) if isinstance(number, float) else number


def _measure(value: Any) -> Any:
    """What a metrics line may say besides: a number, something that somebody noted with it, or lists of those."""
    if isinstance(value, str):
        if _NOT_FINITE.fullmatch(value):
            return None
        number = _read_number(value)
        value = value if number is None else number
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int) and -_BEYOND_WHOLE <= value < _BEYOND_WHOLE:
            return value
        number = finite(value)
        return number if number is not None else _Wrong("a number that is too large")
    return _anything(value)


def _anything(value: Any) -> Any:
    return _Wrong("too long a text") if isinstance(value, str) and len(value) > _LONGEST_MESSAGE else value


def _measures(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _Wrong(f"{_described(value)} where metrics by name belong")
    return checked("metrics", value)


def _text(longest: int) -> _Check:
    def check(value: Any) -> Any:
        if not isinstance(value, str):
            return _Wrong(f"{_described(value)} where text belongs")
        return value if len(value) <= longest else _Wrong("too long a text")

    return check


def _message(value: Any) -> Any:
    """An error's words are worth more than their end."""
    return value[:_LONGEST_MESSAGE] if isinstance(value, str) else _Wrong(f"{_described(value)} where text belongs")


def _described(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", list: "a list", dict: "a mapping", int: "too large a number", float: "a number"}
    return names.get(type(value), "something")


_short, _path = _text(_LONGEST_TEXT), _text(_LONGEST_PATH)
_ADVANCE: Mapping[str, _Check] = {
    "at": _number,
    "step": _count,
    "total_steps": _count,
    "epoch": _position,
    "eta_seconds": _position,
    "phase": _short,
}
_CHECKS: Mapping[str, Mapping[str, _Check]] = MappingProxyType(
    {
        "metrics": _ADVANCE,
        "progress": {**_ADVANCE, "part": _short},
        "checkpoint": {"at": _number, "path": _path, "step": _count, "metrics": _measures},
        "artifact": {"at": _number, "path": _path, "kind": _short},
        "result": {"at": _number, "model": _path, "report": _path, "finetune": _path, "metrics": _measures},
        "message": {"at": _number, "level": _short, "text": _message, "where": _message, "mend": _message},
    }
)
