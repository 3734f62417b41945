"""Who may call what: every route declares it, keys are kept to, and secrets stay secret."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
from litestar import Litestar, get
from litestar.routes import HTTPRoute

from support.openai_door import is_error
from support.refusal import refusal
from support.server import ServerProcess
from tunesmith.api.access import OPEN, OPT
from tunesmith.api.openai.errors import OPENAI
from tunesmith.app import open_services
from tunesmith.records import Scope
from tunesmith.server.application import create_app
from tunesmith.settings import Settings

OPEN_PATHS = {
    "/healthz",
    "/health",
    *(f"{below}/deployments/_internal/health" for below in ("/api/v1", "/v1", "")),
}


class Call(NamedTuple):
    """One way to call one route, with made-up path parameters."""

    method: str
    path: str
    needs: Scope | str | None
    openai: bool = False
    """Whether it is of the OpenAI-shaped door, whose errors have another form."""


def calls(app: Litestar) -> list[Call]:
    """Every HTTP call that the application answers; OPTIONS is Litestar's own and needs the widest scope."""
    found = []
    for route in app.routes:
        assert isinstance(route, HTTPRoute), f"{route.path}: no rule for what is not HTTP yet"
        for handler in route.route_handlers:
            for method in sorted(handler.http_methods - {"OPTIONS"}):
                path = "".join(f"/{part if isinstance(part, str) else 'nothing'}" for part in route.path_components)
                found.append(Call(str(method), path or "/", handler.opt.get(OPT), bool(handler.opt.get(OPENAI))))
    return sorted(found)


def undeclared(app: Litestar) -> list[Call]:
    return [call for call in calls(app) if call.needs != OPEN and call.needs not in tuple(Scope)]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Litestar:
    place = tmp_path_factory.mktemp("app")
    return create_app(open_services(Settings(state_dir=place / "state", recipes_dir=place / "recipes")))


class Keys(NamedTuple):
    """Tokens by what they may do."""

    read: str
    write: str
    admin: str
    revoked: str


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    place = tmp_path_factory.mktemp("locked")
    with ServerProcess.start(place / "state", place / "recipes") as server:
        yield server


@pytest.fixture(scope="module")
def keys(locked: ServerProcess) -> Keys:
    """Made over HTTP: the first without a key, the others with it."""
    with locked.client() as client:
        first = client.post("/v1/keys", json={"name": "admin", "scope": "admin"})
        assert first.status_code == 201, first.text
        token = first.json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        made = {
            scope: client.post("/v1/keys", json={"name": scope, "scope": scope}).json() for scope in ("read", "write")
        }
        revoked = client.post("/v1/keys", json={"name": "gone", "scope": "admin"}).json()
        assert client.delete(f"/v1/keys/{revoked['id']}").json()["revoked_at"]
        return Keys(made["read"]["token"], made["write"]["token"], token, revoked["token"])


@pytest.fixture(scope="module")
def anonymous(locked: ServerProcess, keys: Keys) -> Iterator[httpx.Client]:
    with locked.client() as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"anybody:{token}".encode()).decode()}


def refused(call: Call, answer: httpx.Response) -> str:
    """All that a refusal says, in the form of its door."""
    assert is_error(answer) == call.openai, (call, answer.text)
    body: dict[str, Any] = answer.json()
    return body["error"]["message"] if call.openai else f"{body['detail']} {body['mend']}"


# -- declarations ---------------------------------------------------------------------------------------------------


def test_every_route_declares_who_may_call_it(app):
    """A door that forgets to say what it needs fails this test."""
    assert undeclared(app) == []
    assert {call.path for call in calls(app) if call.needs == OPEN} == OPEN_PATHS
    assert len(calls(app)) > 15


def test_a_route_that_declares_nothing_is_found_and_closed(tmp_path):
    """The test above would find it; and with keys set only the widest scope reaches it."""

    @get("/forgotten", sync_to_thread=False)
    def forgotten() -> str:
        return "secret"

    opened = open_services(Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path))
    app = create_app(opened)
    app.register(forgotten)
    assert undeclared(app) == [Call("GET", "/forgotten", None)]

    async def answers() -> list[int]:
        made = [await opened.services.keys.create(scope, scope) for scope in (Scope.READ, Scope.WRITE, Scope.ADMIN)]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return [(await client.get("/forgotten")).status_code] + [
                (await client.get("/forgotten", headers=bearer(key.token))).status_code for key in made
            ]

    assert anyio.run(answers) == [401, 403, 403, 200]


