"""A deployment of a real model is what it says, whichever engine serves it: vLLM brings processes of its own along."""

from __future__ import annotations

import time

import pytest
from real_parts import READY_SECONDS, asked_directly, chat, computing_process, deployed, models_of, parts_of, streamed

from support.deployed import kill, listening, once, processes_of, shown
from support.server import polled
from tunesmith.runner.local.identity import identify, is_alive

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

TRUTHFUL_SECONDS = 15.0
"""The bar: what happens to an engine is told within this."""


def test_it_answers(client, running):
    """A fact, by the deployment's name; whole and as a stream it is the same text, with usage and the end."""
    assert running["health_ok"]
    assert identify(running["pid"]) is not None
    question = "What is the capital of France?"
    whole = chat(client, running["name"], question)
    assert "Paris" in whole["message"]["content"]
    assert whole["model"] == running["name"]
    *deltas, end, done = streamed(client, running["name"], question)
    assert done == "[DONE]"
    assert "".join(part["delta"] for part in deltas) == whole["message"]["content"]
    assert end["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] > 0


def test_what_it_refuses_is_the_client_s_fault(client, running):
    """More tokens than the model can read are a 4xx with the engine's own words, and it goes on answering."""
    body = {"model": running["name"], "messages": [{"role": "user", "content": "word " * 20_000}], "max_tokens": 5}
    refused = client.post("/api/inference/chat", json=body)
    assert 400 <= refused.status_code < 500, refused.text
    assert "token" in refused.json()["detail"]
    chat(client, running["name"])


def test_it_survives_its_server(server, client, running):
    """After kill -9 of the service the same processes answer on the same port."""
    before = parts_of(running)
    server.kill9()
    server.up()
    with server.client() as again:
        after = once(again, running["name"], "running", seconds=TRUTHFUL_SECONDS)
        kept = ("pid", "port", "started_at", "restarts", "log_file")
        assert {key: after[key] for key in kept} == {key: running[key] for key in kept}
        assert chat(again, running["name"])["usage"]["completion_tokens"] > 0
    assert all(is_alive(one) for one in before)


def test_one_that_is_killed_is_not_said_to_run(client, running):
    """Within 15 seconds, and until another engine answers on the port; of the one before nothing is left."""
    before = parts_of(running)
    kill(running["pid"])
    killed_at = time.monotonic()
    for found in polled(lambda: shown(client, running["name"]), READY_SECONDS):
        seconds = time.monotonic() - killed_at
        if found["status"] == "running" and found["pid"] != running["pid"]:
            break
        assert found["status"] != "running" or seconds < TRUTHFUL_SECONDS
        assert found["status"] != "failed", found["reason"]
    assert found["status"] == "running", found
    assert (found["port"], found["restarts"]) == (running["port"], running["restarts"] + 1)
    assert [one for one in before if is_alive(one)] == []
    assert chat(client, running["name"])["usage"]["completion_tokens"] > 0


def test_a_part_of_it_that_is_killed(client, running, engine):
    """The process that computes is not the one that listens: without it no more is answered, and that is told, too."""
    if engine != "vllm":
        pytest.skip("the built-in engine is one process")
    kill(computing_process(running["deployment_id"]))
    for found in polled(lambda: shown(client, running["name"]), TRUTHFUL_SECONDS):
        if found["status"] != "running":
            break
    assert found["status"] != "running", found
    after = once(client, running["name"], "running", "failed", seconds=READY_SECONDS)
    assert after["status"] == "running", after["reason"]
    assert after["pid"] != running["pid"]
    chat(client, running["name"])


def test_an_adapter_is_served_beside_its_base(client, engine, adapter):
    """By the id of the run that trained it, with a rank that vLLM takes only when it is told; each has its own answers."""
    found = deployed(client, engine, adapter, name=f"adapter-{engine}")
    name = found["served_models"][0]
    (base,) = set(models_of(found["port"])) - {name}
    of_adapter, of_base = asked_directly(found["port"], name), asked_directly(found["port"], base)
    assert of_adapter != of_base
    assert of_adapter.startswith("{"), "it was taught to answer with JSON"
    assert chat(client, found["name"])["message"]["content"] == of_adapter


def test_nothing_is_left_of_one_that_was_deleted(client, running):
    """When the answer comes, every process is gone and its port is free. Each had the mark by which the service finds it."""
    before = parts_of(running)
    assert {one.pid for one in before} == set(processes_of(running["deployment_id"]))
    assert len(before) >= 2, "its shim and itself"
    client.delete(f"/api/v1/deployments/{running['name']}").raise_for_status()
    assert [one for one in before if is_alive(one)] == []
    assert processes_of(running["deployment_id"]) == []
    with listening(running["port"]):
        pass
    assert client.get(f"/api/v1/deployments/{running['name']}").status_code == 404
