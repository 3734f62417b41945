"""Any model reference answers: whole, as a stream, in batches; a model that nobody deployed is loaded and kept warm."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import socket

import httpx
import pytest

from support.commands import Cli
from support.server import polled, start_run, wait_for_run

HELLO = [{"role": "user", "content": "the colour of grass?"}]
ORIGINAL = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "temperature": 0.7, "top_p": 0.9}
"""As the original's own documentation has it, without a model."""


def ask(client: httpx.Client, **fields) -> httpx.Response:
    return client.post("/api/inference/chat", json={"messages": HELLO, "max_tokens": 6, "temperature": 0} | fields)


def said(response: httpx.Response) -> str:
    assert response.is_success, response.text
    text: str = response.json()["message"]["content"]
    return text


def streamed(client: httpx.Client, **fields) -> tuple[list[dict], list[str]]:
    """Data of the events, and their names."""
    body = {"messages": HELLO, "max_tokens": 6, "temperature": 0} | fields
    response = client.post("/api/inference/chat/stream", json=body)
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    data, names = [], []
    for event in response.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in event.split("\n"))
        names.append(lines.get("event", ""))
        data.append(lines["data"] if lines["data"] == "[DONE]" else json.loads(lines["data"]))
    return data, names


def test_the_original_s_request_is_answered(client):
    answer = client.post("/api/inference/chat", json=ORIGINAL).raise_for_status().json()
    assert answer["model"] == "small"
    assert answer["message"]["role"] == "assistant"
    assert answer["finish_reason"] in ("stop", "length")
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]


def test_a_stream_has_deltas_then_usage_then_done(client):
    data, names = streamed(client)
    assert set(names) == {""}
    assert data[-1] == "[DONE]"
    assert data[-2]["usage"]["completion_tokens"] == 6
    assert "".join(part["delta"] for part in data[:-2]) == said(ask(client))


def test_a_batch_keeps_its_order_and_each_its_own_error(client):
    body = {
        "requests": [
            {
                "messages": [{"role": "user", "content": f"number {number}"}],
                **({"model": "nowhere"} if number == 2 else {}),
            }
            for number in range(5)
        ],
        "max_tokens": 5,
        "temperature": 0,
    }
    found = client.post("/api/inference/batch", json=body).raise_for_status().json()
    assert [one["index"] for one in found["results"]] == list(range(5))
    assert (found["answered"], found["failed"]) == (4, 1)
    assert found["results"][2]["answer"] is None
    assert found["results"][2]["error"]["status"] == 400
    alone = ask(client, messages=body["requests"][4]["messages"], max_tokens=5)
    assert found["results"][4]["answer"]["message"]["content"] == said(alone)
    assert found["usage"]["completion_tokens"] == sum(
        one["answer"]["usage"]["completion_tokens"] for one in found["results"] if one["answer"]
    )


def test_prompts_are_a_batch_too(client):
    found = client.post("/api/inference/batch", json={"prompts": ["a", "b"], "max_tokens": 3}).raise_for_status().json()
    assert found["answered"] == 2


def test_every_kind_of_reference_answers_alike(client, place):
    expected = said(ask(client, model="small"))
    folder = place / "state" / "models" / "small"
    for model in ("gpt-tiny", str(folder), None):
        assert said(ask(client, model=model)) == expected
    made = client.post("/api/v1/deployments", json={"model_path": "other", "name": "served", "engine": "transformers"})
    assert made.status_code == 201, made.text
    other = said(ask(client, model="served"))
    assert other == said(ask(client, model=made.json()["deployment_id"])) == said(ask(client, model="other"))
    assert other != expected
    # Nothing else was started for them.
    assert sum(one["on_demand"] for one in client.get("/api/v1/deployments").json()) == 1
    client.delete(f"/api/v1/deployments/{made.json()['deployment_id']}").raise_for_status()


def test_a_run_that_has_just_succeeded_answers_under_its_id(client, place, server):
    rows = place / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"messages": [*HELLO, {"role": "assistant", "content": "green"}]}) + "\n" for _ in range(8))
    )
    run_id = start_run(
        client,
        "lora",
        model="small",
        dataset={"name": str(rows)},
        hyperparams={"max_steps": 30, "learning_rate": 0.02, "warmup_steps": 0, "lora_r": 8},
    )
    run = wait_for_run(client, run_id, seconds=100)
    assert run["status"] == "succeeded", run["error"]
    assert said(ask(client, model=run_id)) == "green"
    assert said(ask(client, model="small")) != "green"
    shared = [one for one in client.get("/api/v1/deployments").json() if one["on_demand"]]
    assert len(shared) == 1  # the adapter lives in the engine of its base
    cli = Cli(place, {"TUNESMITH_URL": server.url})
    answer = cli("chat", run_id, "-m", HELLO[0]["content"], "--temperature", "0", "--max-tokens", "6")
    assert (answer.returncode, answer.stdout) == (0, "green\n"), answer.stderr


