"""One real server with a training folder, and a run of a project on it that has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from project_parts import make, wait, write_recipes, write_training_folder

from support.server import ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("projects")
    write_training_folder(home)
    recipes = write_recipes(home / "recipes")
    with ServerProcess.start(home / "state", recipes, {"TUNESMITH_MAX_CPU_RUNS": "4"}) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def training(server: ServerProcess) -> Path:
    return server.state_dir.parent / "training"


@pytest.fixture(scope="session")
def done(server: ServerProcess) -> dict[str, Any]:
    """A run of the project `orders` that has ended."""
    with server.client() as client:
        make(client, "orders")
        run = client.post("/api/projects/orders/runs").raise_for_status().json()
        return wait(client, "orders", run["id"])
