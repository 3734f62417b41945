"""Webhooks in OpenAI's form: each end of a training is told once, whatever dies in between, and OpenAI's SDK takes them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from support.receiver import Receiver, receiving
from support.refusal import refusal
from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe

_HERE = [sys.executable] if importlib.util.find_spec("openai") else []
PYTHONS = [path for path in os.environ.get("TUNESMITH_TEST_OPENAI_PYTHONS", "").split(":") if path] or _HERE

_UNWRAP = """
import json, sys
import openai
given = json.load(sys.stdin)
client = openai.OpenAI(api_key="unused")
for payload in (given["body"], given["body"].encode()):
    try:
        event = client.webhooks.unwrap(payload, given["headers"], secret=given["secret"])
        print(json.dumps([type(event).__name__, event.id, event.object, event.created_at, event.type, event.data.id]))
    except openai.InvalidWebhookSignatureError:
        print(json.dumps("refused"))
"""


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    write_recipe(folder, "succeeds", """echo '{"tunesmith":"metrics","step":1,"total_steps":1,"loss":0.5}'""")
    write_recipe(folder, "fails", "exit 3")
    write_recipe(folder, "stays", "exec sleep 600")
    write_recipe(folder, "scores", "true", kind="evaluate")
    return folder


@pytest.fixture
def served(tmp_path, recipes):
    """Makes servers on the one state folder of the test; the first argument is the setting."""

    def make(webhook_url: str = "", **environment: str) -> ServerProcess:
        environment |= {"TUNESMITH_ALLOW_PRIVATE_URLS": "true", "TUNESMITH_WEBHOOK_URL": webhook_url}
        return ServerProcess(tmp_path / "state", recipes, environment)

    return make


@contextlib.contextmanager
def up(server: ServerProcess):
    """The server and a client of it, inside the block."""
    server.up()
    with server, server.client() as client:
        yield client


def told(receiver: Receiver, count: int) -> list[dict]:
    """What it was told, once that is as much."""
    for events in polled(lambda: receiver.events):
        if len(events) >= count:
            return events
    raise AssertionError(f"not {count} events in {receiver.events}")


def jobs(receiver: Receiver) -> list[str]:
    return [event["data"]["id"] for event in receiver.events]


def job_of(run_id: str) -> str:
    return f"ftjob-{run_id.removeprefix('run_')}"


def finished(client: httpx.Client, recipe: str = "succeeds", **request) -> str:
    run_id = start_run(client, recipe, **request)
    wait_for_run(client, run_id)
    return run_id


def deliveries(client: httpx.Client, run_id: str, count: int, *states: str) -> dict[str, dict]:
    """The run's deliveries by endpoint, once there are so many and each is in one of these states."""
    for found in polled(lambda: client.get(f"/v1/runs/{run_id}/deliveries").raise_for_status().json()["deliveries"]):
        if len(found) >= count and all(one["state"] in states for one in found):
            assert len(found) == count
            return {one["endpoint"]: one for one in found}
    raise AssertionError(f"not {count} in {states}: {found}")


def secret_of(server: ServerProcess) -> str:
    return (server.state_dir / "webhook_secret").read_text().strip()


def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As https://www.standardwebhooks.com defines it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    made = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return fresh and f"v1,{made}" in headers["webhook-signature"].split(" ")


def test_every_end_of_a_training_is_told_once_in_openais_form(served):
    """Succeeded, failed, cancelled; to the endpoint, and to the run's own callback if it asks for this form."""
    with receiving() as endpoint, receiving() as own, up(server := served(f"{endpoint.url}?token=canary")) as client:
        callback = {"url": own.url, "shape": "openai"}
        runs = {"cancelled": start_run(client, "stays", callback=callback)}
        assert client.post(f"/v1/runs/{runs['cancelled']}/cancel").status_code == 200
        for state, recipe in (("succeeded", "succeeds"), ("failed", "fails")):
            runs[state] = finished(client, recipe, callback=callback)
        ends = {state: client.get(f"/v1/runs/{run_id}").json()["finished_at"] for state, run_id in runs.items()}
        for run_id in runs.values():
            found = deliveries(client, run_id, 2, "delivered")
            assert {(place, one["kind"], one["subject_id"]) for place, one in found.items()} == {
                ("callback", "final", run_id),
                ("webhook_url", "final", run_id),
            }
        for receiver in (endpoint, own):
            by_type = {event["type"].rpartition(".")[2]: event for event in told(receiver, 3)}
            assert by_type == {
                state: {
                    "id": by_type[state]["id"],
                    "object": "event",
                    "created_at": int(datetime.fromisoformat(ends[state]).timestamp()),
                    "type": f"fine_tuning.job.{state}",
                    "data": {"id": job_of(run_id)},
                }
                for state, run_id in runs.items()
            }
            assert len(receiver.got) == 3
            assert all(is_signed(secret_of(server), headers, body) for headers, body in receiver.got)
        identifiers = {event["id"] for event in (*endpoint.events, *own.events)}
        assert len(identifiers) == 6
        assert all(one.startswith("evt_") for one in identifiers)
        assert client.get("/v1/callbacks").json()["webhook_url"] == f"{endpoint.url}?token=***"
        assert "canary" not in server.output


