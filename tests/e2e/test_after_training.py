"""What comes after training, on the real model and over HTTP: the whole journey of a train task, and one model in five forms that say
the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.server import ServerProcess, polled, start_run, wait_for_run

pytestmark = [pytest.mark.e2e, pytest.mark.training, pytest.mark.timeout(3000)]
ROOT = Path(__file__).parents[2]
MODEL = "SmolLM2-135M-Instruct"
LONGEST = 64


@pytest.fixture(scope="module")
def server(demo):
    with ServerProcess.start(demo.state_dir, ROOT / "recipes") as server:
        yield server
        with server.client() as client:
            for one in client.get("/api/v1/deployments").json():
                client.delete(f"/api/v1/deployments/{one['deployment_id']}", params={"force": True})


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        client.timeout = 900
        yield client


@pytest.fixture(scope="module")
def held_out(demo) -> list[dict[str, Any]]:
    """Conversations and their right answers."""
    lines = (demo.state_dir / "demo" / "held_out.jsonl").read_text().splitlines()
    rows = [json.loads(line)["messages"] for line in lines]
    return [{"messages": row[:-1], "answer": row[-1]["content"]} for row in rows]


@pytest.fixture(scope="module")
def exported(client, demo) -> dict[str, Any]:
    """The tuned model as a file for onnxruntime."""
    asked = {
        "model_path": demo.outcome["training_id"],
        "output_path": str(demo.state_dir.parent / "tuned-onnx"),
        "export_format": "onnx",
        "opset_version": 18,
    }
    return client.post("/api/export/onnx", json=asked).raise_for_status().json()


def test_a_train_task_goes_all_the_way(client, demo, exported):
    """Process, train, follow, evaluate, chat, stream, batch, export: each request as the contract has it."""
    place = demo.state_dir.parent
    processed = client.post(
        "/api/data/process",
        json={
            "input_file": str(demo.state_dir / "demo" / "train.jsonl"),
            "output_dir": str(place / "split"),
            "split_config": {"train_ratio": 0.8, "val_ratio": 0.1, "test_ratio": 0.1, "shuffle": True, "seed": 42},
        },
    )
    assert processed.is_success, processed.text
    started = client.post(
        "/api/train/start",
        json={
            "strategy": "lora",
            "dataset_path": str(place / "split"),
            "output_dir": str(place / "task-model"),
            "config": {
                "model_path": MODEL,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-3,
                "max_steps": 10,
                "lora_config": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.05},
            },
        },
    )
    assert started.status_code == 200, started.text
    assert started.json()["status"] == "pending"
    task = started.json()["task_id"]
    for status in polled(lambda: client.get(f"/api/train/status/{task}").json(), 600):
        if status["status"] in ("completed", "failed", "cancelled"):
            break
    assert status["status"] == "completed", status
    assert (status["progress"], status["current_step"], status["total_steps"]) == (100, 10, 10)
    assert status["loss"] > 0
    assert task in [one["task_id"] for one in client.get("/api/train/tasks").json()]
    model = str(place / "task-model")
    scored = client.post(
        "/api/eval/evaluate",
        json={
            "model_path": model,
            "dataset_path": str(place / "split" / "test.json"),
            "metrics": ["loss", "perplexity", "accuracy"],
            "batch_size": 8,
        },
    )
    assert scored.is_success, scored.text
    assert scored.json()["metrics"]["perplexity"] == pytest.approx(np.exp(scored.json()["metrics"]["loss"]))
    assert Path(scored.json()["report_path"]).is_file()
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0, "model": model}
    answer = client.post("/api/inference/chat", json=asked).raise_for_status().json()
    streamed = client.post("/api/inference/chat/stream", json=asked).raise_for_status().text
    assert streamed.endswith("data: [DONE]\n\n")
    parts = [json.loads(line[6:]) for line in streamed.split("\n\n") if line.startswith("data: {")]
    assert "".join(part.get("delta", "") for part in parts) == answer["message"]["content"]
    batch = client.post("/api/inference/batch", json={"prompts": ["Hello"] * 3, "max_tokens": 4, "model": model}).json()
    assert (batch["answered"], batch["failed"]) == (3, 0)
    assert exported["max_abs_diff"] < 1e-3
    assert exported["bytes"] == sum(
        file.stat().st_size for file in Path(exported["output_path"]).iterdir() if file.name.startswith("model.onnx")
    )


def test_one_model_says_the_same_in_every_form(client, demo, held_out, exported):
    """Orders that are exactly right, of 60, by transformers, by the engine, merged, and in onnxruntime: within one."""
    tuned = demo.outcome["training_id"]
    merge = wait_for_run(client, start_run(client, "merge", model=tuned), seconds=300)
    assert merge["status"] == "succeeded", merge["error"]
    right = {
        "transformers": round(demo.outcome["after"]["exact_match"] * len(held_out)),
        "engine": exact(answered(client, tuned, held_out), held_out),
        "merged": exact(answered(client, merge["run_id"], held_out), held_out),
        "onnx": exact(by_onnxruntime(Path(exported["output_path"]), held_out), held_out),
    }
    assert right["transformers"] >= 57
    assert all(abs(count - right["transformers"]) <= 1 for count in right.values()), right


def answered(client, model: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    body = {
        "requests": [{"messages": row["messages"]} for row in rows],
        "model": model,
        "max_tokens": LONGEST,
        "temperature": 0,
    }
    found = client.post("/api/inference/batch", json=body).raise_for_status().json()
    assert found["failed"] == 0, found["results"][0]
    return [one["answer"]["message"]["content"] for one in found["results"]]


def exact(answers: Sequence[str], rows: Sequence[dict[str, Any]]) -> int:
    return sum(answer.strip() == row["answer"].strip() for answer, row in zip(answers, rows, strict=True))


def by_onnxruntime(folder: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Greedy answers through the file's key/value cache, all rows in one batch padded on the left."""
    import onnxruntime
    from transformers import AutoTokenizer

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True),
            add_special_tokens=False,
        )["input_ids"]
        for row in rows
    ]
    longest = max(map(len, prompts))
    ids = np.array([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = np.array([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    known = {value.name for value in session.get_inputs()}
    past = {
        value.name: np.zeros((len(rows), value.shape[1], 0, value.shape[3]), dtype=np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past_key_values")
    }
    said: list[np.ndarray] = []
    for _ in range(LONGEST):
        positions = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **past}
        outputs = session.run(None, {name: value for name, value in given.items() if name in known})
        found = dict(zip([value.name for value in session.get_outputs()], outputs, strict=True))
        past = {name.replace("present", "past_key_values"): value for name, value in found.items() if "present" in name}
        ids = found["logits"][:, -1].argmax(-1)[:, None]
        said.append(ids[:, 0])
        mask = np.concatenate([mask, np.ones((len(rows), 1), dtype=mask.dtype)], 1)
    ends = tokenizer.eos_token_id
    whole = [row[: row.index(ends)] if ends in row else row for row in np.stack(said, 1).tolist()]
    return [tokenizer.decode(row, skip_special_tokens=True) for row in whole]
