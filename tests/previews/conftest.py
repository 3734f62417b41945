"""One real server with the shipped recipes and a model that has no weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from preview_parts import ROOT, write_model

from support.server import ServerProcess, write_recipe


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``state``, ``recipes`` and ``model``; it is an allowed root."""
    place = tmp_path_factory.mktemp("previews")
    for name in ("sft", "lora", "evaluate"):
        shutil.copytree(ROOT / "recipes" / name, place / "recipes" / name)
    write_recipe(place / "recipes", "nothing", "true")
    own = {"model": {"base": None}, "data": {"train_file": None}}
    write_recipe(place / "recipes", "foreign", "true", own, data=["messages"])
    write_model(place / "model")
    write_model(place / "mute", template=None)
    return place


@pytest.fixture(scope="session")
def server(place: Path) -> Iterator[ServerProcess]:
    with ServerProcess.start(place / "state", place / "recipes") as server:
        yield server


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
        yield client


@pytest.fixture
def preview(client: httpx.Client, place: Path) -> Callable[..., httpx.Response]:
    """Asks for a preview with the model and recipe ``lora`` where nothing else is said."""

    def ask(dataset: str, base: str = "/api/v1/datasets", **body: Any) -> httpx.Response:
        return client.post(f"{base}/{dataset}/preview", json={"model": str(place / "model"), "recipe": "lora", **body})

    return ask
