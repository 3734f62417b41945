"""So many requests at once and no more, whoever sends them; those who wait get their turn one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Places that are handed out in turn among owners, however many each of them wants."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By owner; the first one is next."""

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """While this is entered, one place is taken; waits for it."""
        await self._take(owner)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, owner: str) -> None:
        if self._free:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._give_back()  # it was handed over in the same moment
            raise

    def _give_back(self) -> None:
        while self._waiting:
            owner = next(iter(self._waiting))
            queue = self._waiting.pop(owner)
            place = queue.popleft()
            if queue:
                self._waiting[owner] = queue  # behind all the others
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
