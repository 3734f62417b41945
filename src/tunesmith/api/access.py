"""Who may call what: every route declares the scope it needs, or that it is open; nothing is reached undeclared.

The check runs before a body is read. On loopback without keys everybody on the machine may call, but no web page may:
a foreign ``Host`` (DNS rebinding) or ``Origin`` (a form posted from another site) is refused.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Send
from litestar.types import Scope as ConnectionScope

from tunesmith.access import KeyRing
from tunesmith.errors import Forbidden, TunesmithError
from tunesmith.records import Scope

OPT = "access"
OPEN = "open"

NEEDS_READ: dict[str, Any] = {OPT: Scope.READ}
NEEDS_WRITE: dict[str, Any] = {OPT: Scope.WRITE}
NEEDS_ADMIN: dict[str, Any] = {OPT: Scope.ADMIN}
OPEN_TO_ALL: dict[str, Any] = {OPT: OPEN}

_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class AccessGuard:
    """Middleware between routing and handlers."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: ConnectionScope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            needed = scope["route_handler"].opt.get(OPT)
            if needed != OPEN:
                self._check(scope["headers"], needed)
        await self._app(scope, receive, send)

    def _check(self, headers: Any, needed: Scope | None) -> None:
        authorization = host = origin = None
        for name, value in headers:
            if name == b"authorization":
                authorization = value.decode("latin-1")
            elif name == b"host":
                host = value.decode("latin-1")
            elif name == b"origin":
                origin = value.decode("latin-1")
        if self._keys.locked:
            self._keys.check(authorization, needed or Scope.ADMIN)
            if authorization is not None and authorization[:5].casefold() == "basic":
                _refuse_foreign_origin(host, origin)  # a browser sends these by itself, whatever page asks it to
        else:
            if host is not None and _hostname(f"//{host}") not in _LOOPBACK_NAMES:
                raise _foreign("Host", host)
            _refuse_foreign_origin(host, origin)


def _refuse_foreign_origin(host: str | None, origin: str | None) -> None:
    if origin is not None and origin.partition("://")[2] != host:
        raise _foreign("Origin", origin)


def _foreign(header: str, value: str) -> TunesmithError:
    return Forbidden(
        f"without API keys only this machine may call, not {value[:100]!r}",
        where=header,
        mend="`tunesmith keys create` makes a key; with keys, any host and origin may call",
    )


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
