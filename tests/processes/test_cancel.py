"""Cancelling what will not go, over HTTP: everything of the run is dead in time, and what it held is free."""

from __future__ import annotations

import socket
import time

import pytest

from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe
from tunesmith.runner.local.identity import identify

GRACE = 1.0
# Ignores SIGTERM, and so does its grandchild in a session of its own, which listens on a port.
STUBBORN = """
trap '' TERM
setsid "${TUNESMITH_PYTHON:-python}" -u -c '
import os, signal, socket
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listening = socket.create_server(("127.0.0.1", 0))
print("grandchild", os.getpid(), "listens on", listening.getsockname()[1])
signal.pause()
' &
while :; do sleep 0.05; done
"""


@pytest.fixture
def server(tmp_path):
    write_recipe(tmp_path / "recipes", "stubborn", STUBBORN)
    write_recipe(tmp_path / "recipes", "next", "true")
    env = {"TUNESMITH_STOP_GRACE_SECONDS": str(GRACE), "TUNESMITH_MAX_CPU_RUNS": "1"}
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes", env) as server:
        yield server


def test_a_run_that_ignores_sigterm_is_dead_after_the_grace_period(server):
    """Program and grandchild are gone, the port can be taken, and the only slot goes to the next run.

    They would go on for ever. On an idle machine they end 3 seconds after the grace period.
    """
    with server.client() as client:
        run_id = start_run(client, "stubborn")
        for lines in polled(lambda: client.get(f"/v1/runs/{run_id}/logs").json()["lines"]):
            if lines:
                break
        _, pid, _, _, port = lines[0]["text"].split()
        waiting = start_run(client, "next")
        assert client.get(f"/v1/runs/{waiting}").json()["status"] == "queued"
        began = time.monotonic()
        assert client.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "cancelled"
        assert time.monotonic() - began < GRACE + 30
        assert identify(int(pid)) is None
        with socket.create_server(("127.0.0.1", int(port))):
            pass
        assert wait_for_run(client, waiting)["status"] == "succeeded"
