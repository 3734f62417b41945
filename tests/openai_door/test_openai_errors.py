"""Errors as OpenAI's clients read them, wherever they come from; and an id of the request on every answer of every door."""

from __future__ import annotations

import re
import socket

import httpx
import pytest
from door_parts import new_file
from litestar.routes import HTTPRoute

from support.openai_door import is_error
from support.server import ServerProcess
from tunesmith.api.access import OPEN, OPT
from tunesmith.api.openai.errors import OPENAI
from tunesmith.app import open_services
from tunesmith.server.application import create_app
from tunesmith.settings import Settings

REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


def identified(answer: httpx.Response) -> str:
    found = answer.headers.get_list("x-request-id")
    assert len(found) == 1, (answer.request.url, answer.status_code, found)
    assert REQUEST_ID.fullmatch(found[0])
    return found[0]


def test_every_answer_of_every_door_has_an_id_of_its_own(server, client, tmp_path):
    """Good and bad ones: whatever a call without a body, and with path parts that are nothing, is answered."""
    app = create_app(open_services(Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path)))
    ids, statuses = [], set()
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        path = "/".join(part if isinstance(part, str) else "nothing" for part in route.path_components)
        for method in sorted(route.methods):
            answer = client.request(method, f"/{path}")
            ids.append(identified(answer))
            statuses.add(answer.status_code)
    assert len(set(ids)) == len(ids)
    assert {200, 204, 404, 422, 400, 415} <= statuses


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 404) for path in ("/v1/nothing", "/v1/assistants", "/v1/files/file-x/nothing", "/nothing")),
        *(("POST", path, 404) for path in ("/v1/embeddings", "/v1/responses", "/v1/vector_stores", "/v1/images/edits")),
        ("PUT", "/v1/files", 405),
        ("GET", "/v1/chat/completions", 405),
        ("PATCH", "/v1/models/x", 405),
    ],
)
def test_what_nobody_takes_is_told_in_the_form_of_its_door(client, method, path, status):
    """What OpenAI has and this service has not is a 404 that its SDKs can show; elsewhere it is a problem document."""
    answer = client.request(method, path)
    assert answer.status_code == status
    identified(answer)
    assert is_error(answer) == path.startswith("/v1/")
    if status == 405:
        assert answer.headers["allow"]


def test_below_the_same_base_the_other_doors_keep_their_own_form(tmp_path, client):
    """Each of them, whatever is added to them: what no handler takes is told as by the others of its door."""
    app = create_app(open_services(Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path)))
    routes = [route for route in app.routes if isinstance(route, HTTPRoute) and route.path.startswith("/v1/")]
    native = {
        route.path.split("/")[2]
        for route in routes
        if not any(handler.opt.get(OPENAI) for handler, _ in route.route_handler_map.values())
    }
    assert len(native) > 10
    for name in native - {"models", "uploads"}:  # of which a part is OpenAI's
        assert not is_error(client.get(f"/v1/{name}/x/y/z/nothing")), name


def test_a_body_that_is_too_large_is_413(client):
    """Before much of it was read."""
    answer = client.post("/v1/chat/completions", content=b"x" * (32 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    assert is_error(answer)
    identified(answer)


def test_a_stream_and_a_file_have_ids_too(client):
    """Also a part of a file, one that the client has, and a range behind its end."""
    body = {"model": "small", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stream": True}
    identified(client.post("/v1/chat/completions", json=body))
    path = f"/v1/files/{new_file(client)['id']}/content"
    whole = client.get(path)
    identified(whole)
    part = client.get(path, headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, whole.content[:10])
    behind = client.get(path, headers={"Range": "bytes=999999-"})
    assert (behind.status_code, is_error(behind)) == (416, True)
    assert behind.json()["error"]["param"] == "Range"
    known = client.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert known.status_code == 304
    for answer in (part, behind, known):
        identified(answer)


def test_without_a_key_every_call_of_the_door_is_401(tmp_path, recipes):
    """In OpenAI's form, with the code that the SDKs make AuthenticationError of; a narrow key is 403."""
    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        key = client.post("/v1/keys", json={"name": "k", "scope": "admin"}).raise_for_status().json()["token"]
        bearer = {"Authorization": f"Bearer {key}"}
        read = client.post("/v1/keys", json={"name": "r", "scope": "read"}, headers=bearer).json()["token"]
        app = create_app(open_services(Settings(state_dir=tmp_path / "other", recipes_dir=tmp_path)))
        for route in app.routes:
            for handler in route.route_handlers:
                if not handler.opt.get("openai") or handler.opt.get(OPT) == OPEN:
                    continue
                for method in handler.http_methods - {"OPTIONS"}:
                    path = "/" + "/".join(one if isinstance(one, str) else "x" for one in route.path_components)
                    answer = client.request(method, path)
                    assert answer.status_code == 401, (method, path)
                    assert is_error(answer)
                    assert answer.json()["error"]["code"] == "invalid_api_key"
                    identified(answer)
        narrow = client.delete("/v1/files/x", headers={"Authorization": f"Bearer {read}"})
        assert narrow.status_code == 403
        assert narrow.json()["error"]["type"] == "permission_error"
        organisation = {
            **bearer,
            "OpenAI-Organization": "org-1",
            "OpenAI-Project": "proj_1",
            "X-Stainless-Lang": "python",
        }
        assert client.get("/v1/files", headers=organisation).status_code == 200


def test_a_head_that_is_too_long_has_an_id_too(server):
    """Also what is refused before anybody knows which door it is for."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"GET /v1/files HTTP/1.1\r\nHost: {host}\r\nX-Long: {'x' * 70_000}\r\n\r\n".encode())
        head = connection.recv(65536).decode()
    assert head.startswith("HTTP/1.1 431")
    assert "x-request-id: req_" in head.lower()
