"""Whether a model can be asked at all: waited for outside of any turn, so that a model that loads keeps nobody else waiting.

One asks for all who wait, with growing pauses; it goes on until it can be asked or nobody waits any more.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

import anyio
import structlog

from tunesmith.errors import Busy, TunesmithError, Unavailable

_log = structlog.get_logger()
FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


class Readiness:
    """Which models can be asked."""

    def __init__(self, prepare: Callable[[str], Awaitable[object]], *, first_pause: float = FIRST_PAUSE) -> None:
        """``prepare`` returns once a model is served, and raises as asking it does; ``first_pause`` is in seconds."""
        self._prepare = prepare
        self._first_pause = first_pause
        self._ready: set[str] = set()
        self._pauses: dict[str, float] = {}
        """How long to wait before it is tried again."""
        self._trying: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def wait(self, model: str) -> None:
        """Return once it can be asked, or is known to be beyond that: whoever asks is told why."""
        if model in self._ready:
            return
        async with self._trying[model]:
            while model not in self._ready:
                await anyio.sleep(self._pauses.get(model, 0.0))
                await self._try(model)

    async def _try(self, model: str) -> None:
        try:
            await self._prepare(model)
        except (Busy, Unavailable) as error:
            self._later(model, error)
            return
        except TunesmithError:
            pass
        self._ready.add(model)

    def confirm(self, model: str) -> None:
        """It has answered."""
        self._pauses.pop(model, None)

    def doubt(self, model: str, reason: TunesmithError) -> None:
        """It could not be asked, or broke off; nothing is asked of it before it was looked at again."""
        if model in self._ready:  # else somebody has said so already
            self._ready.discard(model)
            self._later(model, reason)

    def _later(self, model: str, reason: TunesmithError) -> None:
        pause = min(2 * self._pauses.get(model, self._first_pause / 2), _LONGEST_PAUSE)
        self._pauses[model] = pause
        _log.warning("batch_model_unavailable", model=model, reason=str(reason), again_in_seconds=pause)
