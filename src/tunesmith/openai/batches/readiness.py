"""Whether a model can be asked at all: waited for outside of any turn, so that a model that loads keeps nobody else waiting.

One asks for all who wait, with growing pauses; it goes on until it can be asked or nobody waits any more.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

import anyio
import structlog

from tunesmith.errors import Busy, TunesmithError, Unavailable

_log = structlog.get_logger()
FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_READY_SECONDS = 5.0
"""For so long it is taken for granted that what was served is served."""


class Readiness:
    """Which models can be asked."""

    def __init__(self, prepare: Callable[[str], Awaitable[object]], *, first_pause: float = FIRST_PAUSE) -> None:
        """``prepare`` returns once a model is served, and raises as asking it does; ``first_pause`` is in seconds."""
        self._prepare = prepare
        self._first_pause = first_pause
        self._ready_until: dict[str, float] = {}
        """In seconds of a clock that only runs on: an engine may be let go of for another model."""
        self._pauses: dict[str, float] = {}
        """How long to wait before it is tried again."""
        self._trying: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def wait(self, model: str) -> None:
        """Return once it can be asked, or is known to be beyond that: whoever asks is told why."""
        if self._is_ready(model):
            return
        async with self._trying[model]:
            while not self._is_ready(model):
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
        self._ready_until[model] = time.monotonic() + _READY_SECONDS

    def _is_ready(self, model: str) -> bool:
        return time.monotonic() < self._ready_until.get(model, 0.0)

    def confirm(self, model: str) -> None:
        """It has answered."""
        self._pauses.pop(model, None)
        self._ready_until[model] = time.monotonic() + _READY_SECONDS

    def doubt(self, model: str, reason: TunesmithError) -> None:
        """It could not be asked, or broke off; nothing is asked of it before it was looked at again."""
        if self._ready_until.pop(model, None) is not None:  # else somebody has said so already
            self._later(model, reason)

    def _later(self, model: str, reason: TunesmithError) -> None:
        pause = min(2 * self._pauses.get(model, self._first_pause / 2), _LONGEST_PAUSE)
        self._pauses[model] = pause
        _log.warning("batch_model_unavailable", model=model, reason=str(reason), again_in_seconds=pause)
