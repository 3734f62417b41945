"""The server is killed at random while clients work: nothing acknowledged is lost, and every end is told.

`TORTURE_KILLS` is how often (300), `TORTURE_SEED` repeats what the clients do; when a kill comes is left to luck.
"""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from load import READY_SECONDS, Client, History, write_recipes

from support.receiver import Receiver, receiving
from support.server import FINAL_STATES, ServerProcess, polled
from tunesmith.journal import verify

KILLS = int(os.environ.get("TORTURE_KILLS", "300"))
SEED = int(os.environ.get("TORTURE_SEED", "7"))
CLIENTS = 3
LONGEST_LIFE_SECONDS = 1.0
ENVIRONMENT = {
    "TUNESMITH_MAX_CPU_RUNS": "3",
    "TUNESMITH_ALLOW_PRIVATE_URLS": "true",
    "TUNESMITH_CHECKPOINT_BUDGET_BYTES": "3000",
}


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_kills_at_random_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Records, uploads, marks, cancels: all there, once. Every run ends truly, was started once, and its end was told."""
    write_recipes(tmp_path / "recipes")
    server = ServerProcess(tmp_path / "state", tmp_path / "recipes", ENVIRONMENT)
    history = History()
    with receiving() as receiver:
        slowest = under_load(server, history, receiver)
        with server, server.client() as client:
            wait_for_ends(client)
            assert_nothing_lost(client, history)
            assert_started_once(client, server)
            assert_every_end_is_told(client, receiver)
        print(  # noqa: T201  # whoever lets this run for minutes wants to know what it did
            f"{KILLS} kills, slowest start {slowest:.1f} s; acknowledged: {len(history.experiments)} experiments, "
            f"{len(history.runs)} runs, {len(history.cancelled)} cancels, {len(history.uploads)} uploads, "
            f"{len(history.marks)} marks; {len(receiver.events)} events told in {len(receiver.got)} deliveries"
        )
    assert not history.surprises, history.surprises[:5]
    for path in (tmp_path / "state").glob("*.jsonl"):
        assert verify(path).sound, path


def under_load(server: ServerProcess, history: History, receiver: Receiver) -> float:
    """Kill and start again; answers how long the slowest start took, in seconds. The server is up when this returns."""
    chance, stopped, slowest = random.Random(), threading.Event(), 0.0
    server.up()
    with ExitStack() as ending:
        ending.callback(stopped.set)
        for number in range(CLIENTS):
            client = Client(number, history, SEED, receiver.url)
            thread = threading.Thread(target=client.work, args=(lambda: server.url, stopped), daemon=True)
            thread.start()
            ending.callback(thread.join, 120)
        ending.callback(stopped.set)
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, LONGEST_LIFE_SECONDS))  # when it comes is what this is about
            server.kill9()
            began = time.monotonic()
            server.up()
            slowest = max(slowest, time.monotonic() - began)
    assert slowest < READY_SECONDS
    return slowest


def wait_for_ends(client: httpx.Client) -> None:
    """Cancel what waits for it, and see everything come to its end."""
    for unfinished in polled(lambda: [run for run in all_runs(client) if run["status"] not in FINAL_STATES], 120):
        for run in unfinished:
            if run["recipe"] == "long" and run["status"] == "running":
                client.post(f"/v1/runs/{run['run_id']}/cancel")
        if not unfinished:
            return
    raise AssertionError(f"these never end: {unfinished}")


def assert_nothing_lost(client: httpx.Client, history: History) -> None:
    experiments = all_of(client, "/v1/experiments", "experiments")
    by_key = [(one["name"], one["id"]) for one in experiments if one["name"] in history.experiments]
    assert sorted(by_key) == sorted(history.experiments.items())

    runs = {run["run_id"]: run for run in all_runs(client)}
    assert set(history.runs) <= set(runs)
    assert {run["status"] for run in runs.values() if run["recipe"] == "short"} == {"succeeded"}
    assert {runs[run_id]["status"] for run_id in history.cancelled} <= {"cancelled"}

    datasets = client.get("/api/v1/datasets", params={"limit": 100}).json()["datasets"]
    files = {file["upload_id"]: file["sha256"] for dataset in datasets for file in dataset["files"]}
    assert history.uploads.items() <= files.items()

    checkpoints = [
        checkpoint
        for experiment in experiments
        for checkpoint in all_of(client, f"/v1/experiments/{experiment['id']}/checkpoints", "checkpoints")
    ]
    by_tag = {mark["release_tag"]: one for one in checkpoints for mark in one["marks"]}
    assert sum(len(one["marks"]) for one in checkpoints) == len(by_tag), "a release tag is on two checkpoints"
    assert {tag: by_tag[tag]["path"] for tag in history.marks} == history.marks
    assert all(one["complete"] == (Path(one["path"]) / "manifest.json").exists() for one in checkpoints)
    assert all(one["complete"] for one in checkpoints if one["marks"])
    assert not all(one["complete"] for one in checkpoints), "nothing was pruned: the load does not do what it should"


def assert_started_once(client: httpx.Client, server: ServerProcess) -> None:
    starts = (server.state_dir / "starts").read_text().split()
    assert len(starts) == len(set(starts))
    assert set(starts) <= {run["run_id"] for run in all_runs(client)}


def assert_every_end_is_told(client: httpx.Client, receiver: Receiver) -> None:
    """Once to whoever knows an id again, with the true state, after every other state; a repeat is the same message."""
    runs = {run["run_id"]: run["status"] for run in all_runs(client) if run["callback"]}
    for told in polled(lambda: {one["data"]["run_id"] for one in receiver.events if one["type"] == "run.final"}, 120):
        if told == set(runs):
            break
    assert told == set(runs)
    by_run: dict[str, list[dict]] = {}
    for event in receiver.events:
        by_run.setdefault(event["data"]["run_id"], []).append(event)
    for run_id, events in by_run.items():
        assert [one["type"] for one in events].count("run.final") == 1
        assert (events[-1]["type"], events[-1]["data"]["status"]) == ("run.final", runs[run_id])
        assert [one["data"]["status"] for one in events].count(runs[run_id]) == 2
    bodies: dict[str, set[bytes]] = {}
    for headers, body in receiver.got:
        bodies.setdefault(headers["webhook-id"], set()).add(body)
    assert all(len(one) == 1 for one in bodies.values())


def all_runs(client: httpx.Client) -> list[dict]:
    return all_of(client, "/v1/runs", "runs")


def all_of(client: httpx.Client, path: str, name: str) -> list[dict]:
    found: list[dict] = []
    cursor = None
    while True:
        page = (
            client.get(path, params={"limit": 100, **({"cursor": cursor} if cursor else {})}).raise_for_status().json()
        )
        found += page[name]
        cursor = page["cursor"]
        if cursor is None:
            return found