REFUSED = {
    "no messages": ({"messages": []}, 422),
    "unknown field": ({"mesages": HELLO}, 422),
    "no such model": ({"model": "nowhere"}, 400),
    "a path outside": ({"model": "/etc"}, 403),
    "a flag": ({"model": "--port"}, 400),
    "a template": ({"model": "{{7*7}}"}, 400),
    "hot": ({"temperature": 3}, 422),
    "too long": ({"messages": [{"role": "user", "content": "grass " * 600}]}, 400),
    "no such token budget": ({"max_tokens": 100_000}, 400),
    "nonsense for a schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
        400,
    ),
}


@pytest.mark.parametrize("door", ["chat", "chat/stream"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_refused_with_its_own_status(client, name, door):
    fields, status = REFUSED[name]
    response = client.post(f"/api/inference/{door}", json={"messages": HELLO, "max_tokens": 6} | fields)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"]


def test_a_prompt_longer_than_the_context_is_told_with_both_numbers(client):
    detail = ask(client, messages=[{"role": "user", "content": "grass " * 600}]).json()["detail"]
    numbers = [int(word) for word in detail.replace(",", "").split() if word.isdecimal()]
    assert 512 in numbers
    assert max(numbers) > 512


def test_both_or_neither_of_requests_and_prompts_is_refused(client):
    for body in ({}, {"prompts": ["x"], "requests": [{"messages": HELLO}]}):
        assert client.post("/api/inference/batch", json=body).status_code == 422


def test_the_least_recently_used_model_goes_first(client, place, tmp_path):
    """Two are kept warm."""
    from support.tiny_model import save_tiny_model, tiny_tokenizer

    save_tiny_model(place / "state" / "models" / "third", tiny_tokenizer(), seed=2)
    for model in ("small", "other", "small", "third"):
        said(ask(client, model=model))
    warm = {one["model"].rpartition("/")[2] for one in client.get("/api/v1/deployments").json() if one["on_demand"]}
    assert warm == {"small", "third"}


def test_many_at_once_start_one_engine(client, place):
    with concurrent.futures.ThreadPoolExecutor(12) as clients:
        answers = [clients.submit(ask, client, model="other") for _ in range(12)]
        assert len({said(one.result()) for one in answers}) == 1
    engines = [one for one in client.get("/api/v1/deployments").json() if one["model"].endswith("/other")]
    assert len(engines) == 1


def test_an_engine_that_was_killed_is_replaced(client):
    before = said(ask(client, model="small"))
    (one,) = [one for one in client.get("/api/v1/deployments").json() if one["model"].endswith("/small")]
    os.kill(one["pid"], signal.SIGKILL)
    for response in polled(lambda: ask(client, model="small")):
        assert response.status_code in (200, 503), response.text
        if response.is_success:
            break
    assert said(response) == before


def test_a_client_that_leaves_ends_its_answer(client, server):
    said(ask(client, model="small"))
    (one,) = [one for one in client.get("/api/v1/deployments").json() if one["model"].endswith("/small")]
    body = json.dumps({"messages": HELLO, "model": "small", "max_tokens": 400, "temperature": 1.5}).encode()
    head = f"POST /api/inference/chat/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    address = httpx.URL(server.url)
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall(head.encode() + body)
        assert b"delta" in connection.recv(65536) + connection.recv(65536)
    engine = f"http://127.0.0.1:{one['port']}/health"
    for health in polled(lambda: httpx.get(engine, trust_env=False).json(), 2.0):
        if health["running"] == 0:
            break
    assert health["running"] == 0


def test_a_restart_of_the_service_keeps_the_warm_engines(client, server):
    """The last test here: it kills the server."""
    before = said(ask(client, model="small"))
    known = {one["deployment_id"]: (one["pid"], one["port"]) for one in client.get("/api/v1/deployments").json()}
    server.kill9()
    server.up()
    with server.client() as again:
        assert said(ask(again, model="small")) == before
        after = {one["deployment_id"]: (one["pid"], one["port"]) for one in again.get("/api/v1/deployments").json()}
    assert after == known
