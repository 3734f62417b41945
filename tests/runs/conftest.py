"""An open house on a temporary folder: real journals and rooms, a scripted executor, made-up GPUs, no processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from support.house import gpu
from support.server import write_recipe
from tunesmith.app import House, open_house
from tunesmith.settings import Settings
from tunesmith.testing import ScriptedExecutor

OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def executor() -> ScriptedExecutor:
    return ScriptedExecutor()


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    write_recipe(folder, "plain", "true")
    write_recipe(folder, "wants-gpus", "true", resources={"gpus": 1, "cpu": True})
    write_recipe(folder, "gpu-only", "true", resources={"gpus": 1, "cpu": False})
    return folder


@pytest.fixture
def house(tmp_path: Path, recipes: Path, executor: ScriptedExecutor) -> OpenHouse:
    """What opens a house, with made-up GPUs and with settings; its scheduler runs as long as it is open."""

    @asynccontextmanager
    async def opened(gpus=(), **settings):
        settings.setdefault("state_dir", tmp_path / "state")
        settings.setdefault("allowed_roots", (tmp_path,))
        made = open_house(
            Settings(recipes_dir=recipes, **settings), executor=executor, gpu_probe=lambda: tuple(map(gpu, gpus))
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(made.rooms.scheduler.run)
            yield made
            tasks.cancel_scope.cancel()
        for journal in made.journals:
            await journal.close()

    return opened
