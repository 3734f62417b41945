"""Deploying and asking real engines over HTTP, and an adapter to serve. Asserts only that what it starts comes up."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import httpx

from support.deployed import once, processes_of
from support.server import start_run, wait_for_run
from tunesmith.records import ProcessIdentity
from tunesmith.runner.local.identity import identify

ROOT = Path(__file__).parents[2]
PYTHON_VARIABLE = "TUNESMITH_TEST_VLLM_PYTHON"
READY_SECONDS = 300.0
_QUESTION = "Order 7: 3 x lamp"


def vllm_python() -> Path | None:
    """An interpreter with vLLM: the one that the variable names, else the one that ``nox -s vllm_venv`` makes."""
    named = os.environ.get(PYTHON_VARIABLE)
    python = Path(named) if named else ROOT / ".venvs" / "vllm" / "bin" / "python"
    return python if python.exists() else None


def deployed(client: httpx.Client, engine: str, model: str, *, name: str) -> dict[str, Any]:
    """The running deployment of this name, made if it is not there; every other one is removed first."""
    there = client.get("/api/v1/deployments").raise_for_status().json()
    for other in there:
        if other["name"] != name:
            client.delete(f"/api/v1/deployments/{other['deployment_id']}").raise_for_status()
    if name not in [one["name"] for one in there]:
        answer = client.post("/api/v1/deployments", json={"model_path": model, "engine": engine, "name": name})
        assert answer.status_code == 201, answer.text
    found = once(client, name, "running", "failed", seconds=READY_SECONDS)
    assert found["status"] == "running", found["reason"]
    return found


def chat(client: httpx.Client, model: str, question: str = _QUESTION, **fields: Any) -> dict[str, Any]:
    """The answer through the service."""
    answer = client.post("/api/inference/chat", json=_body(model, question) | fields)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def streamed(client: httpx.Client, model: str, question: str = _QUESTION) -> list[Any]:
    """The data of every event of a stream through the service."""
    answer = client.post("/api/inference/chat/stream", json=_body(model, question))
    assert answer.is_success, answer.text
    data = [event.removeprefix("data: ") for event in answer.text.strip().split("\n\n")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def asked_directly(port: int, model: str, question: str = _QUESTION) -> str:
    """What the engine itself answers on its port."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    answer = httpx.post(url, json=_body(model, question), timeout=100.0, trust_env=False).raise_for_status()
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def models_of(port: int) -> list[str]:
    """The names that the engine on this port knows."""
    answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=100.0, trust_env=False).raise_for_status()
    return [one["id"] for one in answer.json()["data"]]


def parts_of(found: dict[str, Any]) -> list[ProcessIdentity]:
    """Its processes: those with its mark, and whatever descends from the one that listens, marked or not."""
    parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    pids = {found["pid"], *processes_of(found["deployment_id"])}
    while more := {pid for pid, parent in parents.items() if parent in pids} - pids:
        pids |= more
    return [one for pid in pids if (one := identify(pid)) is not None]


def _parent(process: Path) -> int:
    with contextlib.suppress(OSError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def computing_process(deployment_id: str) -> int:
    """The process of vLLM that holds the weights; another one listens."""
    titles = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_of(deployment_id)}
    (found,) = [pid for pid, title in titles.items() if b"VLLM::Worker" in title]
    return found


def trained_adapter(client: httpx.Client, folder: Path, model: Path) -> str:
    """The id of a run that taught the model for a few steps to answer an order with JSON."""
    rows = folder / "orders.jsonl"
    rows.write_text("".join(json.dumps(_row(number)) + "\n" for number in range(64)))
    hyperparams = {
        "data": {"max_length": 128},
        "lora": {"r": 24, "lora_alpha": 48},
        "training": {"max_steps": 12, "learning_rate": 0.001, "warmup_steps": 0},
    }
    run_id = start_run(client, "lora", model=str(model), dataset={"name": str(rows)}, hyperparams=hyperparams)
    run = wait_for_run(client, run_id, seconds=600)
    assert run["status"] == "succeeded", run
    return run_id


def _row(number: int) -> dict[str, Any]:
    thing, count = ("cup", "lamp", "chair", "book")[number % 4], number % 9 + 1
    asked = {"role": "user", "content": f"Order {number}: {count} x {thing}"}
    return {"messages": [asked, {"role": "assistant", "content": json.dumps({"item": thing, "count": count})}]}


def _body(model: str, question: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 24,
        "temperature": 0,
    }
