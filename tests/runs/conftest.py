"""An open application on a temporary folder: real journals and services, a scripted executor, made-up GPUs, no processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from support.app import gpu
from support.server import write_recipe
from tunesmith.app import App, open_services
from tunesmith.settings import Settings
from tunesmith.testing import ScriptedExecutor

OpenApp = Callable[..., AbstractAsyncContextManager[App]]


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
def open_app(tmp_path: Path, recipes: Path, executor: ScriptedExecutor) -> OpenApp:
    """What opens the application, with made-up GPUs and with settings; its scheduler runs as long as it is open."""

    @asynccontextmanager
    async def opened(gpus=(), **settings):
        settings.setdefault("state_dir", tmp_path / "state")
        settings.setdefault("allowed_roots", (tmp_path,))
        made = open_services(
            Settings(recipes_dir=recipes, **settings), executor=executor, gpu_probe=lambda: tuple(map(gpu, gpus))
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(made.services.scheduler.run)
            yield made
            tasks.cancel_scope.cancel()
        for journal in made.journals:
            await journal.close()

    return opened
