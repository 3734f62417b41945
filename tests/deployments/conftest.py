"""A real server with a model to name, and an engine that behaves as the test wants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from engine_parts import Engines, prepared, started

from support.deployed import remove_all
from support.server import ServerProcess


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return prepared(tmp_path)


@pytest.fixture
def server(tmp_path: Path, engines: Engines) -> Iterator[ServerProcess]:
    """A server of one's own, that may be killed."""
    with started(tmp_path, engines, TUNESMITH_MAX_ENGINE_RESTARTS="2") as server:
        yield server
        with server.client() as client:
            remove_all(client)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def shared_engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return prepared(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def shared(shared_engines: Engines) -> Iterator[httpx.Client]:
    """A client of a server that nobody harms; what it had deployed is removed at the end."""
    with started(shared_engines.place.parent, shared_engines) as server, server.client() as client:
        yield client
        remove_all(client)
