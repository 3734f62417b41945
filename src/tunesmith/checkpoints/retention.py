"""Making room: when checkpoints take more than their budget, the oldest that nobody needs go, down to a low-water mark."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import structlog

from tunesmith.checkpoints.book import CheckpointBook, CheckpointSummary
from tunesmith.records import Checkpoint

_log = structlog.get_logger()
_LOW_WATER = 0.8
"""Removing a little more than needed, so that not every new checkpoint has to remove one."""


class Retention:
    """Keeps checkpoints within a budget of bytes; 0 means no budget."""

    def __init__(self, book: CheckpointBook, budget_bytes: int, in_use: Callable[[], Iterable[str]]) -> None:
        self._book = book
        self._budget = budget_bytes
        self._in_use = in_use
        self._lock = asyncio.Lock()

    async def make_room(self) -> list[Checkpoint]:
        """Remove what has to go, oldest first; answers what was removed."""
        async with self._lock:
            return await self._make_room()

    async def _make_room(self) -> list[Checkpoint]:
        total = self._book.bytes_in_use()
        if not self._budget or total <= self._budget:
            return []
        removed = []
        present = self._book.present()
        for checkpoint_id in removable(present, frozenset(self._in_use())):
            if total <= self._budget * _LOW_WATER:
                break
            if await self._book.remove(checkpoint_id, needed=lambda one: one.path in set(self._in_use())):
                total -= present[checkpoint_id].bytes
                removed.append(self._book.get(checkpoint_id))
        if total > self._budget:
            _log.warning("checkpoints_over_budget", bytes=total, budget=self._budget, note="the rest is protected")
        return removed


def removable(present: Mapping[str, CheckpointSummary], in_use: frozenset[str]) -> list[str]:
    """The ids of what nobody needs, oldest first: not marked, not in use, and not its run's newest or best."""
    by_run: defaultdict[str, list[CheckpointSummary]] = defaultdict(list)
    for one in present.values():
        by_run[one.run_id].append(one)
    protected = set(in_use)
    for own in by_run.values():
        protected.add(max(own, key=lambda one: (one.step, one.created_at)).path)
        measured = [(one.metrics.eval_loss, one.path) for one in own if one.metrics.eval_loss is not None]
        if measured:
            protected.add(min(measured, key=lambda one: one[0])[1])
    return [checkpoint_id for checkpoint_id, one in present.items() if not one.marks and one.path not in protected]
