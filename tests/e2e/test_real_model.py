"""The main job on the real model, as a new user would do it: over HTTP, with the server killed in the middle."""

from __future__ import annotations

import json
import random
from pathlib import Path

import httpx
import pytest

from support.modes import readable_by_others
from support.server import ServerProcess, wait_for_run
from tunesmith.runner.local.identity import identify

pytestmark = [pytest.mark.e2e, pytest.mark.training, pytest.mark.timeout(3000)]
ROOT = Path(__file__).parents[2]
MODEL = "SmolLM2-135M-Instruct"


@pytest.fixture
def server(demo):
    with ServerProcess.start(demo.state_dir, ROOT / "recipes") as server:
        yield server


def start(client: httpx.Client, expected: int = 201, **request) -> dict:
    experiment = client.post("/v1/experiments", json={"name": "e2e", "task_type": "lora", "base_model": MODEL}).json()
    answer = client.post(f"/v1/experiments/{experiment['id']}/runs", json=request)
    assert answer.status_code == expected, answer.text
    return answer.json()


def test_the_demo_teaches_the_model_its_task(demo):
    """Orders that were never trained: hardly one is right before, nearly all are after."""
    assert demo.outcome["held_out"] == 60
    assert demo.outcome["before"]["exact_match"] < 0.05
    assert demo.outcome["after"]["exact_match"] >= 0.95


def test_the_demo_leaves_state_that_a_person_can_read(demo):
    """Config, log, metrics, manifest and journal are plain files with the run's whole story."""
    run = demo.state_dir / "runs" / demo.outcome["training_id"]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    manifest = json.loads((run / "output" / "manifest.json").read_text())
    assert manifest["step"] == steps[-1]
    assert "trained" in (run / "run.log").read_text()
    journal = [json.loads(line) for line in (demo.state_dir / "runs.jsonl").read_text().splitlines()]
    story = [line["event"] for line in journal if line["id"] == demo.outcome["training_id"]]
    assert story == ["created", "starting", "running", "succeeded"]


def test_nobody_else_can_read_what_the_demo_leaves(demo):
    """Model, data, logs, checkpoints and output, whoever wrote them: only the owner may even look."""
    assert readable_by_others(demo.state_dir) == []


def test_twenty_kills_of_the_server_do_not_touch_a_training(server, demo):
    """Kill -9 at 20 random moments: the same process throughout, no log byte or metric lost or repeated, a true end."""
    moments = random.Random(20)
    with server.client() as client:
        run_id = start(
            client,
            dataset={"name": str(demo.state_dir / "demo" / "train.jsonl")},
            hyperparams={"max_steps": 80, "logging_steps": 1, "learning_rate": 0.001, "max_length": 256},
        )["run_id"]
        wait_for_run(client, run_id, lambda run: run["status"] == "running")
    folder = server.state_dir / "runs" / run_id
    process = (folder / "attempts" / "1" / "process.json").read_bytes()
    seen = b""
    for _ in range(20):
        # Between 0 and 60 requests, so that the kill falls anywhere in the server's work.
        with server.client() as client:
            for _ in range(moments.randrange(60)):
                client.get(f"/v1/runs/{run_id}/status").raise_for_status()
            run = client.get(f"/v1/runs/{run_id}").json()
            assert (run["status"], run["attempt"]) == ("running", 1)
        server.kill9()
        log = (folder / "run.log").read_bytes()
        assert log.startswith(seen)
        seen = log
        server.up()
    with server.client() as client:
        run = wait_for_run(client, run_id, seconds=1200)
        assert (run["status"], run["exit"]["code"], run["attempt"]) == ("succeeded", 0, 1)
        assert (folder / "attempts" / "1" / "process.json").read_bytes() == process
        assert identify(json.loads(process)["program"]["pid"]) is None
        log = (folder / "run.log").read_bytes()
        assert log.startswith(seen)
        metrics = client.get(f"/v1/runs/{run_id}/metrics").json()["metrics"]
        assert [point["step"] for point in metrics if "loss" in point] == list(range(1, 81))
        page = client.get(f"/v1/runs/{run_id}/logs", params={"limit": 1000}).json()
        assert page["complete"]
        assert [line["text"] for line in page["lines"]] == log.decode().splitlines()


def test_a_cancelled_training_leaves_a_complete_checkpoint(server, demo):
    """Cancel answers with a checkpoint that has its manifest, and says the same when asked again."""
    with server.client() as client:
        client.timeout = 400
        run = start(
            client,
            dataset={"name": str(demo.state_dir / "demo" / "train.jsonl")},
            hyperparams={"max_steps": 500, "logging_steps": 1, "max_length": 256},
        )
        wait_for_run(client, run["run_id"], lambda run: (run["current_step"] or 0) >= 3, seconds=400)
        path = f"/v1/experiments/{run['experiment_id']}/runs/{run['run_id']}/cancel"
        cancelled = client.post(path).json()
        assert cancelled["status"] == "cancelled"
        assert (Path(cancelled["ckpt_path"]) / "manifest.json").is_file()
        assert client.post(path).json() == cancelled


def test_a_bad_line_is_named(server, demo):
    """A malformed line beyond the rows that are looked at first fails the run with file, line and the mend."""
    broken = demo.state_dir / "demo" / "broken.jsonl"
    rows = (demo.state_dir / "demo" / "train.jsonl").read_text().splitlines()
    broken.write_text("\n".join([*rows[:300], '{"messages": [{"role": "user"', *rows[300:309]]) + "\n")
    with server.client() as client:
        run_id = start(client, dataset={"name": str(broken)})["run_id"]
        run = wait_for_run(client, run_id, seconds=1200)
    assert run["status"] == "failed"
    assert "broken.jsonl:301" in json.dumps(run["error"])
    assert run["error"]["mend"]


def test_what_does_not_exist_is_refused_before_anything_starts(server, demo):
    """A missing model and a missing dataset are named together; unknown options come with the right name."""
    with server.client() as client:
        problem = start(client, 400, model="SmolLM2-135M-Instuct", dataset={"name": "state/demo/nothing.jsonl"})
        said = json.dumps(problem)
        assert "did you mean SmolLM2-135M-Instruct" in said
        assert "nothing.jsonl" in said
        data = {"name": str(demo.state_dir / "demo" / "train.jsonl")}
        problem = start(client, 422, dataset=data, hyperparams={"learning_rte": 1, "max_steps": "many"})
        places = {fault["where"]: fault["mend"] for fault in problem["errors"]}
        assert set(places) == {"hyperparams.learning_rte", "hyperparams.max_steps"}
        assert "learning_rate" in places["hyperparams.learning_rte"]