def test_the_endpoint_is_told_beside_any_callback_and_of_trainings_only(served):
    """A callback in our own form is told as ever; of an evaluation, for which OpenAI has no event, the endpoint hears nothing."""
    with receiving() as endpoint, receiving() as own, up(served(endpoint.url)) as client:
        scored = finished(client, "scores", callback={"url": own.url, "events": ["final"]})
        trained = finished(client, "succeeds", callback={"url": own.url, "events": ["final"]})
        plain = finished(client)
        assert [event["type"] for event in told(own, 2)] == ["run.final"] * 2
        told(endpoint, 2)
        assert sorted(jobs(endpoint)) == sorted(map(job_of, (trained, plain)))
        assert list(deliveries(client, scored, 1, "delivered")) == ["callback"]


@pytest.mark.parametrize(("callback", "dies_at"), [(False, 1), (True, 1), (True, 2)])
def test_killed_between_the_end_and_the_delivery_the_next_server_tells_it(served, callback, dies_at):
    """Before either of the two is on record, and between them: each arrives, once."""
    with receiving() as endpoint, receiving() as own:
        dying = served(endpoint.url, TUNESMITH_FAILPOINT=f"callback.before_offer#{dies_at}")
        dying.up()
        with dying.client() as client, contextlib.suppress(httpx.TransportError):
            start_run(client, "succeeds", callback={"url": own.url, "shape": "openai"} if callback else None)
        assert dying.wait() == -signal.SIGKILL
        with up(served(endpoint.url)) as client:
            [run] = client.get("/v1/runs").json()["runs"]
            receivers = [endpoint, own] if callback else [endpoint]
            assert [event["type"] for receiver in receivers for event in told(receiver, 1)] == [
                "fine_tuning.job.succeeded"
            ] * len(receivers)
            deliveries(client, run["run_id"], len(receivers), "delivered")


def test_killed_after_the_answer_the_repeat_says_the_same(served):
    """Its webhook-id and its body, with the id of the event in it."""
    with receiving() as endpoint:
        dying = served(endpoint.url, TUNESMITH_FAILPOINT="callback.after_answer#1")
        dying.up()
        with dying.client() as client, contextlib.suppress(httpx.TransportError):
            start_run(client, "fails")
        assert dying.wait() == -signal.SIGKILL
        with up(served(endpoint.url)) as client:
            [run] = client.get("/v1/runs").json()["runs"]
            deliveries(client, run["run_id"], 1, "delivered")
        (first, body), (repeat, again) = endpoint.got
        assert (first["webhook-id"], body) == (repeat["webhook-id"], again)


def test_what_ended_before_there_was_an_endpoint_is_not_told(served):
    """However often the setting comes and goes; what a server with it left untold is told by the next one with it."""
    with receiving() as endpoint:
        with up(served()) as client:
            before = finished(client)
        dying = served(endpoint.url, TUNESMITH_FAILPOINT="callback.before_offer#1")
        dying.up()
        with dying.client() as client, contextlib.suppress(httpx.TransportError):
            start_run(client, "succeeds")
        assert dying.wait() == -signal.SIGKILL
        with up(served()) as client:
            untold = client.get("/v1/runs").json()["runs"][0]["run_id"]
            between = finished(client)
        with up(served(endpoint.url)) as client:
            last = finished(client)
            for run_id in (untold, last):
                deliveries(client, run_id, 1, "delivered")
            for run_id in (before, between):
                deliveries(client, run_id, 0)
        with up(served(endpoint.url)) as client:
            latest = finished(client)
            deliveries(client, latest, 1, "delivered")
        assert sorted(jobs(endpoint)) == sorted(map(job_of, (untold, last, latest)))
        assert len(endpoint.got) == 3


