"""What is told of an engine is true: it runs once it answers, and when it hangs, dies or loses its port, that is told."""

from __future__ import annotations

import json

import httpx
import pytest
from engine_parts import deploy, started

from support.deployed import kill, listening, once, processes_of, remove_all, shown
from support.server import polled
from tunesmith.runner.local.identity import identify

TRUTHFUL_SECONDS = 15.0
"""The bar: what happens to an engine is told within this."""


def test_it_runs_once_it_answers(client, engines):
    """Starting as long as it loads its model, running after the first health check that succeeds."""
    engines.behave("waits")
    made = deploy(client)
    assert (made["status"], made["health_ok"]) == ("starting", False)
    assert once(client, made["deployment_id"], "starting")["reason"] == ""
    engines.go()
    found = once(client, made["deployment_id"], "running")
    assert found["health_ok"]
    assert identify(found["pid"]) is not None
    assert found["started_at"] > 1.7e9


@pytest.mark.parametrize("how", ["hangs", "sick"])
def test_an_engine_that_does_not_answer_is_unhealthy(client, engines, how):
    """Nobody has to ask: the journal has it. It is running again when it answers again."""
    made = deploy(client)
    once(client, made["deployment_id"], "running")
    engines.behave(how)
    journal = engines.place.parent / "state/deployments.jsonl"
    unhealthy = any("unhealthy" in text for text in polled(journal.read_text, TRUTHFUL_SECONDS))
    assert unhealthy
    found = shown(client, made["deployment_id"])
    assert (found["status"], found["health_ok"]) == ("unhealthy", False)
    assert "GET /health" in found["reason"]
    engines.behave()
    assert once(client, made["deployment_id"], "running")["reason"] == ""


def test_an_engine_that_is_killed_is_started_again(client):
    """Another process, and until it answers the deployment is not said to run."""
    made = deploy(client)
    before = once(client, made["deployment_id"], "running")
    kill(before["pid"])
    gone = once(client, made["deployment_id"], "starting", seconds=TRUTHFUL_SECONDS)
    assert "ended by signal 9" in gone["reason"]
    after = once(client, made["deployment_id"], "running")
    assert after["pid"] != before["pid"]
    assert (after["restarts"], after["port"]) == (1, before["port"])


def test_an_engine_that_ends_too_often_has_failed(client, engines):
    """With how it ended and what it said last; its port is free."""
    engines.behave("exits")
    made = deploy(client)
    failed = once(client, made["deployment_id"], "failed")
    assert "exited with 3" in failed["reason"]
    assert "out of cheese" in failed["reason"]
    assert (failed["restarts"], failed["pid"]) == (2, None)
    assert failed["stopped_at"] is not None
    assert processes_of(made["deployment_id"]) == []
    log = client.get(f"/api/v1/deployments/{made['deployment_id']}/logs").json()
    assert log["complete"]
    assert [line["text"] for line in log["lines"]].count("out of cheese") == 3


def test_an_engine_that_does_not_get_well_in_time_has_failed(tmp_path, engines):
    """It is ended, and the reason says so."""
    engines.behave("waits")
    with started(tmp_path, engines, TUNESMITH_ENGINE_START_DEADLINE_SECONDS="1") as server, server.client() as client:
        made = deploy(client)
        failed = once(client, made["deployment_id"], "failed")
        assert "not healthy within 1 seconds" in failed["reason"]
        assert processes_of(made["deployment_id"]) == []


def test_a_program_that_is_not_there(tmp_path, engines):
    """What cannot be started is said by its name."""
    settings = {"TUNESMITH_VLLM_COMMAND": "/no/such/program --quiet", "TUNESMITH_MAX_ENGINE_RESTARTS": "0"}
    with started(tmp_path, engines, **settings) as server, server.client() as client:
        failed = once(client, deploy(client)["deployment_id"], "failed")
        assert "is there a program /no/such/program?" in failed["reason"]


def test_a_stranger_on_its_port_is_never_taken_for_it(client, engines):
    """Not even when it says that it is well: who listens is looked up first. An engine that lost its port gets another."""
    engines.behave("waits")
    made = deploy(client)
    with listening(made["port"]):
        found = once(client, made["deployment_id"], "unhealthy", seconds=TRUTHFUL_SECONDS)
        assert found["reason"] == f"port {made['port']} is held by another process"
        engines.go()
        after = once(client, made["deployment_id"], "running")
        assert after["port"] != made["port"]
        assert f"--port {after['port']}" in after["vllm_cmd"]


def test_deployments_that_race_get_ports_of_their_own(client):
    """However many are asked for at once."""
    made = [deploy(client, tags=["race"]) for _ in range(4)]
    assert len({one["port"] for one in made}) == 4
    found = [once(client, one["deployment_id"], "running") for one in made]
    assert len({one["pid"] for one in found}) == 4
    assert {one["restarts"] for one in found} == {0}


