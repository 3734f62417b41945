"""``OPTIONS``: which methods a path has. Litestar's own answer knows the first handler of a path only."""

from __future__ import annotations

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Scope, Send


class OptionsAnswer:
    """Middleware: answers OPTIONS with every method of the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "OPTIONS":
            await self._app(scope, receive, send)
            return
        allow = ", ".join(_methods_at(scope["litestar_app"], scope["path_template"]))
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow.encode())]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _methods_at(app: Litestar, path: str) -> list[str]:
    found = {
        str(method)
        for route in app.routes
        if isinstance(route, HTTPRoute) and path in (route.path, route.path_format)
        for method in route.methods
    }
    return sorted(found)
