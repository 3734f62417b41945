"""Killing the server: runs go on, the next server finds every one, and says truly how each ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe
from tunesmith.runner.local.identity import identify

# Goes on until it is let go, so that it outlasts any number of restarts however slow they are.
COUNTS = """
exec "${TUNESMITH_PYTHON:-python}" -u -c '
import itertools, os, time
from tunesmith.contract.events import emit
for step in itertools.count(1):
    print(f"line {step} é", flush=True)
    emit("metrics", step=step, loss=1 / step)
    if os.path.exists(os.environ["TUNESMITH_RUN_DIR"] + "/go"):
        break
    time.sleep(0.02)
'
"""
WAITS = """
echo ready
while [ ! -e "$TUNESMITH_RUN_DIR/go" ]; do sleep 0.02; done
"""


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    write_recipe(folder, "counts", COUNTS)
    write_recipe(folder, "exits-0", WAITS + "exit 0")
    write_recipe(folder, "exits-7", WAITS + "echo 'out of cheese'; exit 7")
    write_recipe(folder, "terminates", WAITS + "kill -TERM $$")
    write_recipe(folder, "is-killed", WAITS + "kill -KILL $$")
    write_recipe(folder, "sleeps", "echo ready; exec sleep 600")
    return folder


@pytest.fixture
def server(tmp_path: Path, recipes: Path):
    with ServerProcess.start(tmp_path / "state", recipes, {"TUNESMITH_MAX_CPU_RUNS": "4"}) as server:
        yield server


def process_of(server: ServerProcess, run_id: str, attempt: int = 1) -> dict:
    path = server.state_dir / "runs" / run_id / "attempts" / str(attempt) / "process.json"
    for found in polled(lambda: path.exists() and json.loads(path.read_text())):
        if found and "program" in found:
            return found
    raise AssertionError(f"{path} never named a program")


def wait_for_log(server: ServerProcess, run_id: str, text: str) -> None:
    path = server.state_dir / "runs" / run_id / "run.log"
    for content in polled(lambda: path.read_text() if path.exists() else ""):
        if text in content:
            return
    raise AssertionError(f"{path} never held {text!r}")


def log_lines(client, run_id: str) -> list[str]:
    lines, page = [], {"complete": False, "next_offset": 0}
    while not page["complete"]:
        params = {"limit": 1000, "offset": page["next_offset"]}
        page = client.get(f"/v1/runs/{run_id}/logs", params=params).raise_for_status().json()
        lines += [line["text"] for line in page["lines"]]
    return lines


def steps_of(client, run_id: str) -> list[int]:
    steps, cursor = [], "0"
    while cursor is not None:
        page = client.get(f"/v1/runs/{run_id}/metrics", params={"cursor": cursor}).raise_for_status().json()
        steps += [point["step"] for point in page["metrics"]]
        cursor = page["cursor"]
    return steps


def test_a_training_survives_its_server_many_times(server):
    """Kill -9 in the middle, again and again: same process, no log byte and no metric lost or repeated."""
    with server.client() as client:
        run_id = start_run(client, "counts")
        wait_for_run(client, run_id, lambda run: (run["current_step"] or 0) >= 3)
    process = process_of(server, run_id)
    for _ in range(3):
        server.kill9()
        assert identify(process["program"]["pid"]) is not None
        server.up()
        with server.client() as client:
            run = client.get(f"/v1/runs/{run_id}").json()
            assert run["status"] == "running"
            wait_for_run(client, run_id, lambda run, step=run["current_step"] or 0: (run["current_step"] or 0) > step)
        assert process_of(server, run_id) == process
    (server.state_dir / "runs" / run_id / "go").touch()
    with server.client() as client:
        run = wait_for_run(client, run_id)
        assert (run["status"], run["exit"]["code"], run["attempt"]) == ("succeeded", 0, 1)
        last = run["current_step"]
        lines = [text for text in log_lines(client, run_id) if text.startswith("line")]
        assert lines == [f"line {step} é" for step in range(1, last + 1)]
        assert steps_of(client, run_id) == list(range(1, last + 1))
        assert run["metrics"]["loss"] == pytest.approx(1 / last)


@pytest.mark.parametrize(
    ("recipe", "status", "exit_"),
    [
        ("exits-0", "succeeded", {"code": 0}),
        ("exits-7", "failed", {"code": 7}),
        ("terminates", "failed", {"signal": signal.SIGTERM}),
        ("is-killed", "failed", {"signal": signal.SIGKILL}),
    ],
)
def test_an_end_while_the_server_is_down_is_told_truly(server, recipe, status, exit_):
    """The run ends with nobody watching: the next server reports the true exit."""
    with server.client() as client:
        run_id = start_run(client, recipe)
        wait_for_run(client, run_id, lambda run: run["status"] == "running")
    wait_for_log(server, run_id, "ready")
    server.kill9()
    folder = server.state_dir / "runs" / run_id
    (folder / "go").touch()
    assert any(polled((folder / "attempts" / "1" / "exit.json").exists))
    server.up()
    with server.client() as client:
        run = wait_for_run(client, run_id)
        assert run["status"] == status
        assert {name: run["exit"][name] for name in exit_} == exit_
        if recipe == "exits-7":
            assert "out of cheese" in run["error"]["message"]


def test_a_graceful_stop_leaves_runs_alone_too(server):
    """SIGTERM to the server is no SIGTERM to the trainings, and it exits with 0."""
    with server.client() as client:
        run_id = start_run(client, "sleeps")
        wait_for_run(client, run_id, lambda run: run["status"] == "running")
    process = process_of(server, run_id)
    assert server.stop() == 0
    assert identify(process["program"]["pid"]) is not None
    server.up()
    with server.client() as client:
        assert client.get(f"/v1/runs/{run_id}").json()["status"] == "running"
        assert client.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "cancelled"
    assert identify(process["program"]["pid"]) is None


@pytest.mark.parametrize("server_is_up", [True, False])
def test_a_run_without_its_shim_is_lost_never_succeeded(server, server_is_up):
    """The shim is killed: the program ends well, but nobody can know, and we say so."""
    with server.client() as client:
        run_id = start_run(client, "exits-0")
        wait_for_run(client, run_id, lambda run: run["status"] == "running")
    process = process_of(server, run_id)
    if not server_is_up:
        server.kill9()
    os.kill(process["shim"]["pid"], signal.SIGKILL)
    (server.state_dir / "runs" / run_id / "go").touch()
    if not server_is_up:
        server.up()
    with server.client() as client:
        run = wait_for_run(client, run_id)
        assert run["status"] == "lost"
        assert "nobody recorded how it ended" in run["error"]["message"]
        assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 409


@pytest.mark.parametrize("forged", [{"start_ticks": 1}, {"boot_id": "another-boot"}])
def test_a_forged_process_record_signals_nobody(server, forged):
    """process.json names a living bystander with a wrong start time or boot id: lost, and the bystander lives."""
    with server.client() as client:
        run_id = start_run(client, "sleeps")
        wait_for_run(client, run_id, lambda run: run["status"] == "running")
    process = process_of(server, run_id)
    server.kill9()
    for one in ("shim", "program"):
        os.kill(process[one]["pid"], signal.SIGKILL)
    bystander = {"pid": os.getpid(), "start_ticks": identify(os.getpid()).start_ticks, "boot_id": "", **forged}
    path = server.state_dir / "runs" / run_id / "attempts" / "1" / "process.json"
    path.write_text(json.dumps({**process, "shim": bystander, "program": bystander}))
    server.up()
    with server.client() as client:
        assert wait_for_run(client, run_id)["status"] == "lost"


@pytest.mark.parametrize("failpoint_name", ["attempt.before_spawn", "attempt.after_spawn"])
def test_a_crash_around_the_spawn_starts_nothing_twice(tmp_path, recipes, failpoint_name):
    """The server dies between journaling the intent and knowing the process: exactly one process runs in the end."""
    write_recipe(recipes, "marks", 'echo one start >>"$TUNESMITH_RUN_DIR/../../starts"; sleep 0.3')
    server = ServerProcess.start(tmp_path / "state", recipes, {"TUNESMITH_FAILPOINT": failpoint_name})
    with server, server.client() as client:
        with contextlib.suppress(httpx.TransportError):  # it may die before it has answered
            start_run(client, "marks")
        assert server._process.wait(60) == -signal.SIGKILL
        server._env = {}
        server.up()
        client.base_url = server.url
        (made,) = client.get("/v1/runs").json()["runs"]
        run = wait_for_run(client, made["run_id"])
        assert run["status"] == "succeeded"
        assert datetime.fromisoformat(run["started_at"]) <= datetime.fromisoformat(run["finished_at"])
        assert (server.state_dir / "starts").read_text() == "one start\n"


def test_what_is_queued_stays_queued_in_order(tmp_path, recipes):
    """The queue survives a crash: by priority, then by age."""
    write_recipe(recipes, "marks", 'echo "$TUNESMITH_RUN_ID" >>"$TUNESMITH_RUN_DIR/../../order"')
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            first = start_run(client, "exits-0")
            wait_for_run(client, first, lambda run: run["status"] == "running")
            low, later, high = (start_run(client, "marks", priority=priority) for priority in (0, 0, 5))
        server.kill9()
        server.up()
        with server.client() as client:
            assert client.get(f"/v1/runs/{low}").json()["status"] == "queued"
            (server.state_dir / "runs" / first / "go").touch()
            for run_id in (low, later, high):
                wait_for_run(client, run_id)
        assert (server.state_dir / "order").read_text().split() == [high, low, later]
