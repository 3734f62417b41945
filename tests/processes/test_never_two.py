"""A run never has two living processes, and keeps its slot until the last of them is gone. Over HTTP, on real processes."""

from __future__ import annotations

import json
import os
import signal

import pytest

from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe
from tunesmith.runner.local.identity import identify

# Writes a checkpoint and who it is, and starts a child in a session of its own that does not end by itself.
SCATTERS = """
folder="$TUNESMITH_RUN_DIR/checkpoints/checkpoint-5"
if [[ -z "$TUNESMITH_RESUME_FROM" ]]; then
  mkdir "$folder"
  echo '{"step": 5, "created_at": "2026-01-01T00:00:00Z"}' >"$folder/manifest.json"
  echo "{\\"tunesmith\\": \\"checkpoint\\", \\"path\\": \\"$folder\\", \\"step\\": 5}"
fi
setsid sleep 600 & echo "alive $$ $!" >>"$TUNESMITH_RUN_DIR/processes"
wait
"""
DELETES_ITSELF = """
until rm -rf "$TUNESMITH_RUN_DIR"; do :; done  # the server may write a file there meanwhile
while [ ! -e "$(dirname "$TUNESMITH_RUN_DIR")/go" ]; do sleep 0.02; done
exit 3
"""


@pytest.fixture
def server(tmp_path):
    write_recipe(tmp_path / "recipes", "scatters", SCATTERS)
    write_recipe(tmp_path / "recipes", "deletes-itself", DELETES_ITSELF)
    write_recipe(tmp_path / "recipes", "next", "true")
    env = {"TUNESMITH_STOP_GRACE_SECONDS": "2", "TUNESMITH_MAX_CPU_RUNS": "1"}
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes", env) as server:
        yield server


def processes_of(server: ServerProcess, run_id: str, attempt: int) -> list[int]:
    """Program and child of an attempt, once it has told them."""
    path = server.state_dir / "runs" / run_id / "processes"
    for lines in polled(lambda: path.read_text().splitlines() if path.exists() else []):
        if len(lines) >= attempt:
            return [int(word) for word in lines[attempt - 1].split()[1:]]
    raise AssertionError(f"attempt {attempt} never told its processes")


def test_an_attempt_is_gone_before_the_next_one_starts(server):
    """The shim and the program are killed, a child in a session of its own lives: it is ended before the run goes on."""
    with server.client() as client:
        run_id = start_run(client, "scatters")
        program, child = processes_of(server, run_id, 1)
        record = server.state_dir / "runs" / run_id / "attempts" / "1" / "process.json"
        # Seen once both are on record, or the server would take what is killed for a start that failed.
        wait_for_run(client, run_id, lambda run: run["status"] == "running" and run["ckpt_path"])
        shim = json.loads(record.read_text())["shim"]["pid"]
        for pid in (shim, program):
            os.kill(pid, signal.SIGKILL)
        wait_for_run(client, run_id, lambda run: run["attempt"] == 2)
        assert identify(child) is None
        second = processes_of(server, run_id, 2)
        assert all(identify(pid) is not None for pid in second)
        assert client.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "cancelled"
        assert all(identify(pid) is None for pid in second)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_that_deletes_its_folder_keeps_its_slot_until_it_is_gone(server, restarted):
    """Its end is unknown, and said to be; until then nobody else gets its slot, whichever server looks."""
    with server.client() as client:
        run_id = start_run(client, "deletes-itself")
        folder = server.state_dir / "runs" / run_id
        assert any(polled(lambda: not folder.exists()))
        waiting = start_run(client, "next")
        if restarted:
            server.kill9()
            server.up()
            client.base_url = server.url
        wait_for_run(client, run_id, lambda run: run["status"] == "running")
        assert client.get(f"/v1/runs/{waiting}").json()["status"] == "queued"
        (server.state_dir / "runs" / "go").touch()
        run = wait_for_run(client, run_id)
        assert (run["status"], run["attempt"]) == ("lost", 1)
        assert "folder of the run is gone" in run["error"]["message"]
        assert wait_for_run(client, waiting)["status"] == "succeeded"


def test_a_run_that_deletes_its_folder_can_be_cancelled(server):
    """Nothing on disk says which processes it has: they are found, and nothing is left of it."""
    with server.client() as client:
        run_id = start_run(client, "deletes-itself")
        folder = server.state_dir / "runs" / run_id
        assert any(polled(lambda: not folder.exists()))
        wait_for_run(client, run_id, lambda run: run["status"] == "running")
        assert client.post(f"/v1/runs/{run_id}/cancel").status_code in (200, 409)
        assert client.get(f"/v1/runs/{run_id}").json()["status"] in ("cancelled", "lost")
        assert wait_for_run(client, start_run(client, "next"))["status"] == "succeeded"
