"""Schemathesis tries the whole OpenAPI document: what is answered is documented, and what is documented is answered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.server import ServerProcess, start_run, wait_for_run, write_recipe

_LONGEST_LINE = 600
_CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
def server(tmp_path):
    for name in ("sft", "lora", "evaluate"):
        write_recipe(tmp_path / "recipes", name, "echo ready; true")
    write_recipe(tmp_path / "recipes", "broken", "true", kind="no-such-kind")
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes", {"TUNESMITH_MAX_CPU_RUNS": "8"}) as server:
        yield server


@pytest.mark.schema
@pytest.mark.timeout(3600)  # a minute or two of work; how long that takes depends on the machine
def test_answers_are_as_documented(server, tmp_path):
    """Some 2,000 calls: by example, at every bound, of wrong types and methods, and at random."""
    tried(server, tmp_path, "--phases", "examples,coverage,fuzzing", "--max-examples", "2", "--seed", "1")


@pytest.mark.schema_long
@pytest.mark.timeout(6 * 3600)
def test_ten_thousand_answers_are_as_documented(server, tmp_path):
    """The same with a hundred random calls each, other ones every time, and with calls that follow from each other."""
    tried(server, tmp_path, "--max-examples", "130")


def tried(server: ServerProcess, place: Path, *options: str) -> None:
    with server.client() as client:
        there = records(client)
        token = client.post("/v1/keys", json={"name": "schema", "scope": "admin"}).raise_for_status().json()["token"]
    config = place / "schemathesis.toml"
    values = "\n".join(f'"path.{name}" = "{value}"' for name, value in there.items())
    config.write_text(f"{_CONFIG.read_text()}\n[parameters]\n{values}\n")
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(config), "--no-color", "run"]
    command += [f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {token}", "--request-timeout", "100"]
    # How much Hypothesis throws away while it looks for cases says nothing about the API.
    command += ["--suppress-health-check", "all", "--warnings", "off", *options]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    said = "\n".join(line[:_LONGEST_LINE] for line in done.stdout.splitlines())  # bodies may be very long
    assert done.returncode == 0, said[-20_000:] + done.stderr[-2_000:]
    assert "Traceback" not in server.output


def records(client: httpx.Client) -> dict[str, str]:
    """Something to ask for, so that answers are more than 404."""
    run_id = start_run(client, "sft")
    run = wait_for_run(client, run_id)
    project = {"name": "a project", "dataset_name": "d.jsonl", "training_yaml_name": "t.yaml"}
    dataset = client.post("/api/v1/datasets", json={"name": "data"}).raise_for_status().json()["id"]
    row = b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n'
    upload = client.put(f"/api/v1/datasets/{dataset}/files", files={"file": ("train.jsonl", row)})
    upload_id = upload.raise_for_status().json()["upload_id"]
    key = client.post("/v1/keys", json={"name": "to revoke", "scope": "admin"}).raise_for_status().json()
    client.headers["Authorization"] = f"Bearer {key['token']}"
    return {
        "run_id": run_id,
        "task_id": run_id,
        "experiment_id": run["experiment_id"],
        "ref": client.post("/api/projects", json=project).raise_for_status().json()["id"],
        "dataset_id": dataset,
        "upload_id": upload_id,
        "file_id": upload_id.replace("upl_", "file-"),
        "key_id": key["id"],
        "name": "sft",
    }
