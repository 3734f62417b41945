"""``POST /v1/chat/completions`` with the built-in engine, and with one that does what it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.openai_door import is_error

HELLO = [{"role": "user", "content": "the colour of grass?"}]
DOCUMENTED = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"},
    ],
}
"""As OpenAI's reference has it."""


@pytest.fixture(scope="module")
def told(client: httpx.Client) -> Iterator[str]:
    """The name of a deployment whose engine does what the last message says."""
    yield from deployed(client, "told")


@pytest.fixture
def mortal(client: httpx.Client) -> Iterator[str]:
    """The same, to be ended by what it is told."""
    yield from deployed(client, "mortal")


def deployed(client: httpx.Client, name: str) -> Iterator[str]:
    made = client.post("/api/v1/deployments", json={"model_path": f"for-{name}", "name": name, "engine": "vllm"})
    deployment = made.raise_for_status().json()["deployment_id"]
    yield name
    client.delete(f"/api/v1/deployments/{deployment}", params={"force": True})


def complete(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"model": "small", "messages": HELLO, "max_tokens": 6, "temperature": 0} | fields
    return client.post("/v1/chat/completions", json=body)


def tell(client: httpx.Client, told: str, what: str, **fields: Any) -> httpx.Response:
    return complete(client, model=told, messages=[{"role": "user", "content": what}], **fields)


def events(answer: httpx.Response) -> list[Any]:
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    parts = answer.text.split("\n\n")
    assert parts.pop() == ""
    data = [part.removeprefix("data: ") for part in parts]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def test_the_documented_request_is_answered(client):
    """A name of OpenAI's stands for a model that is here, and the answer calls it as it was asked for."""
    answer = client.post("/v1/chat/completions", json={**DOCUMENTED, "max_completion_tokens": 5}).raise_for_status()
    body = answer.json()
    assert (body["object"], body["model"]) == ("chat.completion", "gpt-4o-mini")
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    assert body["usage"]["completion_tokens"] <= 5
    assert answer.headers["x-request-id"].startswith("req_")


def test_unknown_keys_pass(client):
    """Whatever OpenAI's API takes besides: it changes nothing."""
    plain = complete(client).raise_for_status().json()
    more = {"store": True, "metadata": {"a": "b"}, "user": "u1", "parallel_tool_calls": False, "service_tier": "auto"}
    full = complete(client, **more, safety_identifier="x", verbosity="low", no_such_key=[1]).raise_for_status().json()
    assert full["choices"] == plain["choices"]


def test_what_was_asked_reaches_the_engine_as_it_was(client, told):
    """Every key with its value, also those that nobody here knows; only the model has the engine's name."""
    answer = tell(client, told, "echo", logit_bias={"50256": -100}, reasoning_effort="low", big=12345678901234567890)
    asked = json.loads(answer.raise_for_status().json()["choices"][0]["message"]["content"])
    assert asked["logit_bias"] == {"50256": -100}
    assert (asked["reasoning_effort"], asked["big"]) == ("low", 12345678901234567890)
    assert asked["model"] != told


def test_a_stream_is_chunks_then_usage_then_done(client):
    """Together they say what the whole answer says; each calls the model as it was asked for."""
    whole = complete(client).json()["choices"][0]["message"]["content"]
    *chunks, usage, done = events(complete(client, stream=True, stream_options={"include_usage": True}))
    assert done == "[DONE]"
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 6)
    assert {one["model"] for one in (*chunks, usage)} == {"small"}
    assert {one["object"] for one in (*chunks, usage)} == {"chat.completion.chunk"}
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks) == whole
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_a_model_s_name_within_a_text_stays(client, told):
    """Only the field of each chunk is renamed, also where a chunk arrives byte by byte."""
    first, second, done = events(tell(client, told, "stream", stream=True))
    assert (first["model"], second["model"], done) == (told, told, "[DONE]")
    assert second["choices"][0]["delta"]["content"].startswith('says "model":"models.for-told-')


def test_an_engine_that_dies_in_the_middle_is_an_error_in_the_stream(client, mortal):
    """`data: {"error": ...}`, which the SDKs raise; what had been said before is there, and no `[DONE]`."""
    said, again, error = events(tell(client, mortal, "die", stream=True))
    assert said["choices"]
    assert again["choices"]
    assert set(error) == {"error"}
    assert error["error"]["type"] == "server_error"
    assert error["error"]["param"] is None
    assert error["error"]["message"]


def test_an_engine_s_own_error_in_the_middle_is_passed_on(client, told):
    """As it said it."""
    found = events(tell(client, told, "fail", stream=True))
    assert found[2]["error"]["message"] == "out of cheese"
    assert "[DONE]" not in found


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_refused_with_its_words(client, told, stream):
    """With the code where it has one; 400 whatever status of its own it takes, in OpenAI's form."""
    body = {"error": {"message": "too long", "type": "x", "param": "messages", "code": "context_length_exceeded"}}
    answer = tell(client, told, f"refuse 422 {json.dumps(body)}", stream=stream)
    assert answer.status_code == 400
    assert is_error(answer)
    assert answer.json()["error"] == {
        "message": "messages: too long",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    vllm = {"error": {"message": "bad", "type": "BadRequestError", "param": None, "code": 400}}
    assert tell(client, told, f"refuse 400 {json.dumps(vllm)}", stream=stream).json()["error"]["code"] is None
    busy = tell(client, told, f"refuse 429 {json.dumps(body)}", stream=stream)
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "2")
    broken = tell(client, told, "refuse 500 []", stream=stream)
    assert (broken.status_code, is_error(broken)) == (503, True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_a_wrong_field_is_named(client, fields, param):
    answer = complete(client, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_an_unknown_model_is_404_with_what_there_is(client):
    answer = complete(client, model="smal")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "did you mean small" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": "small"}', b"[" * 5000])
def test_what_is_no_request_is_400(client, body):
    """In OpenAI's form."""
    answer = client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert is_error(answer)
