"""API keys and what they may do."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from tunesmith.records.base import IdempotentCall, Record


class Scope(StrEnum):
    """What a key may do; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, needed: Scope) -> bool:
        order = tuple(Scope)
        return order.index(self) >= order.index(needed)


class Key(Record, frozen=True, kw_only=True):
    """An API key. The secret itself is never stored."""

    name: str
    scope: Scope
    secret_sha256: str
    created_at: datetime
    revoked_at: datetime | None = None
    idempotency: IdempotentCall | None = None
