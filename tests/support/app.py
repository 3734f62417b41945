"""Small steps with an open application inside this process: create a run, wait for what is to come. Asserts nothing."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from tunesmith.app import App
from tunesmith.records import Run
from tunesmith.runner import Gpu
from tunesmith.runs import RunRequest

_SECONDS = 60
"""Only so that nothing waits for ever: all of this takes milliseconds."""


def gpu(name: str) -> Gpu:
    return Gpu(id=f"GPU-{name}", name=name, memory_bytes=1 << 30)


async def new_run(app: App, recipe: str = "plain", **request) -> str:
    run = await app.services.runs.creator.create(RunRequest(recipe=recipe, **request))
    return run.id


async def reached(app: App, run_id: str, *states: str) -> Run:
    """The run once it is in one of these states (by default: over)."""
    with anyio.fail_after(_SECONDS):
        return await app.services.runs.book.wait(run_id, lambda run: run.state in states if states else run.state.final)


async def eventually(look: Callable[[], object]) -> None:
    """Return once ``look`` is true."""
    with anyio.fail_after(_SECONDS):
        while not look():  # noqa: ASYNC110  # what is looked at sends no event
            await anyio.sleep(0.002)