def test_a_410_ends_what_it_answers_and_nothing_else(served):
    """Neither the callback of the same run, nor what the endpoint is told of others; resending asks again, with the same body."""
    with receiving() as endpoint, receiving() as own, up(served(endpoint.url)) as client:
        endpoint.status = 410
        callback = {"url": own.url, "shape": "openai"}
        refused = finished(client, callback=callback)
        found = deliveries(client, refused, 2, "delivered", "gone")
        assert {place: one["state"] for place, one in found.items()} == {"callback": "delivered", "webhook_url": "gone"}
        endpoint.status, own.status = 200, 410
        accepted = finished(client, callback=callback)
        found |= deliveries(client, accepted, 2, "delivered", "gone")
        assert {place: one["state"] for place, one in found.items()} == {"callback": "gone", "webhook_url": "delivered"}
        [gone] = [
            one for one in client.get(f"/v1/runs/{refused}/deliveries").json()["deliveries"] if one["state"] == "gone"
        ]
        assert client.post(f"/v1/deliveries/{gone['delivery_id']}/resend").status_code == 202
        deliveries(client, refused, 2, "delivered")
        assert jobs(endpoint) == [job_of(accepted), job_of(refused)]
        shown = client.get(f"/v1/deliveries/{gone['delivery_id']}").json()
        assert [attempt["status"] for attempt in shown["attempts"]] == [410, 200]
        assert endpoint.got[-1][1].decode() == shown["body"]


@pytest.mark.parametrize(
    ("recipe", "callback", "where"),
    [
        ("scores", {"shape": "openai"}, "callback.shape"),
        ("succeeds", {"shape": "openai", "events": ["state", "metrics"]}, "callback.events"),
        ("succeeds", {"shape": "openai", "events": []}, "callback.events"),
    ],
)
def test_a_callback_that_would_hear_nothing_is_refused(served, recipe, callback, where):
    """No run is created, and the problem names the field."""
    with up(served()) as client:
        experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()["id"]
        asked = {"recipe": recipe, "callback": {"url": "http://127.0.0.1:1/", **callback}}
        answer = client.post(f"/v1/experiments/{experiment}/runs", json=asked)
        assert answer.status_code == 422
        assert answer.json()["where"] == where
        assert client.get("/v1/runs").json()["runs"] == []


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/hook", "http://127.0.0.1:1/hook", "ftp://example.org/", "http://a:b@example.org/", "x"],
)
def test_a_server_refuses_an_endpoint_that_it_must_not_reach(tmp_path, url):
    """When it starts, as it refuses a callback: the message names the setting."""
    config = tmp_path / "tunesmith.yaml"
    config.write_text(f"webhook_url: {url}\n")
    assert "webhook_url" in refusal(tmp_path / "state", "--config", str(config))


@pytest.mark.skipif(not PYTHONS, reason="openai is not installed, nor named by TUNESMITH_TEST_OPENAI_PYTHONS")
def test_openais_sdk_unwraps_what_we_send_and_refuses_another_secret(served):
    """As text and as bytes, to the type of the event; with one byte of body or secret changed it raises."""
    with receiving() as endpoint, up(server := served(endpoint.url)) as client:
        running = start_run(client, "stays")
        assert client.post(f"/v1/runs/{running}/cancel").status_code == 200
        finished(client, "succeeds")
        finished(client, "fails")
        told(endpoint, 3)
        secret, other = secret_of(server), f"whsec_{base64.b64encode(bytes(32)).decode()}"
        for python in PYTHONS:
            for headers, body in endpoint.got:
                event = json.loads(body)
                end = event["type"].rpartition(".")[2].title()
                values = [event[name] for name in ("id", "object", "created_at", "type")]
                expected = [f"FineTuningJob{end}WebhookEvent", *values, event["data"]["id"]]
                assert _unwrapped(python, headers, body, secret) == [expected] * 2
                assert _unwrapped(python, headers, body, other) == ["refused"] * 2
                assert _unwrapped(python, headers, body.replace(b"ftjob-", b"ftjob_"), secret) == ["refused"] * 2


def _unwrapped(python: str, headers: dict[str, str], body: bytes, secret: str) -> list:
    given = json.dumps({"headers": headers, "body": body.decode(), "secret": secret})
    done = subprocess.run(
        [python, "-c", _UNWRAP], input=given, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
