"""The end of a batch is told to the endpoint in the settings, in the form of OpenAI's webhooks, once."""

from __future__ import annotations

import pytest
from batch_parts import Engine, create, once, request, start_server, started, upload

from support.deployed import remove_all
from support.receiver import receiving
from support.server import polled


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


def told(receiver, count: int) -> list[dict]:
    for events in polled(lambda: receiver.events, 30):
        if len(events) >= count:
            return events
    raise AssertionError(f"only {receiver.events}")


def test_each_end_of_a_batch_is_told_once_also_over_a_restart(tmp_path, receiver):
    engine = Engine(tmp_path / "engines")
    settings = {"TUNESMITH_WEBHOOK_URL": receiver.url, "TUNESMITH_ALLOW_PRIVATE_URLS": "true"}
    with start_server(tmp_path, engine, **settings) as server:
        with server.client() as client:
            good = started(client, [request("1")])
            once(client, good, "completed")
            bad = create(client, upload(client, b"{broken\n")).json()["id"]
            failed = once(client, bad, "failed")
            events = told(receiver, 2)
        server.kill9()
        server.up()
        with server.client() as client:
            client.get("/v1/batches").raise_for_status()
            remove_all(client)
    assert [(event["type"], event["data"]["id"]) for event in receiver.events] == [
        ("batch.completed", good),
        ("batch.failed", bad),
    ]
    assert all(event["object"] == "event" and event["id"].startswith("evt_") for event in events)
    assert events[1]["created_at"] == failed["failed_at"]
