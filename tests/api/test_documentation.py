"""/docs and /openapi.json: complete, valid, and working on a machine with no internet."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from litestar.routes import HTTPRoute

from support.openai_door import operations
from tunesmith.api.bodies import decoded
from tunesmith.api.examples import BODIES
from tunesmith.api.statuses import ALSO, SUCCESS
from tunesmith.api.words import SUMMARIES
from tunesmith.app import open_services
from tunesmith.server.application import create_app
from tunesmith.settings import Settings

# Aliases and the documentation itself are not in the document.
LEFT_OUT = re.compile(
    r"/health|/projects(/.*)?|/v1/(datasets|train-config|deployments)(/.*)?|/v1/uploads/{upload_id}|/deployments(/.*)?|(/api/v1/datasets)?/uploads/.*|/v1/deidentify:test|/openapi\.json|/docs(/.*)?"
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
    app = create_app(open_services(Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path)))
    there = {
        (re.sub(r":\w+}", "}", route.path_format), str(method).lower())
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods - {"OPTIONS", "HEAD"}  # what every path has, and GET without its body
    }
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == {(path, method) for path, method in there if not LEFT_OUT.fullmatch(path)}


def test_every_call_says_what_it_does(document):
    """A summary for people, a description, a tag, unique operation ids, every path parameter, a word on every parameter."""
    operations = []
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            place = (method, path)
            assert 3 <= len(call["summary"]) <= 80, place
            assert call["summary"] != call["operationId"].replace("_", " ").title(), f"{place}: a function's name"
            assert call["description"], place
            assert call["tags"], place
            operations.append(call["operationId"])
            named = {item["name"] for item in call.get("parameters", []) if item["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), place
            for item in call.get("parameters", []):
                assert item["schema"], (*place, item["name"])
                assert item["description"], f"{place} {item['name']}: describe it, or put a word into api/words.py"
    assert len(set(operations)) == len(operations)


def test_every_call_has_its_answers(document):
    """A good one, 422 for what it does not know, 401 and 403 unless it is open, and all errors are problem documents.

    Calls of the OpenAI-shaped door answer errors in OpenAI's form, with 400 for what its clients need not send again.
    """
    of_openai = operations()
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            place, statuses = (method, path), set(call["responses"])
            assert any(status.startswith("2") for status in statuses), place
            assert (
                {"400", "409", "422"} & statuses == {"400"} if call["operationId"] in of_openai else "422" in statuses
            ), place
            assert {"401", "403"} <= statuses or call["security"] == [], place
            assert "404" in statuses or "{" not in path, place
            for status, answer in call["responses"].items():
                assert answer["description"], (*place, status)
                if int(status) >= 400:
                    media_type, name = (
                        ("application/json", "ErrorAnswer")
                        if call["operationId"] in of_openai
                        else ("application/problem+json", "Problem")
                    )
                    assert list(answer["content"]) == [media_type], (*place, status)
                    assert answer["content"][media_type]["schema"] == {"$ref": f"#/components/schemas/{name}"}


def test_a_file_with_its_purpose_is_described_part_by_part(document):
    """As the multipart form of OpenAI's clients has it."""
    content = document["paths"]["/v1/files"]["post"]["requestBody"]["content"]
    schema = content["multipart/form-data"]["schema"]
    assert set(schema["properties"]) == {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"}
    assert schema["required"] == ["file", "purpose"]
    assert all(part["description"] for part in schema["properties"].values())


def test_every_field_is_described(document):
    """Of every struct that goes in or comes out."""
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        for field, of_field in schema.get("properties", {}).items():
            assert of_field.get("description"), f"{name}.{field}: give it a docstring, or put a word into api/words.py"


def test_every_body_has_an_example(document):
    """Which its own call accepts: as far as types go, by what decodes requests."""
    by_name = {cls.__name__: cls for cls in BODIES}
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            content = call.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                assert content.get("example"), f"{method} {path}: put one into api/examples.py"
                taken = {reference.rpartition("/")[2] for reference in references(content["schema"])}
                assert any(BODIES[by_name[name]] == content["example"] for name in taken & set(by_name))
    for cls, example in BODIES.items():
        assert decoded(msgspec.json.encode(example), cls) is not None


def test_the_tables_name_calls_that_exist(document):
    """What is said of a call by its name is not left behind when the call goes, or gets another name."""
    named = {call["operationId"] for methods in document["paths"].values() for call in methods.values()}
    assert set(ALSO) | set(SUCCESS) <= named
    assert set(SUMMARIES) <= named


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
