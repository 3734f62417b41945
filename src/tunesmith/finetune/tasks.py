"""Which request a task is, and one at a time for each task: repeats that come together must not all begin it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from tunesmith.finetune.request import FinetuneRequest


class Turns:
    """Locks by task id, for as long as somebody wants one."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def turn(self, task_id: str) -> AsyncIterator[None]:
        """While this is entered, whoever comes with the same task waits."""
        self._waiting[task_id] = self._waiting.get(task_id, 0) + 1
        try:
            async with self._locks.setdefault(task_id, asyncio.Lock()):
                yield
        finally:
            self._waiting[task_id] -= 1
            if not self._waiting[task_id]:
                del self._waiting[task_id], self._locks[task_id]


def digest_of(request: FinetuneRequest) -> str:
    """The same for every spelling of a request: order of fields, blanks, ``show_frequency``, 1 for 1.0."""
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
