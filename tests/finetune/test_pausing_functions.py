"""Functions that report what they can resume from: paused, resumed, and taken up again after a kill, over real HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from finetune_parts import function_server, request_for, wait_for_end

from support.receiver import receiving
from support.server import wait_for_run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pausing")


@pytest.fixture(scope="module")
def server(place):
    with function_server(place) as server:
        yield server


def begun(client, receiver, place, name: str, **told) -> dict:
    """A task of five epochs that waits before the fourth until the file ``name`` is there."""
    config = {"wait_for": name, "wait_at": 4, **told}
    answer = client.post("/finetune", json=request_for(receiver, place / "data/rows.csv", name, config_param=config))
    assert answer.status_code == 200, answer.text
    # Its place is told first, what it can resume from after that.
    last = "checkpoint-3" if told.get("checkpoints") else "None"
    wait_for_run(
        client, answer.json()["run_id"], lambda run: run["current_step"] == 3 and str(run["ckpt_path"]).endswith(last)
    )
    return answer.json()


def test_a_paused_function_goes_on_from_what_it_reported(server, place):
    """It gets the path of a copy of what it reported last; each result is told once, whichever attempt it comes from."""
    with receiving() as receiver, server.client() as client:
        task = begun(client, receiver, place, "paused", checkpoints=True)
        paused = client.post(f"/v1/runs/{task['run_id']}/pause").json()
        assert paused["status"] == "paused"
        checkpoints = client.get(f"/v1/runs/{task['run_id']}/checkpoints").json()["checkpoints"]
        assert [one["step"] for one in checkpoints if one["complete"]] == [3, 2]
        assert paused["ckpt_path"] == checkpoints[0]["path"]
        (Path(task["output_model_path"]) / "saved").write_text("the function wrote over its own file")
        (place / "paused").touch()
        assert client.post(f"/v1/runs/{task['run_id']}/resume").json()["status"] == "queued"
        events = wait_for_end(receiver)
        run = wait_for_run(client, task["run_id"])
    assert (run["status"], run["attempt"]) == ("succeeded", 2)
    assert [(event["idx"], event["is_final"]) for event in events] == [(2, False), (4, False), (5, True)]
    assert events[-1]["fig_param"]["x_axis"] == [1, 2, 3, 4, 5]
    assert "checkpoint" not in events[-1]
    assert Path(task["output_log_path"]).read_text().count("after 3") == 1


def test_a_function_that_died_with_the_machine_is_taken_up_again(server, place):
    """Killed as the kernel kills when memory runs out: another attempt, from what it had reported."""
    with receiving() as receiver, server.client() as client:
        task = begun(client, receiver, place, "killed", checkpoints=True)
        attempt = server.state_dir / "runs" / task["run_id"] / "attempts/1/process.json"
        os.kill(json.loads(attempt.read_text())["program"]["pid"], signal.SIGKILL)
        (place / "killed").touch()
        run = wait_for_run(client, task["run_id"])
        assert (run["status"], run["restarts"], run["attempt"]) == ("succeeded", 1, 2)
        assert [event["idx"] for event in wait_for_end(receiver)] == [2, 4, 5]


def test_a_function_without_a_checkpoint_is_not_paused(server, place):
    """409 says why and what to do, and the function goes on as if nobody had asked."""
    with receiving() as receiver, server.client() as client:
        task = begun(client, receiver, place, "refused")
        problem = client.post(f"/v1/runs/{task['run_id']}/pause")
        assert problem.status_code == 409
        assert "has written no checkpoint" in problem.json()["detail"]
        assert client.get(f"/v1/runs/{task['run_id']}").json()["status"] == "running"
        (place / "refused").touch()
        assert [event["idx"] for event in wait_for_end(receiver)] == [2, 4, 5]


def test_what_can_be_gone_on_from_counts_before_it_is_on_record(server, place):
    """A checkpoint lies complete in the run's folder a moment before its record is written: a pause looks there, too."""
    with receiving() as receiver, server.client() as client:
        told = begun(client, receiver, place, "told", checkpoints=True)
        client.post(f"/v1/runs/{told['run_id']}/cancel").raise_for_status()
        silent = begun(client, receiver, place, "silent")
        runs = server.state_dir / "runs"
        of_told, of_silent = (runs / task["run_id"] / "checkpoints" for task in (told, silent))
        shutil.copytree(of_told, of_silent, dirs_exist_ok=True)
        answer = client.post(f"/v1/runs/{silent['run_id']}/pause").json()
        assert answer["status"] == "paused", answer
        client.post(f"/v1/runs/{silent['run_id']}/cancel").raise_for_status()


def test_a_checkpoint_that_is_not_there_fails_the_task(server, place):
    """Reported before it was written: the error names it."""
    with receiving() as receiver, server.client() as client:
        instead = {"idx": 1, "checkpoint": "/nowhere", "fig_param": {"x_axis": [1], "x_label": "epoch", "losses": [1]}}
        request = request_for(receiver, place / "data/rows.csv", "nowhere", config_param={"instead": instead})
        assert client.post("/finetune", json=request).status_code == 200
        assert "'/nowhere' is not there" in wait_for_end(receiver)[-1]["error"]
