"""The whole life of a run on the real model, over HTTP: paused, its server killed, resumed, cancelled, resumed anew.

Whatever happens to it in between, its steps and losses are those of a run that nobody touched.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from e2e_parts import ROOT, write_orders

from support.server import ServerProcess, wait_for_run

pytestmark = [pytest.mark.e2e, pytest.mark.training, pytest.mark.timeout(1800)]
STEPS = 14
OPTIONS = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 2,
    "max_length": 64,
    "learning_rate": 0.0005,
    "logging_steps": 1,
    "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.05},
    "dtype": "float32",
    "preflight": False,
    "save_steps": 4,
}


@pytest.fixture
def server(home, real_model):
    with ServerProcess.start(home / "state", ROOT / "recipes", {"TUNESMITH_DEFAULT_MODEL": real_model.name}) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        client.timeout = 400
        yield client


@pytest.fixture
def experiment(client, real_model) -> str:
    made = client.post("/v1/experiments", json={"name": "life", "task_type": "lora", "base_model": real_model.name})
    return f"/v1/experiments/{made.json()['id']}"


def at_step(client, run_id: str, step: int) -> dict:
    return wait_for_run(client, run_id, lambda run: (run["current_step"] or 0) >= step, seconds=400)


def losses_of(client, run_id: str) -> dict[int, float]:
    """By step; one that was taken again after a kill must have come out the same."""
    found: dict[int, float] = {}
    for point in client.get(f"/v1/runs/{run_id}/metrics").json()["metrics"]:
        if "loss" in point:
            assert found.setdefault(point["step"], point["loss"]) == pytest.approx(point["loss"], abs=1e-6)
    return found


def test_a_run_lives_through_everything(server, client, experiment, home):
    """Pause, kill -9 of the server, resume, cancel twice, resume as a new run with another length: one curve throughout."""
    rows = write_orders(home / "life", {"train": 40})["train"]
    request = {"dataset": {"name": str(rows)}, "hyperparams": OPTIONS, "seed": 5}
    run_id = client.post(f"{experiment}/runs", json=request).raise_for_status().json()["run_id"]
    resume_as_new = f"{experiment}/runs/{run_id}/resume"

    at_step(client, run_id, 2)
    assert client.post(resume_as_new, json={}).status_code == 409, "it is running"
    paused = client.post(f"/v1/runs/{run_id}/pause").raise_for_status().json()
    assert paused["status"] == "paused"
    first = losses_of(client, run_id)
    assert Path(paused["ckpt_path"]).name == f"checkpoint-{max(first)}"

    server.kill9()
    server.up()
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "paused"
    assert client.post(f"/v1/runs/{run_id}/resume").json()["ckpt_path"] == paused["ckpt_path"]
    at_step(client, run_id, max(first) + 2)
    cancelled = client.post(f"{experiment}/runs/{run_id}/cancel").raise_for_status().json()
    assert cancelled["status"] == "cancelled"
    assert client.post(f"{experiment}/runs/{run_id}/cancel").json() == cancelled
    second = losses_of(client, run_id)
    assert list(second) == list(range(1, max(second) + 1))
    assert Path(cancelled["ckpt_path"]).name == f"checkpoint-{max(second)}"
    assert client.get(f"/v1/runs/{run_id}").json()["attempt"] == 2
    assert max(second) < STEPS, "there is something left to go on with"

    problem = client.post(resume_as_new, json={"override_hyperparams": {"r": 8, "target_modules": ["q_proj"]}})
    assert problem.status_code == 422
    assert [fault["where"] for fault in problem.json()["errors"]] == ["lora.r", "lora.target_modules"]
    child = client.post(resume_as_new, json={"override_hyperparams": {"save_steps": 100}}).raise_for_status().json()
    assert (child["parent_run_id"], child["resume_from"]) == (run_id, cancelled["ckpt_path"])
    run = at_step(client, child["run_id"], max(second) + 1)
    # Died with the machine, before a checkpoint of its own: it resumes from the one that it began with.
    attempt = json.loads(Path(run["run_dir"], "attempts/1/process.json").read_text())
    os.kill(attempt["program"]["pid"], signal.SIGKILL)
    ended = wait_for_run(client, child["run_id"], seconds=400)
    assert (ended["status"], ended["restarts"], ended["attempt"]) == ("succeeded", 1, 2)
    third = losses_of(client, child["run_id"])

    straight = client.post(f"{experiment}/runs", json=request).raise_for_status().json()["run_id"]
    assert wait_for_run(client, straight, seconds=400)["status"] == "succeeded"
    assert second | third == pytest.approx(losses_of(client, straight), abs=1e-6)
    assert sorted(second | third) == list(range(1, STEPS + 1))
    assert min(third) == max(second) + 1
