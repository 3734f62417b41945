"""One detector for all tests of this folder: loading its dictionaries takes seconds."""

from __future__ import annotations

import pytest

from tunesmith_workers.deid import Engine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine.load()