def test_an_engine_survives_its_server(server, engines):
    """Kill -9, and stop, in the middle: the next server has the same process on the same port."""
    with server.client() as client:
        before = once(client, deploy(client, name="kept")["deployment_id"], "running")
    for end in (server.kill9, server.stop):
        end()
        assert identify(before["pid"]) is not None
        server.up()
        with server.client() as client:
            after = once(client, "kept", "running")
            same = ("pid", "port", "started_at", "restarts", "log_file")
            assert {key: after[key] for key in same} == {key: before[key] for key in same}
            assert deploy(client, tags=["new"])["port"] != before["port"]


def test_an_engine_that_died_while_the_server_was_down(server):
    """It is started again, on its port."""
    with server.client() as client:
        before = once(client, deploy(client)["deployment_id"], "running")
    server.kill9()
    kill(before["pid"])
    server.up()
    with server.client() as client:
        after = once(client, before["deployment_id"], "running")
        assert after["pid"] != before["pid"]
        assert after["port"] == before["port"]


@pytest.mark.parametrize("where", ["attempt.before_spawn", "attempt.after_spawn"])
def test_the_intent_is_on_record_before_anything_is_started(tmp_path, engines, where):
    """A server that is killed around the start: the next one finds the deployment, and there is one engine of it."""
    with started(tmp_path, engines) as server:
        server._env["TUNESMITH_FAILPOINT"] = where
        server.stop()
        server.up()
        with server.client() as client:
            try:
                made = deploy(client)
            except httpx.HTTPError:
                made = None
        server.wait()
        (line,) = (tmp_path / "state/deployments.jsonl").read_text().splitlines()[:1]
        record = json.loads(line)["data"]
        assert made is None or made["deployment_id"] == record["id"]
        del server._env["TUNESMITH_FAILPOINT"]
        server.up()
        with server.client() as client:
            found = once(client, record["id"], "running")
            assert len(processes_of(record["id"])) == 2, "one engine, and its shim"
            assert found["pid"] in processes_of(record["id"])
            remove_all(client)
        assert processes_of(record["id"]) == []


def test_it_ends_when_it_is_asked(client):
    """After the answer nothing of it runs, its port is free, and it is not there any more; its record says that it stopped."""
    made = once(client, deploy(client, name="going")["deployment_id"], "running")
    answer = client.delete("/api/v1/deployments/going")
    assert answer.json() == {"detail": "deployment removed", "deployment_id": made["deployment_id"]}
    assert processes_of(made["deployment_id"]) == []
    with listening(made["port"]):
        pass
    assert client.get(f"/api/v1/deployments/{made['deployment_id']}").status_code == 404
    assert client.get(f"/api/v1/deployments/{made['deployment_id']}/logs").status_code == 404
    assert client.delete(f"/api/v1/deployments/{made['deployment_id']}").status_code == 404
    assert client.get("/api/v1/deployments").json() == []
    deploy(client, name="going")


@pytest.mark.parametrize("force", [True, False])
def test_an_engine_that_does_not_want_to_end(client, engines, force):
    """It is killed, after the grace period or at once."""
    engines.behave("ignores")
    made = once(client, deploy(client)["deployment_id"], "running")
    client.delete(f"/api/v1/deployments/{made['deployment_id']}", params={"force": force}).raise_for_status()
    assert processes_of(made["deployment_id"]) == []
    log = (engines.place.parent / "state/deployments" / made["deployment_id"] / "engine.log").read_text()
    assert force or "not now" in log


def test_one_that_is_starting_can_be_removed(client, engines):
    """Before it listens, and while it waits to be started again."""
    engines.behave("waits")
    made = deploy(client)
    client.delete(f"/api/v1/deployments/{made['deployment_id']}").raise_for_status()
    assert processes_of(made["deployment_id"]) == []
    engines.behave("exits")
    made = deploy(client)
    for found in polled(lambda: shown(client, made["deployment_id"])):
        if found["restarts"] >= 1:
            break
    client.delete(f"/api/v1/deployments/{made['deployment_id']}").raise_for_status()
    assert processes_of(made["deployment_id"]) == []


def test_a_removal_that_the_server_did_not_live_to_see(server, engines):
    """It was written down before the engine was asked: the next server ends it."""
    engines.behave("ignores")
    with server.client() as client:
        made = once(client, deploy(client)["deployment_id"], "running")
        with pytest.raises(httpx.TimeoutException):
            client.delete(f"/api/v1/deployments/{made['deployment_id']}", timeout=0.5)
    server.kill9()
    server.up()
    assert any(polled(lambda: processes_of(made["deployment_id"]) == []))
    with server.client() as client:
        assert client.get("/api/v1/deployments").json() == []
