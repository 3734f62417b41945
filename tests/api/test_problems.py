"""Bad input over real HTTP: always a problem document that says what failed, where and how to fix it; never a 5xx."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.openai_door import is_error, operations
from support.server import start_run, wait_for_run

JSON = {"content-type": "application/json"}
DEEP_1_000 = b'{"name":"x","task_type":"sft","param_config":{"x":' + b"[" * 1_000 + b"]" * 1_000 + b"}}"
DEEP_100_000 = b'{"name":"x","task_type":"sft","param_config":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
DEEP_900 = b'{"name":"x","task_type":"sft","param_config":{"x":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}}"


def with_notes(value: bytes) -> bytes:
    return b'{"name":"x","task_type":"sft","param_config":{"x":' + value + b"}}"


def assert_problem(answer, *statuses: int) -> dict:
    assert answer.status_code in statuses, (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"]
    assert problem.get("mend") or problem.get("errors"), problem
    for fault in problem.get("errors", []):
        assert fault["message"]
    return problem


@pytest.mark.parametrize("key", [None, "with-a-key"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"\xff\xfe{}", 400),
        (b'{"name":"\xff","task_type":"sft"}', 400),
        (b'{"name":"\\ud800","task_type":"sft"}', 400),
        (b'{"name":"x","task_type":"sft","nope":1}', 422),
        (b'{"name":"x"}', 422),
        (b'{"name":5,"task_type":"sft"}', 422),
        (b'{"name":" ","task_type":"sft"}', 422),
        (b'{"name":"x","task_type":"sft","tags":"a"}', 422),
        (b'{"name":"' + b"x" * 501 + b'","task_type":"sft"}', 422),
        (with_notes(b"NaN"), 400),
        (with_notes(b"1e999"), 400),
        (with_notes(b"1" + b"0" * 400), 422),
        (with_notes(b"1" + b"0" * 5000), 400),
        (with_notes(b'"\\u0000"'), 422),
        (with_notes(b'"' + b"x" * 70_000 + b'"'), 413),
        (DEEP_900, 422),
        (DEEP_1_000, 400),
        (DEEP_100_000, 400),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else str(value),
)
def test_bodies_that_make_no_sense(client, body, status, key):
    """Malformed, of the wrong shape, hostile: refused with the same answer whether or not a repeat could be meant."""
    headers = {**JSON, **({"Idempotency-Key": key} if key else {})}
    assert_problem(client.post("/v1/experiments", content=body, headers=headers), status)


def test_a_wrong_field_is_named(client):
    """Where the fault is, in the words of the request."""
    problem = assert_problem(client.post("/v1/experiments", json={"name": 5, "task_type": "sft"}), 422)
    assert problem["errors"] == [{"message": "must be text, not the number 5", "where": "name"}]
    problem = assert_problem(client.post("/v1/experiments", content=b"", headers=JSON), 422)
    assert problem["errors"] == [{"message": "a JSON body is needed", "where": "body"}]
    problem = assert_problem(client.get("/v1/runs", params={"state": "bogus"}), 422)
    assert problem["errors"][0]["where"] == "state"


def test_large_bodies_are_refused(client):
    """Announced or in chunks: 413, and the limit is what one request may take of memory."""
    body = b'{"name":"' + b"x" * 5_000_000 + b'"}'
    assert_problem(client.post("/v1/experiments", content=body, headers=JSON), 413)
    chunks = iter([body[:1_000_000]] * 6)
    assert_problem(client.post("/v1/experiments", content=chunks, headers=JSON), 413)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=no-such",
        "",
    ],
)
@pytest.mark.parametrize("body", [b"a=b", b"\xff", b"--x--"])
def test_other_content_types(client, content_type, body):
    """What is no JSON is refused, whatever it calls itself."""
    answer = client.post("/v1/experiments", content=body, headers={"content-type": content_type})
    assert_problem(answer, 400, 415, 422)


@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/runs"])
@pytest.mark.parametrize(
    "query",
    [
        *(f"limit={nonsense}" for nonsense in ("0", "1001", "x", "", "-1", "9" * 30, "1.5", "%D9%A3")),
        *(f"cursor={nonsense}" for nonsense in ("x", "-1", "1e3", "%00", "9" * 50, "%D9%A3")),
    ],
)
def test_nonsense_in_limit_and_cursor(client, path, query):
    """Refused by name."""
    problem = assert_problem(client.get(f"{path}?{query}"), 422)
    assert problem["errors"][0]["where"] == query.partition("=")[0]


@pytest.mark.parametrize(
    "query", ["tag=%ff", "tag=%00", "owner=%ed%a0%80", "%ff=%ff", "limit=1&limit=2", "unknown=1", "&&==&", "a" * 5000]
)
@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/runs", "/", "/healthz"])
def test_odd_query_strings_do_no_harm(client, path, query):
    """Bytes that are no UTF-8, NUL, repeats, unknown names: an ordinary answer."""
    assert client.get(f"{path}?{query}").status_code in (200, 422)


@pytest.mark.parametrize(
    "path",
    [f"/v1/runs/{odd}" for odd in ("%00", "%ff", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%252e%252e%252f", "x" * 3000)]
    + [f"/v1/recipes/{odd}" for odd in ("%00", "%ff", "%2e%2e", "..%2f", "%20", "sft%00")]
    + [f"/docs/assets/{odd}" for odd in ("%00", "%2e%2e", "..%2f..%2f__init__.py", "%252e%252e", "swagger.html")]
    + ["/v1/experiments/%00/detail", "/v1/experiments/..%2f/runs", "/nothing", "/v1", "//v1/runs", "/v1/runs/a/b/c"],
)
def test_odd_paths_find_nothing(client, path):
    """NUL, no UTF-8, dots and slashes in every encoding: 404."""
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/v1/experiments"), ("PUT", "/v1/runs/x"), ("PATCH", "/"), ("POST", "/v1/runs")]
)
def test_methods_that_are_not_there(client, method, path):
    """405 with the methods that are."""
    answer = client.request(method, path)
    assert_problem(answer, 405)
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("event_id", ["x", "1.", "-1.2", "1.1.1", "9" * 61, "é.1"])
def test_event_ids_that_are_none(client, event_id):
    """422 instead of a stream that repeats everything."""
    run_id = start_run(client, "sft")
    wait_for_run(client, run_id)
    answer = client.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": event_id.encode("latin-1")})
    problem = assert_problem(answer, 422)
    assert "Last-Event-ID" in (problem.get("where"), *(fault.get("where") for fault in problem.get("errors", [])))


@pytest.mark.parametrize(
    "request_",
    [
        {"recipe": "trains", "model": "a\0b", "dataset": {"name": "c\0d"}},
        {"recipe": "trains", "model": "m" * 5000, "dataset": {"name": "d" * 5000}},
        {"recipe": "trains", "model": "~nobody-of-that-name/x", "dataset": {"name": "~nobody-of-that-name/x"}},
        {"recipe": "trains", "model": "o/m", "dataset": {"name": ".", "split": "s" * 5000}},
        {"recipe": "trains", "model": "o/m", "dataset": {"name": ".", "split": "\0"}},
        {"recipe": "sft", "train_config": "t" * 5000},
        {"recipe": "sft", "train_config": "a\0b"},
        {"recipe": "sft", "train_config": "."},
        {"recipe": "r" * 5000},
        {"recipe": "sft\0"},
        {"recipe": "sft", "hyperparams": {"k" * 5000: 1}},
        {"recipe": "sft", "hyperparams": {"training": {"max_steps": {"a": []}}}},
        {"recipe": "sft", "train_config": {"training": 5}},
        {"recipe": "sft", "train_config": {"job": {"type": ["sft"]}}},
        {"recipe": "sft", "resources": {"count": "two"}},
    ],
)
def test_names_that_no_file_can_have(client, experiment, request_):
    """NUL, too long, an unknown user: 4xx with the field's name."""
    answer = client.post(f"/v1/experiments/{experiment}/runs", json=request_)
    problem = assert_problem(answer, 400, 403, 422)
    assert problem.get("where") or all(fault["where"] for fault in problem["errors"])
    assert len(answer.content) < 20_000


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"training: {max_steps: [}", "config.yaml:1"),
        (b"training:\n  max_steps: 1\n  max_steps: 2\n", "config.yaml:3"),
        (b"\xff\xfe", "config.yaml:1"),
        (b"a: &a [*a]\n", "config.yaml:1"),
        (b"- 1\n", "mapping"),
        (b"training: {max_stesp: 1}\n", "max_steps"),
        (b"training: {max_steps: 1e-4}\n", "training.max_steps"),
        (b"training: {max_steps: no}\n", "training.max_steps"),
        (b"x: " + b"y" * 6_000_000, "at most"),
    ],
)
def test_train_configs_that_cannot_be_read(client, experiment, place, content, told):
    """The line, or the key, that is at fault."""
    path = place / "bad" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    answer = client.post(f"/v1/experiments/{experiment}/runs", json={"recipe": "sft", "train_config": str(path)})
    assert_problem(answer, 413, 422)
    assert told in answer.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)


