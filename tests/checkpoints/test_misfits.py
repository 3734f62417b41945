"""Going on from a checkpoint that does not fit is refused by the call itself, with everything that differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.server import ServerProcess, start_run, wait_for_run, write_recipe
from tunesmith.records import new_id

# Writes one checkpoint that says where it comes from, then waits to be stopped; resumed, it says so and ends.
TRAINER = """
exec "${TUNESMITH_PYTHON:-python}" -u - "$1" <<'END'
import hashlib, json, os, signal, sys, time, yaml
from datetime import UTC, datetime
from pathlib import Path
from tunesmith.contract.events import emit

if os.environ["TUNESMITH_RESUME_FROM"]:
    sys.exit(print("goes on"))
config = yaml.safe_load(Path(sys.argv[1]).read_text())
data = Path(config["data"]["train_file"]).read_bytes()
origin = {"base_model": config["model"]["base"], "data_sha256": hashlib.sha256(data).hexdigest(), "config": config}
folder = Path(os.environ["TUNESMITH_RUN_DIR"]) / "checkpoints/checkpoint-3"
folder.mkdir()
(folder / "weights").write_bytes(bytes(10))
manifest = {"step": 3, "created_at": datetime.now(UTC).isoformat(), "origin": origin}
manifest["files"] = [{"path": "weights", "bytes": 10}]
(folder / "manifest.json").write_text(json.dumps(manifest))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
emit("checkpoint", path=str(folder), step=3)
time.sleep(300)
END
"""
CONFIG = {
    "job": {"type": "adapts", "method": None},
    "model": {"base": None},
    "data": {"train_file": None, "chat_template": ""},
    "lora": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "lora_dropout": 0.0},
    "training": {"learning_rate": 0.1, "max_steps": 9},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("misfits")
    write_recipe(place / "recipes", "adapts", TRAINER, CONFIG, data=["messages"])
    (place / "model").mkdir()
    return place


@pytest.fixture(scope="module")
def server(place):
    env = {"TUNESMITH_MAX_CPU_RUNS": "4", "TUNESMITH_ALIASES": f"base={place / 'model'}"}
    with ServerProcess.start(place / "state", place / "recipes", env) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture
def stopped(client, place) -> dict:
    """A run that was paused with a checkpoint, on data of its own."""
    rows = place / f"{new_id('rows')}.jsonl"
    rows.write_text('{"messages": []}\n')
    run_id = start_run(client, "adapts", model="base", dataset={"name": str(rows)})
    wait_for_run(client, run_id, lambda run: run["ckpt_path"] is not None)
    assert client.post(f"/v1/runs/{run_id}/pause").json()["status"] == "paused"
    return {**client.get(f"/v1/runs/{run_id}").json(), "rows": rows}


def resumed(client, run: dict, **overrides):
    path = f"/v1/experiments/{run['experiment_id']}/runs/{run['run_id']}/resume"
    return client.post(path, json={"override_hyperparams": overrides})


def test_another_shape_and_other_data_are_refused_with_every_difference(client, stopped):
    """422 names each option and file with what it was and is; no run is made. What does not matter may be changed."""
    before = client.get("/v1/runs").json()
    stopped["rows"].write_text('{"messages": [1]}\n')
    other = {"r": 4, "lora_alpha": 8, "target_modules": ["k_proj"], "chat_template": "chatml", "learning_rate": 0.2}
    problem = resumed(client, stopped, **other)
    assert problem.status_code == 422, problem.text
    said = {fault["where"]: fault["message"] for fault in problem.json()["errors"]}
    assert said.pop("data.train_file").startswith(f"{stopped['rows']} was trained on with the sha256 ")
    assert said == {
        "lora.r": "was 8 and is now 4",
        "lora.lora_alpha": "was 16 and is now 8",
        "lora.target_modules": "was ['q_proj'] and is now ['k_proj']",
        "data.chat_template": "was '' and is now 'chatml'",
    }
    assert client.get("/v1/runs").json() == before
    stopped["rows"].write_text('{"messages": []}\n')
    child = resumed(client, stopped, learning_rate=0.2, max_steps=20, lora_dropout=0.5)
    assert child.status_code == 201, child.text
    assert wait_for_run(client, child.json()["run_id"])["status"] == "succeeded"


def test_another_base_model_or_recipe_is_refused(client, stopped, server):
    """The manifest says what it was trained on; whatever the names mean today, that is what counts."""
    manifest = Path(stopped["ckpt_path"]) / "manifest.json"
    content = json.loads(manifest.read_text())
    content["origin"]["base_model"] = "/some/other/model"
    content["origin"]["config"]["job"]["type"] = "sft"
    manifest.write_text(json.dumps(content))
    problem = resumed(client, stopped)
    assert problem.status_code == 422, problem.text
    assert [fault["where"] for fault in problem.json()["errors"]] == ["model.base", "job.type"]


def test_a_paused_run_whose_data_changed_stays_paused(client, stopped):
    """409 with the file; once that is back it goes on. The data may also be gone."""
    path = f"/v1/runs/{stopped['run_id']}/resume"
    stopped["rows"].unlink()
    problem = client.post(path)
    assert problem.status_code == 409, problem.text
    assert "cannot be read" in problem.json()["errors"][0]["message"]
    assert client.get(f"/v1/runs/{stopped['run_id']}").json()["status"] == "paused"
    stopped["rows"].write_text('{"messages": []}\n')
    assert client.post(path).json()["status"] == "queued"
    assert wait_for_run(client, stopped["run_id"])["status"] == "succeeded"


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~nobody-of-that-name/x", ""])
def test_a_path_that_no_checkpoint_can_have_is_refused(client, stopped, path):
    """By resume and by mark, as a bad request and not as an error of ours."""
    base = f"/v1/experiments/{stopped['experiment_id']}"
    answer = client.post(f"{base}/runs/{stopped['run_id']}/resume", json={"ckpt_path": path})
    assert answer.status_code == 400, answer.text
    mark = {"run_id": stopped["run_id"], "ckpt_path": path, "tag_type": "release", "release_tag": "r"}
    answer = client.post(f"{base}/checkpoints/mark", json=mark)
    assert answer.status_code == 400, answer.text
