"""What was trained is what is served: an engine is held to the parity certificate of what it serves, and says when it differs."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from support.commands import Cli
from support.server import polled, start_run, wait_for_run
from support.tiny_model import save_tiny_model, tiny_tokenizer
from tunesmith.contract.manifest import Origin
from tunesmith.contract.parity import PARITY
from tunesmith_workers.models.loading import load_tokenizer
from tunesmith_workers.rollout.parity import certify
from tunesmith_workers.weights.inference import load_for_inference

HELLO = [{"role": "user", "content": "the colour of grass?"}]


@pytest.fixture(scope="module")
def trained(server, place) -> Path:
    """The output of a real training of an adapter."""
    rows = place / "parity-rows.jsonl"
    row = {"messages": [*HELLO, {"role": "assistant", "content": "green"}]}
    rows.write_text((json.dumps(row) + "\n") * 8)
    hyperparams = {"max_steps": 30, "learning_rate": 0.02, "warmup_steps": 0, "lora_r": 8}
    with server.client() as client:
        run_id = start_run(client, "lora", model="small", dataset={"name": str(rows)}, hyperparams=hyperparams)
        run = wait_for_run(client, run_id, seconds=100)
    assert run["status"] == "succeeded", run["error"]
    return place / "state" / "runs" / run_id / "output"


@pytest.fixture
def copied(place, tmp_path_factory):
    """A copy of a folder, where models may be named."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, place / "state" / "models" / tmp_path_factory.mktemp("copy").name))

    return copy


@pytest.fixture
def deployed(client):
    """Serve a folder; what is shown once it was compared. Removed at the end."""
    made = []

    def deploy(folder: Path) -> dict:
        body = {"model_path": str(folder), "engine": "transformers"}
        made.append(client.post("/api/v1/deployments", json=body).raise_for_status().json()["deployment_id"])
        for found in polled(lambda: client.get(f"/api/v1/deployments/{made[-1]}").json(), 60.0):
            if found["status"] != "starting":
                return found
        raise AssertionError(found)

    yield deploy
    for one in made:
        client.delete(f"/api/v1/deployments/{one}", params={"force": True})


def ask(client: httpx.Client, folder: Path) -> httpx.Response:
    return client.post(
        "/api/inference/chat", json={"model": str(folder), "messages": HELLO, "max_tokens": 6, "temperature": 0}
    )


def on_demand(client: httpx.Client, base: Path) -> dict:
    [one] = [one for one in client.get("/api/v1/deployments").json() if one["on_demand"] and one["model"] == str(base)]
    return one


def served_by(deployment: dict) -> str:
    return httpx.get(f"http://127.0.0.1:{deployment['port']}/v1/models", trust_env=False).text


def with_other_weights(folder: Path) -> Path:
    """What another training would have written: an adapter of the same shape."""
    path = folder / "adapter_model.safetensors"
    random = torch.Generator().manual_seed(5)
    weights = {name: torch.randn(value.shape, generator=random) for name, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def with_other_template(folder: Path) -> Path:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("message['role'] +", "'the ' + message['role'] +"))
    return folder


def certified_model(folder: Path, seed: int) -> Path:
    """A whole model with its certificate."""
    save_tiny_model(folder, tiny_tokenizer(), seed=seed)
    model, tokenizer = load_for_inference(str(folder), "float32", "auto"), load_tokenizer(str(folder))
    certify(folder, model, tokenizer, Origin(template_sha256="t", tokenizer_sha256="k"))
    assert (folder / PARITY).exists()
    return folder


def test_an_adapter_is_served_as_it_was_trained(client, deployed, trained, place, server):
    """On its base in a deployment of its own, and in an engine that was started on demand."""
    found = deployed(trained)
    assert (found["status"], found["parity"], found["reason"]) == ("running", "ok", "")
    shown = Cli(place, {"TUNESMITH_URL": server.url})("deployments", "show", found["deployment_id"])
    assert "parity" in shown.stdout
    client.delete(f"/api/v1/deployments/{found['deployment_id']}").raise_for_status()
    assert ask(client, trained).json()["message"]["content"] == "green"
    assert on_demand(client, place / "state/models/small")["parity"] == "ok"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_other_template, "the prompt of the conversation"),
        (with_other_weights, "the answer to the conversation"),
    ],
)
def test_an_adapter_that_is_not_what_was_trained(client, deployed, trained, copied, place, change, words):
    """Its deployment is unhealthy and stays so; on demand it is refused with the reason and unloaded, and its base goes on."""
    folder = change(copied(trained))
    found = deployed(folder)
    assert (found["status"], found["parity"], found["health_ok"]) == ("unhealthy", "differs", False)
    assert f"{folder} is not served as it was trained" in found["reason"]
    assert words in found["reason"]
    again = client.get(f"/api/v1/deployments/{found['deployment_id']}").json()
    assert (again["status"], again["reason"], again["restarts"], again["pid"]) == (
        "unhealthy",
        found["reason"],
        0,
        found["pid"],
    )
    refused = ask(client, folder)
    assert refused.status_code == 503, refused.text
    assert words in refused.json()["detail"]
    base = place / "state/models/small"
    engine = on_demand(client, base)
    assert folder.name not in served_by(engine)
    assert engine["status"] == "running"
    assert ask(client, base).is_success


def test_a_whole_model_with_other_weights(client, deployed, place):
    """Told in the same way; an engine on demand that would answer wrongly is not started again for each who asks."""
    models = place / "state" / "models"
    right, wrong = certified_model(models / "right", 11), certified_model(models / "wrong", 12)
    assert deployed(right)["parity"] == "ok"
    shutil.copy(right / PARITY, wrong / PARITY)
    found = deployed(wrong)
    assert (found["status"], found["parity"]) == ("unhealthy", "differs")
    refused = ask(client, wrong)
    assert refused.status_code == 503
    assert "is not served as it was trained" in refused.json()["detail"]
    before = on_demand(client, wrong)
    assert ask(client, wrong).status_code == 503
    assert on_demand(client, wrong)["pid"] == before["pid"]
    client.delete(f"/api/v1/deployments/{before['deployment_id']}").raise_for_status()


def test_a_certificate_that_cannot_be_read_is_none(deployed, trained, copied, server):
    """The engine is well; the log says why nobody can tell more."""
    folder = copied(trained)
    (folder / PARITY).write_bytes((folder / PARITY).read_bytes()[:-100])
    found = deployed(folder)
    assert (found["status"], found["parity"]) == ("running", "none")
    assert "parity.json cannot be read" in server.log.read_text()


def test_an_engine_that_comes_back_is_compared_anew(client, deployed, trained, copied):
    """Once for each engine: what was changed meanwhile is seen by the next one."""
    folder = copied(trained)
    found = deployed(folder)
    assert found["parity"] == "ok"
    with_other_template(folder)
    assert client.get(f"/api/v1/deployments/{found['deployment_id']}").json()["parity"] == "ok"
    os.kill(found["pid"], signal.SIGKILL)
    for after in polled(lambda: client.get(f"/api/v1/deployments/{found['deployment_id']}").json(), 60.0):
        if after["parity"] == "differs":
            break
    assert after["status"] == "unhealthy"
    assert after["pid"] != found["pid"]


def test_a_model_without_a_certificate(deployed, place):
    assert deployed(place / "state/models/other")["parity"] == "none"
