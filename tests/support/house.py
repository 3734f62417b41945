"""Small steps with an open house inside this process: create a run, wait for what is to come. Asserts nothing."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from tunesmith.app import House
from tunesmith.records import Run
from tunesmith.runner import Gpu
from tunesmith.runs import RunRequest

_SECONDS = 60
"""Only so that nothing waits for ever: all of this takes milliseconds."""


def gpu(name: str) -> Gpu:
    return Gpu(id=f"GPU-{name}", name=name, memory_bytes=1 << 30)


async def new_run(house: House, recipe: str = "plain", **request) -> str:
    run = await house.rooms.runs.create(RunRequest(recipe=recipe, **request))
    return run.id


async def reached(house: House, run_id: str, *states: str) -> Run:
    """The run once it is in one of these states (by default: over)."""
    with anyio.fail_after(_SECONDS):
        return await house.rooms.runs.book.wait(run_id, lambda run: run.state in states if states else run.state.final)


async def eventually(look: Callable[[], object]) -> None:
    """Return once ``look`` is true."""
    with anyio.fail_after(_SECONDS):
        while not look():  # noqa: ASYNC110  # what is looked at sends no event
            await anyio.sleep(0.002)