# -- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "unknown", "wrong secret", "revoked", "empty", "garbage"])
def test_without_a_valid_key_every_route_but_health_is_closed(app, anonymous, keys, kind):
    """401 everywhere, always the same answer; health stays open."""
    headers = {
        "none": {},
        "unknown": bearer("tsk_" + "0" * 26 + "_" + "x" * 43),
        "wrong secret": bearer(keys.admin[:-3] + "xyz"),
        "revoked": bearer(keys.revoked),
        "empty": {"Authorization": ""},
        "garbage": {"Authorization": "Bearer \xff\xfe".encode("latin-1")},
    }[kind]
    told = set()
    for call in calls(app):
        answer = anonymous.request(call.method, call.path, headers=headers)
        if call.needs == OPEN:
            assert answer.status_code == 200, call
            continue
        assert answer.status_code == 401, (call, answer.text)
        assert answer.headers["www-authenticate"] == "Bearer"
        told.add((call.openai, refused(call, answer)))
    assert len(told) == 2  # one for each form


def test_a_key_reaches_what_its_scope_covers_and_nothing_more(app, anonymous, keys):
    """Too narrow: 403 that says so. Wide enough: the route itself answers."""
    order = list(Scope)
    for call in calls(app):
        for scope in order:
            answer = anonymous.request(call.method, call.path, headers=bearer(getattr(keys, scope)))
            if call.needs == OPEN or order.index(scope) >= order.index(call.needs):
                assert answer.status_code not in (401, 403), (call, scope, answer.text)
            else:
                assert answer.status_code == 403, (call, scope, answer.text)
                assert f"this key may {scope}, not {call.needs}" in refused(call, answer)


def test_what_litestar_adds_is_closed_too(app, anonymous, keys):
    """OPTIONS handlers are made by the framework: without a key they tell nothing."""
    for path in {call.path for call in calls(app)} - OPEN_PATHS:
        assert anonymous.options(path).status_code in (401, 405)


def test_an_unknown_path_tells_nothing(anonymous):
    """404 without a key, and nothing about what is there."""
    assert anonymous.get("/v1/nothing").status_code == 404


def test_a_browser_may_send_the_key_as_a_password(anonymous, keys):
    """Asked for by a page, the door offers Basic; the key is the password; another site cannot ride on it."""
    page = anonymous.get("/docs", headers={"Accept": "text/html"})
    assert page.status_code == 401
    assert page.headers["www-authenticate"].startswith("Basic ")
    assert anonymous.get("/docs", headers=basic(keys.read)).status_code == 200
    assert anonymous.get("/docs", headers=basic("wrong")).status_code == 401
    experiment = {"name": "x", "task_type": "sft"}
    own = {"Origin": str(anonymous.base_url).rstrip("/")}
    assert anonymous.post("/v1/experiments", json=experiment, headers=basic(keys.write) | own).status_code == 201
    for origin in ("https://evil.example", "null"):
        answer = anonymous.post("/v1/experiments", json=experiment, headers=basic(keys.write) | {"Origin": origin})
        assert answer.status_code == 403
        assert answer.json()["where"] == "Origin"


@pytest.mark.parametrize(
    "header", ["Basic !!!", "Basic /////w==", "Basic", "Bearer", "bearer x", "Digest x", "x" * 3000]
)
def test_odd_authorization_headers_are_no_keys(anonymous, header):
    """401, whatever they hold."""
    assert anonymous.get("/v1/runs", headers={"Authorization": header}).status_code == 401


def test_keys_are_listed_without_their_secrets(anonymous, keys):
    """Names and scopes, also of revoked ones; a key is revoked once, and an unknown one is not found."""
    listed = anonymous.get("/v1/keys", headers=bearer(keys.admin)).json()["keys"]
    assert [(key["name"], key["scope"]) for key in listed] == [
        ("admin", "admin"),
        ("read", "read"),
        ("write", "write"),
        ("gone", "admin"),
    ]
    assert set(listed[0]) == {"id", "name", "scope", "created_at", "revoked_at"}
    assert anonymous.delete(f"/v1/keys/{listed[3]['id']}", headers=bearer(keys.admin)).status_code == 409
    assert anonymous.delete("/v1/keys/key_nothing", headers=bearer(keys.admin)).status_code == 404
    assert anonymous.post("/v1/keys", json={"name": " "}, headers=bearer(keys.admin)).status_code == 422
    long = anonymous.post("/v1/keys", json={"name": "x" * 201}, headers=bearer(keys.admin))
    assert long.status_code == 422
    assert long.json()["errors"] == [{"message": "must have at most 200 characters, and has 201", "where": "name"}]


