"""A run with a callback: every wanted event arrives, in order, once to an idempotent receiver, whatever dies in between."""

from __future__ import annotations

import contextlib
import json
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from support.receiver import Receiver, receiving
from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe

TRAINER = """
exec "${TUNESMITH_PYTHON:-python}" -u -c '
import os, time
from pathlib import Path
from tunesmith.contract.events import emit
run = Path(os.environ["TUNESMITH_RUN_DIR"])
for step in range(1, 21):
    emit("metrics", step=step, total_steps=20, epoch=step / 4, loss=1 / step)
    if step == 10:
        emit("checkpoint", path=str(run / "checkpoints" / "checkpoint-10"), step=10)
    time.sleep(0.03)
emit("result", metrics={"exact_match": 1.0}, model=str(run / "output"))
'
"""


ANNOUNCES = """
exec "${TUNESMITH_PYTHON:-python}" -u -c '
import time
from tunesmith.contract.events import emit
for step in range(1, 7):
    emit("progress", step=step, total_steps=6, epoch=step / 2)
    time.sleep(0.1)  # so that it is read before the measurement comes
    emit("metrics", step=step, total_steps=6, epoch=step / 2, loss=1 / step)
'
"""


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    write_recipe(tmp_path / "recipes", "counts", TRAINER)
    write_recipe(tmp_path / "recipes", "announces", ANNOUNCES)
    return tmp_path / "recipes"


@pytest.fixture
def server(tmp_path, recipes):
    with ServerProcess.start(tmp_path / "state", recipes, {"TUNESMITH_ALLOW_PRIVATE_URLS": "true"}) as server:
        yield server


def wait_for_final(receiver: Receiver) -> list[dict]:
    for events in polled(lambda: receiver.events):
        if any(event["type"] == "run.final" for event in events):
            return events
    raise AssertionError(f"no final event in {receiver.events}")


def test_every_wanted_event_arrives_in_order_and_signed(server):
    """States, metrics every five steps, the checkpoint and the end; the official library accepts the signature."""
    with receiving() as receiver, server.client() as client:
        url = f"{receiver.url}?token=canary"
        run_id = start_run(client, "counts", callback={"url": url, "every_steps": 5})
        events = wait_for_final(receiver)
        assert {event["data"]["run_id"] for event in events} == {run_id}
        told = [event["data"].get("status") or event["data"].get("step") for event in events]
        assert told == ["queued", "starting", "running", 5, 10, 10, 15, 20, "succeeded", "succeeded"]
        final = events[-1]["data"]
        assert final["metrics"]["exact_match"] == 1.0
        assert final["exit"]["code"] == 0
        secret = (server.state_dir / "webhook_secret").read_text().strip()
        for headers, body in receiver.got:
            Webhook(secret).verify(body, headers)
        listed = client.get(f"/v1/runs/{run_id}/deliveries", params={"limit": 100}).json()["deliveries"]
        assert len(listed) == len(events)
        run = client.get(f"/v1/runs/{run_id}").json()
        assert run["callback"]["url"] == f"{receiver.url}?token=***"
        shown = [f"/v1/runs/{run_id}/{what}" for what in ("deliveries", "logs", "config", "events")]
        shown += [f"/v1/experiments/{run['experiment_id']}/detail", f"/v1/deliveries/{listed[0]['delivery_id']}"]
        assert "canary" not in "".join(client.get(path).text for path in ["/v1/runs", *shown]) + server.output


def test_only_what_is_asked_for_is_sent(server):
    """A plain URL asks for everything, once an epoch; a list of events narrows it."""
    with receiving() as receiver, server.client() as client:
        start_run(client, "counts", callback={"url": receiver.url, "events": ["final"]})
        assert [event["type"] for event in wait_for_final(receiver)] == ["run.final"]
    with receiving() as receiver, server.client() as client:
        start_run(client, "counts", callback=receiver.url)
        events = wait_for_final(receiver)
        assert [e["data"]["step"] for e in events if e["type"] == "run.metrics"] == [4, 8, 12, 16, 20]


