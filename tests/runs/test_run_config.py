"""What a run started with and where each value came from; resuming shows and keeps all of it. Over HTTP, real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.server import ServerProcess, wait_for_run, write_recipe

# One checkpoint at its last step, which it tells.
SAVES = """
steps=$(sed -n 's/.*max_steps: //p' "$1")
folder="$TUNESMITH_RUN_DIR/checkpoints/checkpoint-$steps"
mkdir -p "$folder"
echo "{\\"tunesmith\\":\\"metrics\\",\\"step\\":$steps,\\"total_steps\\":$steps,\\"loss\\":1}"
echo "{\\"step\\": $steps, \\"created_at\\": \\"2026-01-01T00:00:00Z\\"}" >"$folder/manifest.json"
echo "{\\"tunesmith\\":\\"checkpoint\\",\\"path\\":\\"$folder\\",\\"step\\":$steps}"
"""
CONFIG = {
    "model": {"base": None},
    "data": {"train_file": None, "validation_file": None},
    "training": {"max_steps": 4, "learning_rate": 0.1, "batch_size": 8, "seed": 1},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("config")
    write_recipe(
        home / "recipes",
        "saves",
        SAVES,
        CONFIG,
        data=["messages"],
        aliases={"lr": "training.learning_rate"},
        schema={
            "model.base": {"type": "str", "optional": True},
            "data.train_file": {"type": "str", "optional": True},
            "data.validation_file": {"type": "str", "optional": True},
        },
    )
    (home / "rows.jsonl").write_text('{"messages": []}\n')
    (home / "train.yaml").write_text("training: {batch_size: 2, learning_rate: 0.5}\n")
    with ServerProcess.start(home / "state", home / "recipes", {"TUNESMITH_MAX_CPU_RUNS": "2"}) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def start(client: httpx.Client, home: Path, **more: object) -> dict:
    experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()["id"]
    body = {"recipe": "saves", "model": "org/base", "dataset": {"name": str(home / "rows.jsonl")}, **more}
    answer = client.post(f"/v1/experiments/{experiment}/runs", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def config_of(client: httpx.Client, run_id: str) -> dict:
    return client.get(f"/v1/runs/{run_id}/config").raise_for_status().json()


def resume(client: httpx.Client, run: dict, **overrides: object) -> httpx.Response:
    path = f"/v1/experiments/{run['experiment_id']}/runs/{run['run_id']}/resume"
    return client.post(path, json={"override_hyperparams": overrides})


@pytest.fixture
def done(client: httpx.Client, server: ServerProcess) -> dict:
    home = server.state_dir.parent
    run = start(client, home, train_config=str(home / "train.yaml"), hyperparams={"lr": 0.25}, seed=7)
    return wait_for_run(client, run["run_id"])


def test_every_value_says_where_it_came_from(client, server, done):
    """Recipe, train config, the request's overrides, and its other fields; a value that two give is the later one's."""
    shown = config_of(client, done["run_id"])
    assert shown["config"]["training"] == {"max_steps": 4, "learning_rate": 0.25, "batch_size": 2, "seed": 7}
    origins = shown["origins"]
    assert {origins.pop(f"job.{name}") for name in ("type", "method", "project")} == {"recipe"}
    assert origins == {
        "model.base": "request",
        "data.train_file": "request",
        "data.validation_file": "recipe",
        "training.max_steps": "recipe",
        "training.learning_rate": "hyperparams",
        "training.batch_size": "train_config",
        "training.seed": "request",
    }
    assert shown["train_config"] == str(server.state_dir.parent / "train.yaml")
    assert client.get("/v1/runs/run_nobody/config").status_code == 404


def test_a_run_of_before_answers_what_can_be_known(client, server, done):
    """Without the note: what the record and the recipe explain is explained, and the rest says that it is unknown."""
    (server.state_dir / "runs" / done["run_id"] / "origins.json").unlink()
    origins = config_of(client, done["run_id"])["origins"]
    assert origins["training.learning_rate"] == "hyperparams"
    assert origins["training.max_steps"] == "recipe"
    assert origins["training.batch_size"] == "unknown"
    assert {origins[path] for path in ("model.base", "data.train_file", "training.seed")} == {"request"}


def test_a_config_that_is_gone_is_not_found(client, server, done):
    """A run may have deleted it, or put something else there: an answer at once, with what to do."""
    path = server.state_dir / "runs" / done["run_id"] / "config.yaml"
    path.unlink()
    path.symlink_to("/dev/zero")
    answer = client.get(f"/v1/runs/{done['run_id']}/config")
    assert answer.status_code == 404
    assert "cannot be read any more" in answer.json()["detail"]
    assert resume(client, done, max_steps=9).status_code == 404


def test_a_resumed_run_shows_all_that_was_asked_for(client, done):
    """The overrides of both, also where they go by different names, and each value's origin in the first of them."""
    child = resume(client, done, max_steps=6, batch_size=4)
    assert child.status_code == 201, child.text
    assert child.json()["hyperparams"] == {"lr": 0.25, "max_steps": 6, "batch_size": 4}
    assert child.json()["train_config"] == done["train_config"]
    shown = config_of(client, child.json()["run_id"])
    origins = shown["origins"]
    assert origins["training.batch_size"] == origins["training.max_steps"] == "hyperparams"
    assert (origins["training.learning_rate"], shown["parent_run_id"]) == ("hyperparams", done["run_id"])
    grandchild = resume(client, wait_for_run(client, child.json()["run_id"]), learning_rate=0.3, max_steps=8)
    assert grandchild.json()["hyperparams"] == {"learning_rate": 0.3, "max_steps": 8, "batch_size": 4}
    assert config_of(client, grandchild.json()["run_id"])["origins"]["job.type"] == "recipe"


@pytest.mark.parametrize("overrides", [{}, {"learning_rate": 0.3}, {"max_steps": 4}, {"max_steps": 2}])
def test_a_run_with_nothing_left_to_do_is_not_resumed(client, done, overrides):
    """It has come to its end, or the new end lies before the checkpoint: refused, with what to change."""
    refused = resume(client, done, **overrides)
    assert refused.status_code == 409
    assert "nothing is left to do: the checkpoint is at step 4" in refused.json()["detail"]
    assert "raise max_steps" in json.dumps(refused.json())


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}])
@pytest.mark.parametrize("body", [b"", b"{}"])
def test_no_body_is_a_body(client, done, body, headers):
    """Whoever has nothing to say sends nothing, or an empty mapping, with or without a content type."""
    run = f"/v1/runs/{done['run_id']}"
    answers = [
        client.post(f"/v1/experiments/{done['experiment_id']}{run[3:]}/resume", content=body, headers=headers),
        client.post(f"/v1/experiments/{done['experiment_id']}{run[3:]}/cancel", content=body, headers=headers),
        *(client.post(f"{run}/{what}", content=body, headers=headers) for what in ("resume", "pause", "cancel")),
    ]
    # Understood, all of them; but this run has come to its end.
    assert [answer.status_code for answer in answers] == [409] * 5
    assert "nothing is left to do" in answers[0].json()["detail"]
