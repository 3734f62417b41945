"""API keys: bearer tokens of the form ``tsk_<id>_<secret>``.

A secret has 256 random bits, so one SHA-256 of it is as safe to store as a slow hash would be. Until the first key is
made, a server on loopback is open; from then on, also after every key was revoked, only a valid key opens it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from datetime import datetime

import msgspec

from tunesmith.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from tunesmith.journal import Journal
from tunesmith.records import Clock, IdempotentCall, Key, Scope, new_id

LONGEST_NAME = 200
"""Of a key; a list shows a thousand at a time."""
_PREFIX = "tsk"
_LONGEST_HEADER = 500
_MEND = "send `Authorization: Bearer <key>`; `tunesmith keys create` makes one"


class KeySummary(msgspec.Struct, frozen=True):
    """What is needed to check a token."""

    name: str
    scope: Scope
    secret_sha256: str
    created_at: datetime
    revoked_at: datetime | None = None
    idempotency: IdempotentCall | None = None


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key just made: the only moment its token is known."""

    id: str
    name: str
    scope: Scope
    token: str | None
    """Null when the call is repeated: only a hash of it is kept. Then revoke the key and make another."""


class KeyRing:
    """All keys."""

    def __init__(self, journal: Journal[Key, KeySummary], clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._lock = asyncio.Lock()

    @property
    def locked(self) -> bool:
        """Whether a key is needed at all."""
        return len(self._journal) > 0

    @property
    def usable(self) -> bool:
        """Whether there is a key that still opens anything."""
        return any(summary.revoked_at is None for summary in self._journal.summaries.values())

    async def create(self, name: str, scope: Scope, idempotency: IdempotentCall | None = None) -> NewKey:
        """Raises InvalidInput for a name that is empty or longer than LONGEST_NAME."""
        if not name.strip():
            raise InvalidInput("must not be empty", where="name")
        if len(name) > LONGEST_NAME:
            raise InvalidInput(f"must have at most {LONGEST_NAME} characters, and has {len(name)}", where="name")
        key_id, secret = new_id("key"), secrets.token_urlsafe(32)
        await self._journal.append(
            "created",
            Key(
                id=key_id,
                name=name,
                scope=scope,
                secret_sha256=_hash(secret),
                created_at=self._clock(),
                idempotency=idempotency,
            ),
        )
        return NewKey(id=key_id, name=name, scope=scope, token=f"{_PREFIX}_{key_id.removeprefix('key_')}_{secret}")

    def shown(self, key_id: str) -> NewKey:
        """A key that was made before."""
        summary = self._journal.summaries[key_id]
        return NewKey(id=key_id, name=summary.name, scope=summary.scope, token=None)

    async def revoke(self, key_id: str) -> Key:
        """Raises NotFound, or Conflict when it is revoked already."""
        return await asyncio.shield(self._revoke(key_id))

    async def _revoke(self, key_id: str) -> Key:
        async with self._lock:
            key = self._journal.get(key_id)
            if key is None:
                raise NotFound(f"there is no key {key_id!r}", mend="`tunesmith keys list` shows them")
            if key.revoked_at is not None:
                raise Conflict(f"key {key_id} was revoked already")
            revoked = msgspec.structs.replace(key, revoked_at=self._clock())
            await self._journal.append("revoked", revoked)
            return revoked

    def all(self) -> list[tuple[str, KeySummary]]:
        return list(self._journal.summaries.items())

    def check(self, authorization: str | None, needed: Scope) -> None:
        """Let a request through or refuse it.

        Raises:
            Unauthenticated: no token, or one that is unknown, wrong or revoked; which of these is not told.
            Forbidden: a good token with too narrow a scope.
        """
        if not self.locked:
            return
        key_id = self.id_of(authorization)
        if key_id is None:
            raise Unauthenticated("a valid API key is needed", mend=_MEND)
        summary = self._journal.summaries[key_id]
        if not summary.scope.covers(needed):
            raise Forbidden(f"this key may {summary.scope}, not {needed}", mend="use a key with a wider scope")

    def id_of(self, authorization: str | None) -> str | None:
        """The key whose token was sent, if there is such a one and it is valid."""
        token = _token(authorization or "")
        prefix, _, rest = token.partition("_")
        key_id, _, secret = rest.partition("_")
        key_id = f"key_{key_id}"
        summary = self._journal.summary(key_id)
        # An unknown id costs the same comparison as a known one.
        expected = summary.secret_sha256 if summary is not None else _hash("")
        matches = hmac.compare_digest(_hash(secret), expected)
        if summary is None or not matches or prefix != _PREFIX or summary.revoked_at is not None:
            return None
        return key_id


def _token(authorization: str) -> str:
    """The token of a bearer header, or the password of a basic one: that is how a browser can send a key."""
    scheme, _, credentials = authorization.partition(" ")
    if len(credentials) > _LONGEST_HEADER:
        return ""
    if scheme.casefold() == "basic":
        try:
            decoded = base64.b64decode(credentials, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return decoded.partition(":")[2]
    return credentials.strip() if scheme.casefold() == "bearer" else ""


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
