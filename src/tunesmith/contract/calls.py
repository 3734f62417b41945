"""The protocol of a worker that is asked: what the service and its worker processes agree on.

    -> {"call":1,"names":["a.jsonl"]}                                a request: one line on the worker's standard input
    <- {"tunesmith":"result","call":1,"rows":12}                     its answer: one event on its standard output, or
    <- {"tunesmith":"message","level":"error","call":1,"text":"no row is left","where":"a.jsonl:7","mend":"add one"}

One request at a time, and every other line that a worker prints is log. ``call`` comes back in the answer; a worker that is
asked only once gets none. That one ends after its answer, and with another code than 0 after an error; a worker that is kept
takes the next request. When its standard input closes, whoever asks is gone, and the worker ends at once, in the middle of its
work too. Deadlines are the caller's: a worker that is too slow is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

CALL: Final = "call"

# The causes of an error that is not a request that makes no sense.
OUT_OF_SPACE: Final = "out_of_space"
PACKAGE_MISSING: Final = "package_missing"
UNEXPECTED: Final = "unexpected"

_WORDS = ("where", "mend", "cause")


class Answer(msgspec.Struct, frozen=True):
    """What was asked for."""

    fields: dict[str, Any]


class Refusal(msgspec.Struct, frozen=True):
    """Why there is no answer, in the worker's own words."""

    text: str = ""
    where: str | None = None
    mend: str | None = None
    cause: str | None = None
    faults: tuple[dict[str, Any], ...] = ()
    """Everything that is wrong, where that is more than one thing: each with message, where and mend."""


class Request(msgspec.Struct, frozen=True):
    """What a worker is asked."""

    call: int | None
    fields: dict[str, Any]


def request_line(request: Mapping[str, Any], call: int | None = None) -> bytes:
    """Raises msgspec.MsgspecError, TypeError: the request is no JSON."""
    return msgspec.json.encode(request if call is None else {CALL: call, **request}) + b"\n"


def read_request(line: bytes) -> Request:
    """Raises msgspec.DecodeError: it is none."""
    fields = msgspec.json.decode(line, type=dict[str, Any])
    return Request(fields.pop(CALL, None), fields)


def outcome_of(kind: str, fields: Mapping[str, Any], call: int | None = None) -> Answer | Refusal | None:
    """What an event says about a request; None for one that is no answer to it."""
    if fields.get(CALL) != call:
        return None
    if kind == "result":
        return Answer({name: value for name, value in fields.items() if name not in (CALL, "at")})
    if kind == "message" and fields.get("level") == "error":
        return _refusal(fields)
    return None


def _refusal(fields: Mapping[str, Any]) -> Refusal:
    where, mend, cause = (str(said) if (said := fields.get(name)) is not None else None for name in _WORDS)
    faults = fields.get("faults")
    listed = tuple(one for one in faults if isinstance(one, dict)) if isinstance(faults, list) else ()
    return Refusal(text=str(fields.get("text", "")), where=where, mend=mend, cause=cause, faults=listed)
