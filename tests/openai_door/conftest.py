"""A real server with tiny models, recipes that need no training, and engines that do as they are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from told_engine import write_engine

from support.server import ServerProcess, write_recipe
from support.tiny_model import save_tiny_model, tiny_tokenizer

MAKES = """
folder="$TUNESMITH_RUN_DIR/checkpoints/checkpoint-3"
mkdir -p "$folder" "$TUNESMITH_OUTPUT_DIR"
cp -r "{model}"/. "$folder"
size=$(stat -c %s "$folder/config.json")
echo '{{"step": 3, "created_at": "2026-01-01T00:00:00Z", "files": [{{"path": "config.json", "bytes": '$size'}}]}}' > "$folder/manifest.json"
echo '{{"tunesmith":"checkpoint","path":"'$folder'","step":3}}'
cp -r "{model}"/. "$TUNESMITH_OUTPUT_DIR"
echo '{{"tunesmith":"result","model":"'$TUNESMITH_OUTPUT_DIR'","metrics":{{}}}}'
"""
WAITS = 'echo ready; while [ ! -e "$TUNESMITH_RUN_DIR/go" ]; do sleep 0.02; done'


def write_recipes(folder: Path, model: Path) -> Path:
    """``makes`` leaves a copy of the model and a checkpoint at step 3; ``waits`` uses data and a model until it may go."""
    config = {"model": {"base": None}, "training": {"max_steps": 1}}
    write_recipe(folder, "makes", MAKES.format(model=model), config)
    with_data = {**config, "data": {"validation_file": None}}
    write_recipe(folder, "waits", WAITS, with_data, data=["messages"], schema={"data.validation_file": {"type": "str"}})
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a state folder in which models were pulled, one of them from a hub."""
    folder = tmp_path_factory.mktemp("openai")
    models = folder / "state" / "models"
    for number, name in enumerate(("small", "Qwen2.5-7B-Instruct", "for-told", "for-mortal")):
        save_tiny_model(models / name, tiny_tokenizer(), seed=number)
    (models / "Qwen2.5-7B-Instruct" / "PULLED_FROM").write_text("Qwen/Qwen2.5-7B-Instruct\n")
    return folder


@pytest.fixture(scope="session")
def recipes(place: Path) -> Path:
    return write_recipes(place / "recipes", place / "state" / "models" / "small")


@pytest.fixture(scope="session")
def server(place: Path, recipes: Path) -> Iterator[ServerProcess]:
    env = {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TUNESMITH_MAX_CPU_RUNS": "8",
        "TUNESMITH_MAX_UPLOAD_BYTES": "3000000",
        "TUNESMITH_VLLM_COMMAND": f"{sys.executable} {write_engine(place)}",
        "TUNESMITH_ALIASES": "team/best=small:gone=nowhere-to-be-found",
    }
    with ServerProcess.start(place / "state", recipes, env) as server:
        yield server
        with server.client() as client:
            for one in client.get("/api/v1/deployments", params={"limit": 1000}).json():
                client.delete(f"/api/v1/deployments/{one['deployment_id']}", params={"force": True})


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
