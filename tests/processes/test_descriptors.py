"""Descriptors run out: nothing stops working for good, nothing untrue is recorded, and runs get what they got before."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.receiver import receiving
from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe

SPARE = range(8)
"""With so many descriptors left, each in its turn, opening fails in other places."""
ENVIRONMENT = {"TUNESMITH_MAX_CPU_RUNS": "4", "TUNESMITH_ALLOW_PRIVATE_URLS": "true"}
CONNECTIONS = 400
SOFT_LIMIT = 200
COUNTS = """
exec "${TUNESMITH_PYTHON:-python}" -u -c '
import itertools, os, sys, time
from tunesmith.contract.events import emit
for step in itertools.count(1):
    emit("metrics", step=step, loss=1.0)
    if os.path.exists(os.environ["TUNESMITH_RUN_DIR"] + "/go"):
        sys.exit(3)
    time.sleep(0.02)
'
"""
SLEEPS = 'echo $$ > "$TUNESMITH_RUN_DIR/pid"; exec sleep 600'


@contextlib.contextmanager
def descriptors_limited_to(pid: int, limit: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def descriptors(pid: int) -> int:
    """The number that the next one would get, if none is free below it."""
    return max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()) + 1


def asked(answers: dict[str, httpx.Response], client: httpx.Client, path: str, body: object = None) -> threading.Thread:
    """A thread, not started yet, that asks and puts the answer under its own name."""

    def ask() -> None:
        answers[path] = client.post(path, json=body)

    return threading.Thread(target=ask, name=path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    for name, script in {"counts": COUNTS, "sleeps": SLEEPS, "quick": "true", "limit": "ulimit -S -n"}.items():
        write_recipe(tmp_path / "recipes", name, script)
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes", ENVIRONMENT) as server:
        yield server


def test_no_place_in_which_descriptors_are_missing_stops_the_service(server):
    """A run is cancelled and another one created while none can be opened, again and again with one more left over.

    Whatever was accepted is done once there are some again, and a third run has lost nothing of its log by then.
    """
    told: list[str] = []
    with receiving() as receiver, server.client() as client, server.client() as another:
        counts = start_run(client, "counts")
        experiment = another.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()["id"]
        for spare in SPARE:
            sleeps = start_run(client, "sleeps", callback={"url": receiver.url, "events": ["final"]})
            told.append(sleeps)
            wait_for_run(client, sleeps, lambda run: run["status"] == "running")
            pid_file = server.state_dir / "runs" / sleeps / "pid"
            assert any(polled(lambda path=pid_file: path.exists() and path.read_text()))
            another.get("/healthz").raise_for_status()
            answers: dict[str, httpx.Response] = {}
            asking = [
                asked(answers, client, f"/v1/runs/{sleeps}/cancel"),
                asked(answers, another, f"/v1/experiments/{experiment}/runs", {"recipe": "quick"}),
            ]
            with descriptors_limited_to(server.pid, descriptors(server.pid) + spare):
                for thread in asking:
                    thread.start()
                for thread in asking:
                    thread.join(1.0)  # some are done only when there are descriptors again
            for thread in asking:
                thread.join(60)
            cancelled, created = (answers[thread.name] for thread in asking)
            assert cancelled.status_code == 200, cancelled.text
            assert client.get(f"/v1/runs/{sleeps}").json()["status"] == "cancelled"
            assert not Path(f"/proc/{int(pid_file.read_text())}").exists()
            assert created.status_code in (201, 503), created.text
            if created.status_code == 201:
                quick = wait_for_run(client, created.json()["run_id"])
                assert quick["status"] == "succeeded", quick
            assert client.get("/healthz").status_code == 200
        (server.state_dir / "runs" / counts / "go").touch()
        ended = wait_for_run(client, counts)
        assert (ended["status"], ended["exit"]["code"]) == ("failed", 3)
        history = client.get(f"/v1/runs/{counts}/metrics").json()["metrics"]
        assert [one["step"] for one in history] == list(range(1, len(history) + 1))
        assert len(history) == ended["current_step"]
        assert wait_for_run(client, start_run(client, "quick"))["status"] == "succeeded"
        assert any(polled(lambda: {one["data"]["run_id"] for one in receiver.events} == set(told)))


def test_connections_leave_descriptors_for_the_work(server):
    """More clients than there is room for: the last ones are refused, and runs are started and cancelled as always."""
    host, port = server.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack, server.client() as client:
        sleeps = start_run(client, "sleeps")
        wait_for_run(client, sleeps, lambda run: run["status"] == "running")
        stack.enter_context(descriptors_limited_to(server.pid, SOFT_LIMIT))
        crowd = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(CONNECTIONS)
        ]
        assert client.post(f"/v1/runs/{sleeps}/cancel").status_code == 200
        assert wait_for_run(client, start_run(client, "quick"))["status"] == "succeeded"
        assert descriptors(server.pid) < SOFT_LIMIT
        told = []
        for connection in crowd:
            with contextlib.suppress(OSError):
                told.append(connection.recv(65536))  # those that are let in are closed after a while
        assert any(answer.startswith(b"HTTP/1.1 503") for answer in told)
        assert client.get("/healthz").status_code == 200
    with server.client() as client:
        assert client.get("/healthz").status_code == 200


def test_the_server_takes_all_it_may_have_and_runs_get_what_they_had(tmp_path):
    """The soft limit that the operator set is the one of a run; programs that use `select` need it."""
    write_recipe(tmp_path / "recipes", "limit", "ulimit -S -n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(soft, hard) // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        server = ServerProcess.start(tmp_path / "state", tmp_path / "recipes")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with server, server.client() as client:
        assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        run_id = start_run(client, "limit")
        wait_for_run(client, run_id)
        log = (server.state_dir / "runs" / run_id / "run.log").read_text()
    assert int(log) == lower
