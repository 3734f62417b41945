"""Waiting until what a test has opened is closed again. Asserts nothing."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.app import eventually


@asynccontextmanager
async def nothing_left_open() -> AsyncIterator[None]:
    """Leaves the block once no more descriptors are open than before.

    The end of a killed process's output is seen a moment after the process is gone, and later still when it had children.
    An event loop that is closed in that moment leaves the pipe open, and that is a warning in whatever test comes next.
    """
    before = _descriptors()
    yield
    await eventually(lambda: _descriptors() <= before)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # counted a hundred times a second
