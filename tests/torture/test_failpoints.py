"""The server dies at every single place where it writes, syncs, renames or spawns; the next one makes it whole again.

One scripted scenario runs again and again, killed at failpoint 1, 2, 3, ... until it is through without dying. After each
death a server without failpoints must keep the promises: what was acknowledged is there exactly once, what was not is
absent or whole, no run is lost, none was started twice, and every run comes to a truthful end, which its callback is told.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import httpx
import msgspec
import pytest
from load import CHECKPOINT, READY_SECONDS

from support.receiver import Receiver, receiving
from support.server import FINAL_STATES, ServerProcess, polled, wait_for_run, write_recipe
from tunesmith.journal import verify

KEYED = {"name": "keyed", "task_type": "sft"}
KEY = {"Idempotency-Key": "the key"}
NOTES_ITS_START = 'echo "$TUNESMITH_RUN_ID" >>"$TUNESMITH_RUN_DIR/../../starts"; '
ROWS = b'{"messages": []}\n'
METRIC = """echo '{"tunesmith":"metrics","step":1,"total_steps":1,"loss":0.5}'; """


ENVIRONMENT = {"TUNESMITH_MAX_CPU_RUNS": "2", "TUNESMITH_ALLOW_PRIVATE_URLS": "true"}


class Acknowledged(msgspec.Struct):
    """What the client was told before the server died."""

    experiments: list[str] = []
    keyed: str | None = None
    runs: list[str] = []
    cancelled: list[str] = []
    ended: list[str] = []
    uploads: list[str] = []
    marks: list[str] = []
    through: bool = False


def scenario(client: httpx.Client, told: Acknowledged, callback: str) -> None:
    """Experiments, an upload, a run that ends and is marked, one that is cancelled; both are told of. Notes each answer."""
    plain = client.post("/v1/experiments", json={"name": "plain", "task_type": "sft"}).raise_for_status().json()["id"]
    told.experiments.append(plain)
    told.keyed = client.post("/v1/experiments", json=KEYED, headers=KEY).raise_for_status().json()["id"]
    dataset = client.post("/api/v1/datasets", json={"name": "rows"}).raise_for_status().json()["id"]
    upload = client.put(f"/api/v1/datasets/{dataset}/files", files={"file": ("rows.jsonl", ROWS)}).raise_for_status()
    told.uploads.append(upload.json()["upload_id"])
    for recipe in ("short", "long"):
        request = {"recipe": recipe, "callback": {"url": callback, "events": ["state", "final"]}}
        run = client.post(f"/v1/experiments/{plain}/runs", json=request)
        told.runs.append(run.raise_for_status().json()["run_id"])
    short, long = told.runs
    wait_for_run(client, long, lambda run: run["status"] == "running")
    client.post(f"/v1/runs/{long}/cancel").raise_for_status()
    told.cancelled.append(long)
    assert wait_for_run(client, short)["status"] == "succeeded"
    told.ended.append(short)
    [checkpoint] = client.get(f"/v1/runs/{short}/checkpoints").json()["checkpoints"]
    mark = {"run_id": short, "ckpt_path": checkpoint["path"], "tag_type": "release", "release_tag": "v1"}
    client.post(f"/v1/experiments/{plain}/checkpoints/mark", json=mark).raise_for_status()
    told.marks.append("v1")
    told.through = True


def died_at(place: Path, number: int, callback: str) -> tuple[ServerProcess, Acknowledged]:
    """Run the scenario against a server that dies at that failpoint."""
    environment = {**ENVIRONMENT, "TUNESMITH_FAILPOINT": str(number)}
    server = ServerProcess(place / "state", place / "recipes", environment)
    told = Acknowledged()
    try:
        server.up()
        with server.client() as client:
            scenario(client, told, callback)
    except (httpx.TransportError, AssertionError):
        assert server._process is not None
        assert server._process.wait(10) == -signal.SIGKILL, server.output
    return server, told


def assert_made_whole(server: ServerProcess, told: Acknowledged, receiver: Receiver) -> None:
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
        assert_kept(client, told)
        assert_told({run["run_id"] for run in runs}, receiver)
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


def assert_kept(client: httpx.Client, told: Acknowledged) -> None:
    """The upload with its bytes, the mark on a checkpoint that is there."""
    datasets = client.get("/api/v1/datasets").json()["datasets"]
    files = {file["upload_id"]: file["sha256"] for dataset in datasets for file in dataset["files"]}
    assert files == dict.fromkeys(files, hashlib.sha256(ROWS).hexdigest())
    assert set(told.uploads) <= set(files)
    assert len(files) <= 1
    marked = [
        (mark["release_tag"], one["complete"])
        for run_id in told.ended
        for one in client.get(f"/v1/runs/{run_id}/checkpoints").json()["checkpoints"]
        for mark in one["marks"]
    ]
    assert {(tag, True) for tag in told.marks} <= set(marked)
    assert len(marked) <= 1


def assert_told(runs: set[str], receiver: Receiver) -> None:
    """The end of each, once and last."""
    for ends in polled(lambda: [one["data"]["run_id"] for one in receiver.events if one["type"] == "run.final"]):
        if set(ends) == runs:
            break
    assert sorted(ends) == sorted(runs)
    for run_id in runs:
        events = [one for one in receiver.events if one["data"]["run_id"] == run_id]
        assert [one["type"] for one in events[-2:]] == ["run.state", "run.final"]
        assert events[-1]["data"]["status"] == events[-2]["data"]["status"]


def history(client: httpx.Client, run: dict) -> list[dict]:
    detail = client.get(f"/v1/experiments/{run['experiment_id']}/detail").raise_for_status().json()
    return [event for event in detail["history"] if event["run_id"] == run["run_id"]]


def survives_death_at(place: Path, number: int) -> bool:
    """Whether the scenario came through without dying; every promise is checked in either case."""
    write_recipe(place / "recipes", "short", NOTES_ITS_START + CHECKPOINT + "checkpoint 1\n" + METRIC)
    write_recipe(place / "recipes", "long", NOTES_ITS_START + "exec sleep 600")
    with receiving() as receiver:
        server, told = died_at(place, number, receiver.url)
        if told.through:
            server.stop()
        server._env = ENVIRONMENT
        with server:
            began = time.monotonic()
            server.up()
            assert time.monotonic() - began < READY_SECONDS
            assert_made_whole(server, told, receiver)
    return told.through


@pytest.mark.parametrize("number", [8, 50, 92, 134])
def test_some_deaths_are_survived(tmp_path, number):
    """A handful of places, spread over the whole scenario."""
    survives_death_at(tmp_path, number)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_every_death_is_survived(tmp_path):
    """All places, one after the other, until the scenario is through; `TORTURE_FROM` is where it begins (1)."""
    number = int(os.environ.get("TORTURE_FROM", "1"))
    while not survives_death_at(tmp_path / str(number), number):
        number += 1
    assert number > 100, "the scenario passes fewer failpoints than it should"
