"""A real server, a tiny model that is really trained, and requests as OpenAI's SDKs send them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.deployed import remove_all
from support.server import ServerProcess
from support.tiny_model import save_tiny_model, tiny_tokenizer

RECIPES = Path(__file__).parents[2] / "recipes"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TUNESMITH_ALIASES": "gpt-4o-mini-2024-07-18=tiny",
}


@pytest.fixture(scope="session")
def jobs_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a state folder in which a model was pulled."""
    folder = tmp_path_factory.mktemp("fine_tuning")
    save_tiny_model(folder / "state" / "models" / "tiny", tiny_tokenizer())
    return folder


@pytest.fixture(scope="session")
def jobs_server(jobs_place: Path) -> Iterator[ServerProcess]:
    with ServerProcess.start(jobs_place / "state", RECIPES, ENVIRONMENT) as server:
        yield server
        with server.client() as client:
            remove_all(client)


@pytest.fixture
def client(jobs_server: ServerProcess) -> Iterator[httpx.Client]:
    with jobs_server.client() as client:
        yield client
