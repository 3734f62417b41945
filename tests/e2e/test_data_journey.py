"""From rows to an adapter on the real model, over HTTP: dataset, upload, train config, project, run, logs, artifacts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from e2e_parts import ROOT, write_orders

from support.server import FINAL_STATES, ServerProcess, polled

pytestmark = [pytest.mark.e2e, pytest.mark.training, pytest.mark.timeout(1800)]
STEPS = 4
CONFIG = f"""
job: {{type: lora}}
model: {{base: SmolLM2-135M-Instruct}}
data: {{max_length: 64}}
lora: {{r: 4, lora_alpha: 8}}
training: {{max_steps: {STEPS}, per_device_train_batch_size: 2, learning_rate: 5e-4, logging_steps: 1, preflight: false}}
checkpoint: {{save_steps: {STEPS}}}
"""


@pytest.fixture
def client(home, real_model):
    with ServerProcess.start(home / "state", ROOT / "recipes") as server, server.client() as client:
        client.timeout = 400
        yield client


def test_from_rows_to_an_adapter(client, real_model, tmp_path):
    """Every call that a client of the data doors makes, in order, each building on the answer of the one before."""
    rows = write_orders(tmp_path, {"train": 24})["train"].read_bytes()
    dataset = client.post("/api/v1/datasets", json={"name": "journey", "metadata": {"language": "en"}}).json()
    upload = client.put(f"/api/v1/datasets/{dataset['id']}/files", files={"file": ("journey.jsonl", rows)}).json()
    assert upload["bytes"] == len(rows)
    config = client.put(f"/api/v1/datasets/{dataset['id']}/train-config", files={"file": ("journey.yaml", CONFIG)})
    assert config.json()["train_config"]["filename"] == "journey.yaml", config.text
    stored = client.get(f"/api/v1/datasets/{dataset['id']}").json()
    assert stored["files"][0]["sha256"] == hashlib.sha256(rows).hexdigest()
    assert stored["metadata"]["has_train_config"] is True

    wanted = {"name": "journey", "dataset_name": "journey.jsonl", "training_yaml_name": "journey.yaml"}
    assert client.post("/api/projects", json=wanted).json()["status"] == "active"
    answer = client.post("/api/projects/journey/runs", json={"notes": "the whole way"})
    assert answer.status_code == 201, answer.text
    run = answer.json()
    base = f"/api/projects/journey/runs/{run['id']}"
    assert client.delete(f"/api/v1/datasets/{dataset['id']}").status_code == 409, "the run uses it"
    for run in polled(lambda: client.get(base).json(), seconds=400):
        if run["status"] in FINAL_STATES:
            break
    assert (run["status"], run["progress"], run["recipe"]) == ("succeeded", 1.0, "lora"), run["logs"]

    logs = client.get(f"{base}/logs", params={"limit": 1000}).json()
    assert logs["complete"]
    events = [json.loads(line["text"]) for line in logs["lines"] if line["text"].startswith('{"tunesmith":"metrics"')]
    assert [event["step"] for event in events if "loss" in event] == list(range(1, STEPS + 1))
    filtered = client.get(f"{base}/logs", params={"q": '"LOSS":', "limit": 1000}).json()["lines"]
    assert filtered == [line for line in logs["lines"] if '"loss":' in line["text"]]
    assert client.get(f"{base}/logs", params={"level": "error"}).json()["lines"] == []

    artifacts = client.get(f"{base}/artifacts", params={"limit": 1000}).json()["artifacts"]
    kinds = {one["kind"] for one in artifacts}
    assert {"adapter", "tokenizer", "checkpoint"} <= kinds
    weights = next(one for one in artifacts if one["path"] == "output/adapter_model.safetensors")
    assert weights["kind"] == "adapter"
    address = f"{base}/artifacts/{weights['artifact_id']}"
    halves = [client.get(f"{address}/content", headers={"Range": part}) for part in ("bytes=0-999", "bytes=1000-")]
    assert [half.status_code for half in halves] == [206, 206]
    folder = Path(client.get(f"/v1/runs/{run['id']}").json()["run_dir"])
    assert halves[0].content + halves[1].content == (folder / weights["path"]).read_bytes()
    assert client.post(f"{address}/tags", json={"tags": ["release"]}).json()["tags"] == ["release"]
    assert client.delete(f"/api/v1/datasets/{dataset['id']}").status_code == 200, "nothing uses it any more"