@given(st.data())
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_request_of_the_document_is_an_error_of_ours(client, data):
    """Any call of /openapi.json with any parameters and any JSON body: never a 5xx, and errors have the form of their door."""
    document = client.get("/openapi.json").json()
    calls = [
        (method, path, call)
        for path, methods in sorted(document["paths"].items())
        for method, call in sorted(methods.items())
        if "/keys" not in path  # the first key would lock the door to the other tests
    ]
    method, path, call = data.draw(st.sampled_from(calls))
    query, headers = [], {}
    for parameter in call.get("parameters", []):
        value = data.draw(texts | st.integers().map(str))
        if parameter["in"] == "path":
            path = path.replace(
                "{" + parameter["name"] + "}", "".join(f"%{byte:02x}" for byte in value.encode()) or "x"
            )
        elif parameter["in"] == "query" and data.draw(st.booleans()):
            query.append((parameter["name"], value))
        elif parameter["in"] == "header" and data.draw(st.booleans()):
            headers[parameter["name"]] = value.encode("latin-1", "ignore").translate(None, bytes(range(32)) + b"\x7f")
    body = None
    if "requestBody" in call:
        content = call["requestBody"]["content"]
        schema = content.get("application/json", *content.values())["schema"]
        schema = schema.get("oneOf", [schema])[0]  # a body that may be left out is one of two
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        fields = schema["properties"]
        body = data.draw(
            st.dictionaries(st.sampled_from(sorted(fields)), json_values, max_size=len(fields)) | json_values
        )
    answer = client.request(
        method,
        path,
        params=query,
        headers={**headers, **(JSON if body is not None else {})},
        content=json.dumps(body).encode() if body is not None else None,
    )
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and call["operationId"] in operations():
        assert is_error(answer)
        assert answer.json()["error"]["message"]
    elif answer.status_code >= 400:
        assert_problem(answer, answer.status_code)
    else:
        assert str(answer.status_code) in call["responses"] or answer.status_code in (200, 204)


def test_half_sent_and_broken_requests_leave_the_server_well(client, server):
    """Connections that break off, lie about their length or speak no HTTP."""
    host, port = server.url.removeprefix("http://").split(":")
    for sent in (
        b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ):
        with (
            socket.create_connection((host, int(port)), timeout=60) as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(sent)  # it need not wait until the last byte is out
    assert client.get("/healthz").status_code == 200
    assert "Traceback" not in server.output