@pytest.mark.parametrize("announced", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_a_body_is_not_waited_for_without_a_key(locked, keys, announced):
    """The refusal comes before a single byte of a body of 1 GB."""
    host, port = locked.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /v1/experiments HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{announced}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_tokens_are_written_down_nowhere(locked, anonymous, keys):
    """Used rightly and wrongly, in headers, addresses and bodies: not in the state folder, the output or the command."""
    for token in keys:
        anonymous.get(f"/v1/runs/{token}", headers=bearer(token))
        anonymous.get("/v1/runs", params={"recipe": token})
        anonymous.get("/v1/runs", headers={"Authorization": token})
        anonymous.get("/v1/runs", headers=basic(token))
    secrets = [token.split("_", 2)[2].encode() for token in keys]
    assert all(len(secret) == 43 for secret in secrets), "32 bytes each; a shorter piece is found by chance"
    places = [path for path in locked.state_dir.rglob("*") if path.is_file()] + [locked.log]
    places += [Path(f"/proc/{locked.pid}/cmdline"), Path(f"/proc/{locked.pid}/environ")]
    for path in places:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path
    metrics = anonymous.get("/metrics", headers=bearer(keys.read)).content
    assert not any(secret in metrics for secret in secrets)


def test_keys_survive_a_restart(tmp_path):
    """Made and revoked keys are what they were; with every key revoked the door stays shut."""
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes") as server:
        with server.client() as client:
            key = client.post("/v1/keys", json={"name": "only", "scope": "admin"}).json()
        server.kill9()
        server.up()
        with server.client() as client:
            assert client.get("/v1/runs").status_code == 401
            assert client.get("/v1/runs", headers=bearer(key["token"])).status_code == 200
            assert client.delete(f"/v1/keys/{key['id']}", headers=bearer(key["token"])).status_code == 200
            assert client.get("/v1/runs", headers=bearer(key["token"])).status_code == 401
        server.kill9()
        server.up()
        with server.client() as client:
            assert client.get("/v1/runs").status_code == 401


# -- without keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "[::2]", "0.0.0.0", "", "[", "@"]
)
def test_without_keys_no_other_name_reaches_us(client, host):
    """A name that was made to resolve to loopback (DNS rebinding) is refused."""
    answer = client.get("/v1/runs", headers={"Host": host})
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "LOCALHOST", "127.0.0.1:8000", "[::1]", "[::1]:8000"])
def test_without_keys_this_machine_is_let_in(client, host):
    """Under each of its loopback names."""
    assert client.get("/v1/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_without_keys_no_foreign_page_may_call(client, origin):
    """A form posted from another site is refused, also when it pretends to be no JSON."""
    answer = client.post(
        "/v1/experiments",
        content=b'{"name":"x","task_type":"sft"}',
        headers={"Origin": origin, "content-type": "text/plain"},
    )
    assert answer.status_code == 403
    assert client.get("/v1/runs", headers={"Origin": str(client.base_url).rstrip("/")}).status_code == 200


# -- listening ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "127.0.0.2"])
def test_more_than_loopback_needs_a_key(tmp_path, host):
    """Without one the server refuses to start, quickly, with the command that mends it."""
    reason = refusal(tmp_path / "state", "--host", host)
    assert "without an API key" in reason
    assert "tunesmith keys create" in reason


def test_with_a_key_any_name_is_let_in(tmp_path):
    """A key made on loopback opens the next start on all addresses."""
    state, recipes = tmp_path / "state", tmp_path / "recipes"
    with ServerProcess.start(state, recipes) as server, server.client() as client:
        token = client.post("/v1/keys", json={"name": "x", "scope": "read"}).json()["token"]
    with ServerProcess.start(state, recipes, flags=("--host", "0.0.0.0")) as server, server.client() as client:
        foreign: dict[str, Any] = {"Host": "tunes.example", "Origin": "https://elsewhere.example"}
        assert client.get("/v1/runs", headers=foreign | bearer(token)).status_code == 200
        assert client.get("/v1/runs", headers=foreign).status_code == 401
        assert client.get("/healthz", headers=foreign).status_code == 200


def test_a_port_that_is_taken_is_said(tmp_path, server):
    """With the way out."""
    reason = refusal(tmp_path / "state", "--port", server.url.rpartition(":")[2])
    assert "cannot listen" in reason
    assert "--port" in reason
