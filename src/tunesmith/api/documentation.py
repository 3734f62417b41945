"""``/openapi.json`` and ``/docs``: the document and a page to try it, with every script served from here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import anyio.to_thread
from litestar import MediaType, Response, get
from litestar.params import FromPath
from litestar.response import File
from litestar.serialization import encode_json

from tunesmith.api.access import NEEDS_READ
from tunesmith.api.document import document
from tunesmith.api.services import HttpRequest
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


@get("/docs", opt=NEEDS_READ, include_in_schema=False, media_type=MediaType.HTML, sync_to_thread=False)
def page() -> str:
    return _PAGE


@get(["/openapi.json", "/docs/openapi.json"], opt=NEEDS_READ, include_in_schema=False)
async def openapi(request: HttpRequest) -> Response[bytes]:
    content: bytes | None = request.app.state.get("openapi_document")
    if content is None:
        content = await anyio.to_thread.run_sync(lambda: encode_json(document(request.app)))
        request.app.state.openapi_document = content
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


HANDLERS = [page, openapi, asset]
