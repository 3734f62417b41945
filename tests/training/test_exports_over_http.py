"""A real model through the doors of a real server: trained by a task, merged, exported to one ONNX file, and scored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest
import transformers
from training_parts import COLOURS, RECIPES

from support.server import ServerProcess, polled, wait_for_run

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("doors")
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in COLOURS))
    return home


@pytest.fixture(scope="module")
def server(home, tiny_model) -> Iterator[ServerProcess]:
    roots = f"{home}:{tiny_model.parent}"
    # Server and runs compute on one thread: a model this small only waits for a second one.
    env = {"TUNESMITH_ALLOWED_ROOTS": roots, "OMP_NUM_THREADS": "1", "TUNESMITH_RUN_ENVIRONMENT": "OMP_NUM_THREADS"}
    with ServerProcess.start(home / "state", RECIPES, env) as server:
        yield server


def test_from_a_task_to_an_onnx_file(server, home, tiny_model):
    """The adapter in the folder that was asked for, the whole model, the file and the scores: all by references to the same run."""
    with server.client() as client:
        started = client.post(
            "/api/train/start",
            json={
                "strategy": "lora",
                "dataset_path": str(home / "rows.jsonl"),
                "output_dir": str(home / "models/colours"),
                "config": {
                    "model_path": str(tiny_model),
                    "per_device_train_batch_size": 4,
                    "learning_rate": 0.01,
                    "max_steps": 8,
                    "logging_steps": 1,
                    "lora_config": {
                        "r": 8,
                        "lora_alpha": 16,
                        "target_modules": ["q_proj", "v_proj"],
                        "lora_dropout": 0.0,
                    },
                },
            },
        ).raise_for_status()
        task_id = started.json()["task_id"]
        for task in polled(lambda: client.get(f"/api/train/status/{task_id}").raise_for_status().json(), 100):
            if task["status"] in ("completed", "failed"):
                break
        assert task["status"] == "completed", task
        assert (task["current_step"], task["total_steps"], task["progress"]) == (8, 8, 100.0)
        assert task["loss"] > 0
        adapter = home / "models/colours"
        assert (adapter / "adapter_model.safetensors").exists()

        experiment = client.post("/v1/experiments", json={"name": "merged", "task_type": "lora"}).json()["id"]
        run = client.post(f"/v1/experiments/{experiment}/runs", json={"recipe": "merge", "model": task_id})
        merged = wait_for_run(client, run.raise_for_status().json()["run_id"], seconds=100)
        assert merged["status"] == "succeeded", merged
        assert merged["metrics"]["max_abs_diff"] < 1e-4
        assert transformers.AutoModelForCausalLM.from_pretrained(merged["output_path"]) is not None
        missing = client.post(f"/v1/experiments/{experiment}/runs", json={"recipe": "merge"})
        assert (missing.status_code, missing.json()["where"]) == (400, "model")

        file = home / "models/colours.onnx"
        exported = client.post("/api/export/onnx", json={"model_path": str(adapter), "output_path": str(file)})
        assert exported.status_code == 200, exported.text
        told = exported.json()
        assert told["max_abs_diff"] < 1e-4
        assert told["bytes"] == file.stat().st_size
        assert "logits" in [one.name for one in onnxruntime.InferenceSession(str(file)).get_outputs()]

        body = {"dataset_path": str(home / "rows.jsonl"), "metrics": ["loss", "accuracy"], "batch_size": 8}
        scored = [
            client.post("/api/eval/evaluate", json={"model_path": model, **body}).raise_for_status().json()
            for model in (task_id, merged["run_id"])
        ]
        assert scored[0]["counts"] == {"rows": len(COLOURS)}
        assert scored[0]["metrics"]["loss"] == pytest.approx(scored[1]["metrics"]["loss"], rel=0.02)
        assert Path(scored[0]["report_path"]).exists()
