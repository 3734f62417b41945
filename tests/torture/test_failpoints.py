"""The server dies at every single place where it writes, syncs, renames or spawns; the next one makes it whole again.

One scripted scenario runs again and again, killed at failpoint 1, 2, 3, ... until it is through without dying. After each
death a server without failpoints must keep the promises: what was acknowledged is there exactly once, what was not is
absent or whole, no run is lost, none was started twice, and every run comes to a truthful end.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from support.server import FINAL_STATES, ServerProcess, wait_for_run, write_recipe
from tunesmith.journal import verify

KEYED = {"name": "keyed", "task_type": "sft"}
KEY = {"Idempotency-Key": "the key"}
NOTES_ITS_START = 'echo "$TUNESMITH_RUN_ID" >>"$TUNESMITH_RUN_DIR/../../starts"; '
METRIC = """echo '{"tunesmith":"metrics","step":1,"total_steps":1,"loss":0.5}'; """


class Acknowledged(msgspec.Struct):
    """What the client was told before the server died."""

    experiments: list[str] = []
    keyed: str | None = None
    runs: list[str] = []
    cancelled: list[str] = []
    ended: list[str] = []
    through: bool = False


def scenario(client: httpx.Client, told: Acknowledged) -> None:
    """Experiments, a repeatable post, a run that ends and one that is cancelled. Notes each answer as it comes."""
    plain = client.post("/v1/experiments", json={"name": "plain", "task_type": "sft"}).raise_for_status().json()["id"]
    told.experiments.append(plain)
    told.keyed = client.post("/v1/experiments", json=KEYED, headers=KEY).raise_for_status().json()["id"]
    for recipe in ("short", "long"):
        run = client.post(f"/v1/experiments/{plain}/runs", json={"recipe": recipe})
        told.runs.append(run.raise_for_status().json()["run_id"])
    short, long = told.runs
    wait_for_run(client, long, lambda run: run["status"] == "running")
    client.post(f"/v1/runs/{long}/cancel").raise_for_status()
    told.cancelled.append(long)
    assert wait_for_run(client, short)["status"] == "succeeded"
    told.ended.append(short)
    told.through = True


def died_at(place: Path, number: int) -> tuple[ServerProcess, Acknowledged]:
    """Run the scenario against a server that dies at that failpoint."""
    environment = {"TUNESMITH_FAILPOINT": str(number), "TUNESMITH_MAX_CPU_RUNS": "2"}
    server = ServerProcess(place / "state", place / "recipes", environment)
    told = Acknowledged()
    try:
        server.up()
        with server.client() as client:
            scenario(client, told)
    except (httpx.TransportError, AssertionError):
        assert server._process is not None
        assert server._process.wait(10) == -signal.SIGKILL, server.output
    return server, told


def assert_made_whole(server: ServerProcess, told: Acknowledged) -> None:
    """The promises, on a server that was started after the crash."""
    with server.client() as client:
        listed = client.get("/v1/experiments", params={"limit": 100}).json()["experiments"]
        ids = [experiment["id"] for experiment in listed]
        assert len(set(ids)) == len(ids)
        assert set(told.experiments) <= set(ids)
        assert len(ids) <= 2
        again = client.post("/v1/experiments", json=KEYED, headers=KEY)
        assert again.status_code == (200 if told.keyed or again.json()["id"] in ids else 201)
        assert told.keyed in (None, again.json()["id"])
        named = [item["name"] for item in client.get("/v1/experiments").json()["experiments"]]
        assert named.count("keyed") == 1

        runs = client.get("/v1/runs", params={"limit": 100}).json()["runs"]
        assert set(told.runs) <= {run["run_id"] for run in runs}
        assert len(runs) <= 2
        for run in runs:
            assert_truthful_end(client, run, told)
        noted = server.state_dir / "starts"
        starts = noted.read_text().split() if noted.exists() else []
        assert len(set(starts)) == len(starts), "a run was started twice"
        assert {run["run_id"] for run in runs if run["recipe"] == "short"} <= set(starts)
        assert set(starts) <= {run["run_id"] for run in runs}
    for path in server.state_dir.glob("*.jsonl"):
        verdict = verify(path)
        assert verdict.sound, verdict.faults
        assert verdict.torn_bytes == 0


def assert_truthful_end(client: httpx.Client, run: dict, told: Acknowledged) -> None:
    run_id = run["run_id"]
    assert run["status"] in FINAL_STATES or run_id not in (*told.cancelled, *told.ended)
    if run["recipe"] == "short":
        ended = wait_for_run(client, run_id)
        assert (ended["status"], ended["exit"]["code"]) == ("succeeded", 0)
        assert ended["metrics"] == {"loss": 0.5}
        assert [point["step"] for point in client.get(f"/v1/runs/{run_id}/metrics").json()["metrics"]] == [1]
    else:
        # Asked to stop before the crash or not: it can be cancelled now, and that is how it ends.
        answer = client.post(f"/v1/runs/{run_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled"), answer.text
    states = [event["status"] for event in history(client, run)]
    assert states[0] == "queued"
    assert sum(state in FINAL_STATES for state in states) == 1


def history(client: httpx.Client, run: dict) -> list[dict]:
    detail = client.get(f"/v1/experiments/{run['experiment_id']}/detail").raise_for_status().json()
    return [event for event in detail["history"] if event["run_id"] == run["run_id"]]


def survives_death_at(place: Path, number: int) -> bool:
    """Whether the scenario came through without dying; every promise is checked in either case."""
    write_recipe(place / "recipes", "short", NOTES_ITS_START + METRIC)
    write_recipe(place / "recipes", "long", NOTES_ITS_START + "exec sleep 600")
    server, told = died_at(place, number)
    if told.through:
        server.stop()
    server._env = {"TUNESMITH_MAX_CPU_RUNS": "2"}
    began = time.monotonic()
    with server:
        server.up()
        assert time.monotonic() - began < 10
        assert_made_whole(server, told)
    return told.through


@pytest.mark.parametrize("number", [8, 29, 50, 71])
def test_some_deaths_are_survived(tmp_path, number):
    """A handful of places, spread over the whole scenario."""
    survives_death_at(tmp_path, number)


@pytest.mark.torture
@pytest.mark.timeout(1200)
def test_every_death_is_survived(tmp_path):
    """All places, one after the other, until the scenario is through."""
    number = 1
    while not survives_death_at(tmp_path / str(number), number):
        number += 1
    assert number > 50, "the scenario passes fewer failpoints than it should"