def test_a_receiver_that_was_down_gets_everything_once_it_is_up(server):
    """Nothing is lost and the order holds, though the server was killed meanwhile, too."""
    with receiving() as receiver, server.client() as client:
        receiver.status = 500
        run_id = start_run(client, "counts", callback={"url": receiver.url, "every_steps": 10})
        assert any(polled(lambda: receiver.refused))
        receiver.status = 200  # from now on; the next try comes after 5 seconds, and a third would after 5 minutes
        wait_for_run(client, run_id, lambda run: (run["current_step"] or 0) >= 12)
        server.kill9()
        server.up()
        client.base_url = server.url
        wait_for_run(client, run_id)
        told = [event["data"].get("status") or event["data"].get("step") for event in wait_for_final(receiver)]
        assert told == ["queued", "starting", "running", 10, 10, 20, "succeeded", "succeeded"]
        assert receiver.refused == 1
        for text in polled(lambda: client.get("/metrics").text):
            if 'tunesmith_deliveries{state="pending"} 0.0' in text:
                break
        lines = map(json.loads, (server.state_dir / "deliveries.jsonl").read_text().splitlines())
        states = Counter({line["id"]: line["data"].get("state", "pending") for line in lines}.values())
        assert states["delivered"] >= len(told)
        assert all(f'tunesmith_deliveries{{state="{state}"}} {count}.0' in text for state, count in states.items())


@pytest.mark.parametrize(
    "url", ["ftp://example.com/x", "http://169.254.169.254/latest", "not a url", "http://user:pw@example.com/"]
)
def test_a_bad_callback_is_refused_at_once(server, url):
    """The run is not created, and the problem names the field."""
    with server.client() as client:
        experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()["id"]
        answer = client.post(f"/v1/experiments/{experiment}/runs", json={"recipe": "counts", "callback": {"url": url}})
        assert answer.status_code == 422
        assert answer.json()["where"] == "callback.url"
        assert client.get("/v1/runs").json()["runs"] == []


def test_a_step_that_was_announced_is_told_of_once_it_is_measured(server):
    """A trainer says where it is before it says what it measured there: in both shapes nothing is taken for told by that."""
    with receiving() as receiver, server.client() as client:
        start_run(client, "announces", callback={"url": receiver.url, "events": ["metrics", "final"], "every_steps": 2})
        told = [event["data"]["step"] for event in wait_for_final(receiver) if event["type"] == "run.metrics"]
        assert told == [2, 4, 6]
    with receiving() as receiver, server.client() as client:
        callback = {"url": receiver.url, "shape": "finetune", "events": ["metrics", "final"], "every_epochs": 1}
        run_id = start_run(client, "announces", callback=callback)
        wait_for_run(client, run_id)
        told = next(events for events in polled(lambda: receiver.events) if any(one["is_final"] for one in events))
        assert [event["idx"] for event in told] == [1, 2, 3]


@pytest.mark.parametrize("number", [5, 6])
def test_a_death_between_any_two_offers_loses_none(tmp_path, recipes, number):
    """The server dies before it writes down the last state, or the end: the next one offers what is left."""
    write_recipe(recipes, "brief", """echo '{"tunesmith":"metrics","step":1,"total_steps":1,"loss":0.5}'""")
    environment = {"TUNESMITH_ALLOW_PRIVATE_URLS": "true"}
    dying = ServerProcess(
        tmp_path / "state", recipes, {**environment, "TUNESMITH_FAILPOINT": f"callback.before_offer#{number}"}
    )
    dying.up()
    with receiving() as receiver:
        # At every second step: of the only one it is told because nothing comes after it.
        callback = {"url": receiver.url, "every_steps": 2}
        with dying.client() as client, contextlib.suppress(httpx.TransportError):
            start_run(client, "brief", callback=callback)
        assert dying.wait() == -signal.SIGKILL
        with ServerProcess.start(tmp_path / "state", recipes, environment) as server, server.client() as client:
            told = [event["data"].get("status") or event["data"]["step"] for event in wait_for_final(receiver)]
            [run] = client.get("/v1/runs").json()["runs"]
            history = client.get(f"/v1/experiments/{run['experiment_id']}/detail").json()["history"]
    *before, end = [event["status"] for event in history if event["run_id"]]
    assert end == "succeeded"
    assert told == [*before, 1, end, end]
