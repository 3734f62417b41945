"""A real server whose engines are real: the built-in one, and vLLM where there is an interpreter that has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from real_parts import deployed, trained_adapter, vllm_python

from support.deployed import remove_all
from support.real_model import pulled_model
from support.server import ServerProcess

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def real_model(home: Path) -> Path:
    return pulled_model(home)


@pytest.fixture(scope="session")
def server(home: Path, real_model: Path) -> Iterator[ServerProcess]:
    env = {
        "TUNESMITH_ALLOWED_ROOTS": os.pathsep.join(map(str, (home, real_model.parent))),
        "TUNESMITH_ALLOW_PRIVATE_URLS": "true",  # evalscope asks a deployment on its port
        "TUNESMITH_RUN_ENVIRONMENT": "EVALSCOPE_PYTHON",
        "TUNESMITH_STOP_GRACE_SECONDS": "20",
        "TUNESMITH_VLLM_COMMAND": f"{vllm_python()} -m vllm.entrypoints.openai.api_server",
    }
    with ServerProcess.start(home / "state", ROOT / "recipes", env) as server:
        yield server
        with server.client() as client:
            remove_all(client)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def engine(request) -> str:
    """The engine that a deployment asks for."""
    if request.param == "vllm" and vllm_python() is None:
        pytest.skip("no vLLM: `nox -s vllm_venv` installs one, or TUNESMITH_TEST_VLLM_PYTHON names an interpreter")
    name: str = request.param
    return name


@pytest.fixture
def running(client: httpx.Client, engine: str, real_model: Path) -> dict:
    """A deployment of the real model that answers; the only one there is."""
    return deployed(client, engine, str(real_model), name=f"base-{engine}")


@pytest.fixture(scope="session")
def adapter(home: Path, server: ServerProcess, real_model: Path) -> str:
    """The id of a run that trained an adapter of the real model, of a rank that vLLM refuses by default."""
    with server.client() as client:
        return trained_adapter(client, home, real_model)
