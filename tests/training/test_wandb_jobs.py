"""A job's integration with Weights & Biases, over real HTTP: what it becomes in the run, what is refused, and what is told."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from training_parts import COLOURS, RECIPES

from support.server import ServerProcess, wait_for_run, write_recipe

pytestmark = pytest.mark.training
WANDB = {"type": "wandb", "wandb": {"project": "colours", "tags": ["mine"]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_model) -> Iterator[ServerProcess]:
    """With the shipped recipes, and one that knows nothing of reporting."""
    home = tmp_path_factory.mktemp("wandb")
    shutil.copytree(RECIPES, home / "recipes")
    shutil.copytree(tiny_model, home / "tiny")
    config = {"model": {"base": "model"}, "data": {"train_file": None}}
    write_recipe(home / "recipes", "plain", "true", config, data=["messages"])
    # Nowhere to send it, so whether the package is there or not, nothing leaves this machine.
    env = {"TUNESMITH_RUN_ENVIRONMENT": "WANDB_*", "WANDB_MODE": "online", "WANDB_API_KEY": "", "HOME": str(home)}
    with ServerProcess.start(home / "state", home / "recipes", {**env, "OMP_NUM_THREADS": "1"}) as server:
        yield server


@pytest.fixture
def client(server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def create(client: httpx.Client, server: ServerProcess, **fields: Any) -> httpx.Response:
    rows = "".join(json.dumps(row) + "\n" for row in COLOURS).encode()
    sent = client.post("/v1/files", files={"file": ("rows.jsonl", rows)}, data={"purpose": "fine-tune"})
    usual = {"model": str(server.state_dir.parent / "tiny"), "training_file": sent.raise_for_status().json()["id"]}
    return client.post("/v1/fine_tuning/jobs", json={**usual, **fields})


def run_of(job: dict[str, Any]) -> str:
    return f"run_{job['id'].removeprefix('ftjob-')}"


def events(client: httpx.Client, job: dict[str, Any], **page: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/fine_tuning/jobs/{job['id']}/events", params={"limit": 1000, **page})
    return answer.raise_for_status().json()["data"]


def reporting(server: ServerProcess, job: dict[str, Any]) -> Any:
    config: Path = server.state_dir / "runs" / run_of(job) / "config.yaml"
    return yaml.safe_load(config.read_text()).get("reporting")


def test_an_integration_is_honoured_and_its_trouble_is_an_event(client, server):
    """Its values are in the run's config; a warning of the process is an event with an id that stays, at which a page may end."""
    job = create(client, server, integrations=[WANDB], hyperparams={"max_steps": 3}).raise_for_status().json()
    assert job["integrations"] == [{"type": "wandb", "wandb": {**WANDB["wandb"], "name": None, "entity": None}}]
    run = wait_for_run(client, run_of(job))
    assert run["status"] == "succeeded", run
    tags = ["mine", "tunesmith/finetune", "tunesmith/tiny", f"tunesmith/{job['id']}"]
    assert reporting(server, job) == {
        "wandb": {"project": "colours", "name": job["id"], "entity": None, "tags": [tag[:64] for tag in tags]}
    }
    told = events(client, job)
    (warning,) = [event for event in told if "wandb" in event["message"]]
    assert (warning["level"], warning["type"]) == ("warn", "message")
    missing = importlib.util.find_spec("wandb") is None
    assert ("package cannot be imported" if missing else "No API key configured") in warning["message"]
    assert any("wandb" in text for text in run["warnings"])
    assert warning == next(event for event in events(client, job) if event["id"] == warning["id"])
    place = told.index(warning)
    assert events(client, job, after=warning["id"]) == told[place + 1 :]
    assert events(client, job, after=told[place - 1]["id"]) == told[place:]


def test_what_hyperparams_say_comes_first(client, server):
    """A key of this service is more exact than one that stands for it."""
    named = {"reporting.wandb.name": "by hand", "max_steps": 1}
    job = create(client, server, integrations=[WANDB], hyperparams=named).raise_for_status().json()
    wait_for_run(client, run_of(job))
    assert reporting(server, job)["wandb"]["name"] == "by hand"
    assert reporting(server, job)["wandb"]["project"] == "colours"


def test_a_recipe_that_does_not_report_says_so(client, server):
    """The job goes on, and an event of level warn says that the integration has no effect."""
    job = create(client, server, integrations=[WANDB], recipe="plain").raise_for_status().json()
    run = wait_for_run(client, run_of(job))
    assert run["status"] == "succeeded"
    assert reporting(server, job) is None
    (warning,) = [event for event in events(client, job) if event["level"] == "warn"]
    assert "recipe plain does not report to wandb" in warning["message"]
    told = events(client, job)
    assert events(client, job, after=warning["id"]) == told[told.index(warning) + 1 :]


@pytest.mark.parametrize(
    ("integrations", "words"),
    [
        ([{"type": "mlflow", "mlflow": {}}], ("mlflow", "integrations[0].type")),
        ([{"type": "wandb"}], ("wandb", "integrations[0]")),
        ([{"type": "wandb", "wandb": {}}], ("project", "integrations[0].wandb")),
        ([{"type": "wandb", "wandb": {"project": "a/b"}}], ("integrations[0].wandb.project",)),
        ([{"type": "wandb", "wandb": {"project": 3}}], ("integrations[0].wandb.project",)),
        ([{"type": "wandb", "wandb": {"project": "a", "tags": ["t" * 65]}}], ("integrations[0].wandb.tags[0]",)),
        ([WANDB, WANDB], ("integrations",)),
        ("wandb", ("integrations",)),
    ],
)
def test_an_integration_that_makes_no_sense_is_refused(client, server, integrations, words):
    """With 400, which no SDK retries, and the place of what is wrong."""
    answer = create(client, server, integrations=integrations)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert all(word in f"{error['param']} {error['message']}" for word in words), error


def test_the_warnings_of_a_process_are_bounded(client, server):
    """The first ten different ones are events, each once."""
    lines = [
        json.dumps({"tunesmith": "message", "level": "warning", "text": f"number {number}"}) for number in range(30)
    ]
    script = "\n".join(f"echo '{line}'" for line in lines * 2)
    write_recipe(server.recipes_dir, "chatty", script, {"data": {"train_file": None}}, data=["messages"])
    job = create(client, server, recipe="chatty").raise_for_status().json()
    run = wait_for_run(client, run_of(job))
    warned = [event["message"] for event in events(client, job) if event["level"] == "warn"]
    assert warned[::-1] == [f"number {number}" for number in range(10)]
    assert [text for text in run["warnings"] if text.startswith("number")] == warned[::-1]
