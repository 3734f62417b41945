"""/docs and /openapi.json: complete, valid, and working on a machine with no internet."""

from __future__ import annotations

import re
from typing import Any

import pytest
from litestar.routes import HTTPRoute

from tunesmith.app import create_app, open_house
from tunesmith.settings import Settings

# Aliases and the documentation itself are not in the document.
LEFT_OUT = re.compile(
    r"/health|/projects(/.*)?|/v1/(datasets|uploads|train-config)(/.*)?|(/api/v1/datasets)?/uploads/.*|/v1/deidentify:test|/openapi\.json|/docs(/.*)?"
)
ADDRESS = re.compile(rb"""(?:src|href|url|import|from)\s*[=(:]?\s*["'(]?\s*((?:https?:)?//[^\s"')]+)""", re.IGNORECASE)


@pytest.fixture(scope="module")
def document(client) -> dict[str, Any]:
    answer = client.get("/openapi.json")
    assert answer.headers["content-type"].startswith("application/json")
    return answer.raise_for_status().json()


def test_the_page_needs_no_other_host(client):
    """Every script and style it names is served from here, and the page names no other place."""
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert ADDRESS.findall(page.content) == []
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    local = [address for address in named if not address.startswith("data:")]
    assert len(local) == 2
    for address in local:
        asset = client.get(address)
        assert asset.status_code == 200
        assert len(asset.content) > 10_000
        assert asset.headers["content-type"].startswith(("text/javascript", "text/css"))
    assert '"/openapi.json"' in page.text


def test_styles_load_nothing_from_elsewhere(client):
    """No font or picture of another host in the style sheet."""
    style = client.get("/docs/assets/swagger-ui.css").content
    assert not re.search(rb"@import|url\(\s*[\"']?(?:https?:)?//", style)


def test_every_route_is_in_the_document(document, tmp_path):
    """What can be called is described; what is described can be called."""
    app = create_app(open_house(Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path)))
    there = {
        (re.sub(r":\w+}", "}", route.path_format), str(method).lower())
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods - {"OPTIONS"}
    }
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == {(path, method) for path, method in there if not LEFT_OUT.fullmatch(path)}


def test_every_call_says_what_it_does(document):
    """A summary or description, a tag, unique operation ids, and every path parameter."""
    operations = []
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            assert call.get("description") or call.get("summary"), (method, path)
            assert call["tags"], (method, path)
            assert call["responses"], (method, path)
            operations.append(call["operationId"])
            named = {item["name"] for item in call.get("parameters", []) if item["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), (method, path)
            for item in call.get("parameters", []):
                assert item["schema"], (method, path, item["name"])
    assert len(set(operations)) == len(operations)


def test_the_document_is_sound(document):
    """OpenAPI 3.1 with everything it refers to, and the way to authenticate."""
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"]
    assert document["info"]["version"]
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert document["security"] == [{"key": []}]
    for reference in references(document):
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_the_document_is_valid(document):
    """By the judgement of the specification's own checker."""
    validator = pytest.importorskip("openapi_spec_validator", reason="checks the whole document where it is installed")
    validator.validate(document)


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(references(item) for item in value))
    return set()
