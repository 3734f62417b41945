"""A real server, and a tiny model that the built-in engine really serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.server import ServerProcess
from support.tiny_model import save_tiny_model, tiny_tokenizer

RECIPES = Path(__file__).parents[2] / "recipes"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TUNESMITH_WARM_MODELS": "2"}


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a state folder in which two models were pulled."""
    folder = tmp_path_factory.mktemp("inference")
    for number, name in enumerate(("small", "other")):
        save_tiny_model(folder / "state" / "models" / name, tiny_tokenizer(), seed=number)
    return folder


@pytest.fixture(scope="session")
def server(place: Path) -> Iterator[ServerProcess]:
    env = {**ENVIRONMENT, "TUNESMITH_DEFAULT_MODEL": "small", "TUNESMITH_ALIASES": "gpt-tiny=small"}
    with ServerProcess.start(place / "state", RECIPES, env) as server:
        yield server
        remove_all(server)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def remove_all(server: ServerProcess) -> None:
    with server.client() as client:
        for one in client.get("/api/v1/deployments", params={"limit": 1000}).json():
            client.delete(f"/api/v1/deployments/{one['deployment_id']}", params={"force": True})
