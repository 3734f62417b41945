"""What every journaled record has, where the time comes from, and how ids are made."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec


class Clock(Protocol):
    """Where the time comes from; tests pass their own."""

    def __call__(self) -> datetime: ...


def utc_now() -> datetime:
    return datetime.now(UTC)


_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _CROCKFORD for second in _CROCKFORD)


def new_id(prefix: str) -> str:
    """``run_01k9...``: sorts by creation time (48 bits of milliseconds), then 80 random bits, as a ULID does."""
    number = (time.time_ns() // 1_000_000) << 80 | random.getrandbits(80)
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])}"


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What every journaled record has."""

    id: str

    @classmethod
    def upgraded(cls, data: dict[str, Any]) -> dict[str, Any]:
        """The data of a journal line that a version before wrote, as this one would have written it."""
        return data


class IdempotentCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The creating call that a record came from, so that a repeat of it finds the record instead of making another."""

    scope: str
    """What was to be made and below which record, such as ``runs of exp_01...``: keys of different scopes differ."""
    key: str
    """The ``Idempotency-Key``, chosen by the client."""
    request_sha256: str
    """Hash of the request, to tell a repeat from another request under the same key."""
    caller: str = ""
    """The id of the API key that called; empty where none was needed."""
