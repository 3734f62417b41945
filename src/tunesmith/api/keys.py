"""The keys door: making, listing and revoking API keys while the server runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath, JSONBody

from tunesmith.access import LONGEST_NAME, NewKey
from tunesmith.api.access import NEEDS_ADMIN
from tunesmith.api.faults import NOT_EMPTY
from tunesmith.api.idempotency import IdempotencyKey, made_once
from tunesmith.api.lists import NameCursor, page_by_name
from tunesmith.api.runs import Limit
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.records import Scope


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as asked for."""

    name: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME, pattern=NOT_EMPTY)]
    scope: Scope = Scope.WRITE


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret."""

    id: str
    name: str
    scope: Scope
    created_at: datetime
    revoked_at: datetime | None


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first; ask with ``cursor`` for the next page, until it is null."""

    keys: list[KeyView]
    cursor: str | None


@post("/v1/keys", opt=NEEDS_ADMIN, tags=["Keys"])
async def create_key(
    request: HttpRequest, data: JSONBody[KeyRequest], idempotency_key: IdempotencyKey = None
) -> Response[NewKey]:
    """Make a key. Its token is shown this once. From the first key on, every call needs one."""
    ring = services_of(request).keys
    key, is_new = await made_once(
        request,
        idempotency_key,
        data,
        scope="keys",
        make=lambda call: ring.create(data.name, data.scope, call),
        find=ring.shown,
    )
    return Response(key, status_code=201 if is_new else 200)


@get("/v1/keys", opt=NEEDS_ADMIN, tags=["Keys"], sync_to_thread=False)
def list_keys(request: HttpRequest, limit: Limit = 1000, cursor: NameCursor = None) -> KeyList:
    """All keys, revoked ones too."""
    page, following = page_by_name(services_of(request).keys.all(), lambda one: one[0], limit=limit, cursor=cursor)
    return KeyList(
        cursor=following,
        keys=[
            KeyView(
                id=key_id,
                name=key.name,
                scope=key.scope,
                created_at=key.created_at,
                revoked_at=key.revoked_at,
            )
            for key_id, key in page
        ],
    )


@delete("/v1/keys/{key_id:str}", opt=NEEDS_ADMIN, tags=["Keys"], status_code=200)
async def revoke_key(request: HttpRequest, key_id: FromPath[str]) -> KeyView:
    """Revoke a key, at once and for good."""
    key = await services_of(request).keys.revoke(key_id)
    return KeyView(id=key.id, name=key.name, scope=key.scope, created_at=key.created_at, revoked_at=key.revoked_at)


HANDLERS = [create_key, list_keys, revoke_key]
