"""A real server with an engine that answers as the test wants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from batch_parts import Engine, start_server

from support.deployed import remove_all
from support.server import ServerProcess


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server that nobody harms."""
    place = tmp_path_factory.mktemp("batches")
    with start_server(place, Engine(place / "engines")) as server, server.client() as client:
        yield client
        remove_all(client)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "engines")


@pytest.fixture
def server(tmp_path: Path, engine: Engine) -> Iterator[ServerProcess]:
    """A server of one's own, that may be killed."""
    with start_server(tmp_path, engine) as server:
        yield server
        with server.client() as client:
            remove_all(client)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
