"""``/openapi.json`` and ``/docs``: the document and a page to try it, with every script served from here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import anyio.to_thread
from litestar import MediaType, Response, Router, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath
from litestar.response import File
from litestar.serialization import encode_json

from tunesmith import __version__
from tunesmith.api.access import NEEDS_READ
from tunesmith.api.rooms import HttpRequest
from tunesmith.errors import NotFound

_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tunesmith API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null})</script>
</body>
</html>
"""


class _Page(OpenAPIRenderPlugin):
    """The page, in place of Litestar's own ones, whose scripts come from another host."""

    def render(self, request: HttpRequest, openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002  # Litestar's signature
        return _PAGE.encode()


def document_config() -> OpenAPIConfig:
    """How Litestar builds the document, and the page below ``/docs``."""
    return OpenAPIConfig(
        path="/docs",
        render_plugins=[_Page(path="/")],
        openapi_router=Router("/docs", route_handlers=[], opt=NEEDS_READ, include_in_schema=False),
        title="Tunesmith",
        version=__version__,
        description="A self-hosted fine-tuning service for language models. Errors are RFC 9457 problem documents.",
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"key": []}],
        use_handler_docstrings=True,
    )


@get("/openapi.json", opt=NEEDS_READ, include_in_schema=False)
async def openapi(request: HttpRequest) -> Response[bytes]:
    content = await anyio.to_thread.run_sync(lambda: encode_json(request.app.openapi_schema.to_schema()))
    return Response(content, media_type=MediaType.JSON)


@get("/docs/assets/{name:str}", opt=NEEDS_READ, include_in_schema=False, sync_to_thread=False)
def asset(name: FromPath[str]) -> File:
    if name not in _ASSETS:
        raise NotFound(f"there is no asset {name!r}")
    return File(
        _assets_folder() / name,
        media_type=_ASSETS[name],
        content_disposition_type="inline",
        headers={"Cache-Control": "max-age=86400"},
    )


def _assets_folder() -> Path:
    # Looked up, not imported: the package would bring a template engine that nobody here needs.
    spec: Any = importlib.util.find_spec("swagger_ui")
    return Path(spec.submodule_search_locations[0]) / "static"


HANDLERS = [openapi, asset]
