"""The deployments door: what it takes, what it answers, what it refuses, and the same from the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from unittest.mock import ANY

import pytest
from engine_parts import adapter, deploy

from support.commands import Cli
from support.deployed import once, shown

FIELDS = {
    *("deployment_id", "model_path", "model_version", "tags", "gpu_id", "port", "pid", "status", "started_at"),
    *("stopped_at", "health_ok", "vllm_cmd", "log_file", "health_path"),
}


def test_a_deployment_from_beginning_to_end(shared, shared_engines):
    """Every field of the contract, with unix times and the exact command; all three addresses know it."""
    made = deploy(
        shared, model_version="v1", tags=["a", "b"], extra_args="--max-num-seqs 4 --enforce_eager", name="life"
    )
    assert set(made) > FIELDS
    assert (made["status"], made["model_version"], made["tags"], made["engine"]) == (
        "starting",
        "v1",
        ["a", "b"],
        "vllm",
    )
    found = once(shared, "life", "running")
    assert found["deployment_id"] == made["deployment_id"]
    assert found["vllm_cmd"].startswith(shared_engines.command)
    model, name = str(shared_engines.place.parent / "state/models/small"), found["served_models"][0]
    assert shared_engines.argv(found["port"]) == [
        *("--model", model, "--host", "127.0.0.1", "--port", str(found["port"]), "--served-model-name", name),
        *("--disable-uvicorn-access-log", "--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", ANY),
        *("--max-num-seqs", "4", "--enforce-eager"),
    ]
    assert abs(found["started_at"] - Path(found["log_file"]).stat().st_ctime) < 100
    for below in ("/api/v1/deployments", "/v1/deployments", "/deployments"):
        assert shared.get(f"{below}/life").json()["pid"] == found["pid"]
        assert shared.get(f"{below}/life/logs").json()["lines"][0]["text"].startswith("engine ")
        assert shared.get(f"{below}/_internal/health").json()["status"] == "ok"
    assert shared.get("/v1/models/resolve", params={"ref": "life"}).json()["path"] == model
    assert shared.delete("/api/v1/deployments/life").json()["detail"] == "deployment removed"


def test_an_adapter_is_served_with_its_base(shared, shared_engines):
    """The engine loads the base, and the adapter under a name of its own."""
    made = deploy(shared, "./adapter")
    found = once(shared, made["deployment_id"], "running")
    state = shared_engines.place.parent
    name = found["served_models"][0]
    assert found["base"] == str(state / "state/models/small")
    assert found["model"] == str(state / "adapter")
    words = shared_engines.argv(found["port"])
    assert words[1] == found["base"]
    assert words[-5:-1] == ["--enable-lora", "--max-lora-rank", "32", "--lora-modules"]
    assert json.loads(words[-1]) == {"name": name, "path": str(state / "adapter")}
    assert words[words.index("--served-model-name") + 1] != name
    shared.delete(f"/api/v1/deployments/{made['deployment_id']}")


def test_an_adapter_of_a_high_rank(shared, shared_engines):
    """The engine is told to make room for it; who asks for more gets more."""
    place = shared_engines.place.parent / "high"
    adapter(place, "small")
    (place / "adapter_config.json").write_text('{"base_model_name_or_path": "small", "r": 100}')
    for given, meant in ((None, "128"), ("--max-lora-rank 256", "256")):
        made = deploy(shared, "./high", extra_args=given)
        words = shlex.split(made["vllm_cmd"])
        assert words[len(words) - words[::-1].index("--max-lora-rank")] == meant
        shared.delete(f"/api/v1/deployments/{made['deployment_id']}")
    (place / "adapter_config.json").write_text('{"base_model_name_or_path": "small", "r": "many"}')
    assert shared.post("/api/v1/deployments", json={"model_path": "./high"}).status_code == 400


def test_the_list(shared):
    """By model, tag and status; a plain array, with the next page in the header."""
    one = deploy(shared, tags=["list", "one"])["deployment_id"]
    two = deploy(shared, "./adapter", tags=["list", "two"])["deployment_id"]
    once(shared, one, "running")
    once(shared, two, "running")

    def listed(**params):
        return [found["deployment_id"] for found in shared.get("/api/v1/deployments", params=params).json()]

    assert listed(tag="list") == [two, one]
    assert listed(tag="list", model="./adapter") == [two]
    assert listed(tag=["one", "two"], status=["running", "failed"]) == [two, one]
    assert listed(tag="list", status="failed") == []
    first = shared.get("/api/v1/deployments", params={"tag": "list", "limit": 1})
    assert [found["deployment_id"] for found in first.json()] == [two]
    rest = shared.get(first.links["next"]["url"])
    assert [found["deployment_id"] for found in rest.json()] == [one]
    assert "next" not in rest.links
    for deployment_id in (one, two):
        shared.delete(f"/api/v1/deployments/{deployment_id}")


def test_a_repeated_call_makes_one(shared):
    """The idempotency key finds the deployment that the first call made."""
    body = {"model_path": "small", "engine": "vllm"}
    first = shared.post("/api/v1/deployments", json=body, headers={"Idempotency-Key": "k"})
    again = shared.post("/deployments", json=body, headers={"Idempotency-Key": "k"})
    other = shared.post("/deployments", json={**body, "tags": ["x"]}, headers={"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert again.json()["deployment_id"] == first.json()["deployment_id"]
    shared.delete(f"/api/v1/deployments/{first.json()['deployment_id']}")


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        ({"model_path": "gone"}, 400, "model_path"),
        ({"model_path": "/etc"}, 403, "model_path"),
        ({"model_path": "../../etc/passwd"}, 403, "model_path"),
        ({"model_path": "--trust-remote-code"}, 400, "model_path"),
        ({"model_path": "a\0b"}, 400, "model_path"),
        ({"model_path": ""}, 422, "model_path"),
        ({"model_path": "x" * 5000}, 422, "model_path"),
        ({}, 422, "model_path"),
        ({"model_path": "small", "health_path": "health"}, 422, "health_path"),
        ({"model_path": "small", "health_path": "//elsewhere/health"}, 422, "health_path"),
        ({"model_path": "small", "health_path": "/a#b"}, 422, "health_path"),
        ({"model_path": "small", "health_path": "/a%zz"}, 422, "health_path"),
        ({"model_path": "small", "health_path": "/a b"}, 422, "health_path"),
        ({"model_path": "small", "health_path": "/a\r\nX: y"}, 422, "health_path"),
        ({"model_path": "small", "name": "a/b"}, 422, "name"),
        ({"model_path": "small", "name": ""}, 422, "name"),
        ({"model_path": "small", "name": "small"}, 422, "name"),
        ({"model_path": "small", "name": "org/model"}, 422, "name"),
        ({"model_path": "small", "tags": [""]}, 422, "tags[0]"),
        ({"model_path": "small", "preferred_gpu": 0}, 422, "preferred_gpu"),
        ({"model_path": "small", "preferred_gpu": "A100"}, 422, "preferred_gpu"),
        ({"model_path": "small", "engine": "vlm"}, 422, "engine"),
        ({"model_path": "small", "extra_args": "--trust-remote-code"}, 422, "extra_args"),
        ({"model_path": "small", "extra_args": "--port 80"}, 422, "extra_args"),
        ({"model_path": "small", "extra_args": "'"}, 422, "extra_args"),
        ({"model_path": "small", "extra_args": "a\nb; reboot"}, 422, "extra_args"),
        ({"model_path": "small", "extra_args": ["--seed", "1\n"]}, 422, "extra_args"),
        ({"model_path": "small", "modle": 1}, 422, "modle"),
    ],
)
def test_bad_input_is_refused_by_its_field(shared, body, status, where):
    """And nothing is made: no record, no process, no port."""
    before = len(shared.get("/api/v1/deployments").json())
    answer = shared.post("/api/v1/deployments", json={"engine": "vllm", **body})
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert where in {problem.get("where"), *(fault.get("where") for fault in problem.get("errors", []))}
    assert len(shared.get("/api/v1/deployments").json()) == before


def test_a_name_belongs_to_one(shared):
    """Until it is removed."""
    made = deploy(shared, name="mine")
    taken = shared.post("/api/v1/deployments", json={"model_path": "small", "engine": "vllm", "name": "mine"})
    assert (taken.status_code, taken.json()["where"]) == (409, "name")
    shared.delete("/api/v1/deployments/mine")
    again = deploy(shared, name="mine")
    assert again["deployment_id"] != made["deployment_id"]
    assert shown(shared, "mine")["deployment_id"] == again["deployment_id"]
    shared.delete("/api/v1/deployments/mine")


def test_what_is_not_there(shared):
    """404 with what there is."""
    for method, path in (("GET", "x"), ("DELETE", "x"), ("GET", "x/logs"), ("GET", "dep_01"), ("GET", "%2e%2e")):
        answer = shared.request(method, f"/api/v1/deployments/{path}")
        assert answer.status_code == 404, path
        assert answer.json()["detail"]
    assert shared.delete("/api/v1/deployments/x", params={"force": "perhaps"}).status_code == 422
    assert shared.get("/api/v1/deployments", params={"status": "well"}).status_code == 422


def test_there_are_only_so_many(shared):
    """However often somebody asks: each is a process that holds a model."""
    made = []
    while (answer := shared.post("/api/v1/deployments", json={"model_path": "small", "engine": "vllm"})).is_success:
        made.append(answer.json()["deployment_id"])
        assert len(made) <= 16
    assert answer.status_code == 409
    assert "max_deployments" in answer.text
    for deployment_id in made:
        shared.delete(f"/api/v1/deployments/{deployment_id}", params={"force": True}).raise_for_status()


def test_the_commands(shared, tmp_path):
    """Create, list, show, read the log, delete."""
    cli = Cli(tmp_path, {"TUNESMITH_URL": str(shared.base_url)})
    made = cli("deployments", "create", "small", "--engine", "vllm", "--name", "typed", "--tag", "x", "--json")
    assert made.returncode == 0, made.stderr
    found = once(shared, "typed", "running")
    assert found["deployment_id"] == json.loads(made.stdout)["deployment_id"]
    assert "typed" in cli("deployments", "list", "--status", "running").stdout
    assert found["vllm_cmd"][:20] in cli("deployments", "show", "typed").stdout
    assert f"on {found['port']}" in cli("deployments", "logs", "typed").stdout
    assert "removed" in cli("deployments", "delete", "typed").stdout
    assert cli("deployments", "show", "typed").returncode == 1
    assert "no deployments" in cli("deployments", "list", "--tag", "x").stderr
    assert "--port" in cli("deployments", "create", "small", "--engine", "vllm", "--extra-args", "--port 1").stderr
