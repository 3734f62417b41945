"""``Idempotency-Key`` at the doors: one declaration, and one way to make a record at most once."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
from litestar.params import HeaderParameter

from tunesmith.api.services import HttpRequest, services_of
from tunesmith.records import IdempotentCall

R = TypeVar("R")

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[ -~]*$",
        description="Any text of the client's, such as a UUID. Repeating the call with the same key and body makes nothing "
        "new and answers 200 with the same record; another body is refused.",
    ),
]


async def made_once(
    request: HttpRequest,
    key: str | None,
    body: msgspec.Struct,
    *,
    scope: str,
    make: Callable[[IdempotentCall | None], Awaitable[R]],
    find: Callable[[str], R],
) -> tuple[R, bool]:
    """What ``make`` makes, or by ``find`` what the same call made before; says whether it is new.

    Args:
        request: says who calls.
        key: the ``Idempotency-Key``; without one there are no repeats.
        body: two calls are the same if this is.
        scope: what is made, and below which record; keys of different scopes have nothing to do with each other.
        make: has to put the call it is given into the record.
        find: the record by its id.

    Raises:
        Conflict: the key was used with another body.
    """
    call = call_of(request, key, scope=scope, body=body)
    return await services_of(request).idempotent_calls.once(call, lambda: make(call), find)


def call_of(
    request: HttpRequest, key: str | None, *, scope: str, body: msgspec.Struct | None = None
) -> IdempotentCall | None:
    """The call that the record is to remember; None without a key. Without a body, whoever reads it adds its hash."""
    if key is None:
        return None
    return IdempotentCall(scope=scope, key=key, request_sha256=_hash(body) if body else "", caller=caller_of(request))


def _hash(body: msgspec.Struct) -> str:
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def caller_of(request: HttpRequest) -> str:
    """The id of the API key that the request came with; empty without one."""
    return services_of(request).keys.id_of(request.headers.get("authorization")) or ""
