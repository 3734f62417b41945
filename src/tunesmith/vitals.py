"""Whether everything that has to run in the background does: what ends although it should not is noted, and told.

One run, delivery or upload that goes wrong is dealt with where it is worked on. This is for what nobody thought of.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.abc
import structlog

from tunesmith.errors import Unavailable

_log = structlog.get_logger()


class BackgroundTask(Protocol):
    """Runs until it is cancelled."""

    async def __call__(self, *, task_status: anyio.abc.TaskStatus[None]) -> None: ...


class Vitals:
    """Watches background tasks."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        """Tasks that have ended although they should not, and why."""
        self._listeners: list[Callable[[], None]] = []

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call it when a task has ended."""
        self._listeners.append(listener)

    def failure(self) -> Unavailable:
        """What is wrong."""
        told = "; ".join(f"{name} ended: {reason}" for name, reason in self.ended.items())
        return Unavailable(
            f"a background task of the service is gone: {told}",
            where=", ".join(self.ended),
            mend="the process exits for a new one to take over, and runs go on; its log has the traceback, please report it",
        )

    async def start(self, tasks: anyio.abc.TaskGroup, name: str, task: BackgroundTask) -> None:
        """Start it in the group, where its end ends no other. Raises what it raises before it has started."""
        await tasks.start(self._watch, name, task)

    async def _watch(self, name: str, task: BackgroundTask, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        status = _Noted(task_status)
        try:
            await task(task_status=status)
            reason = "it came to its end"
        except Exception as error:
            if not status.started_already:
                raise
            _log.exception("background_task_failed", task=name)
            reason = repr(error)
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                raise
            # It awaited something that somebody cancelled. Let out, it would cancel the whole group without a word.
            if not status.started_already:
                raise RuntimeError(f"{name} was cancelled before it had started") from error
            _log.exception("background_task_failed", task=name)
            reason = repr(error)
        self.ended[name] = reason
        _log.error("background_task_ended", task=name, reason=reason)
        for listener in self._listeners:
            listener()


def _is_being_cancelled() -> bool:
    """Whether whoever runs this task wants it to end: a scope around it is cancelled, or the task itself."""
    task = asyncio.current_task()
    return anyio.current_effective_deadline() == -math.inf or (task is not None and task.cancelling() > 0)


class _Noted(anyio.abc.TaskStatus[None]):
    """Passes it on that the task has started, and remembers it."""

    def __init__(self, status: anyio.abc.TaskStatus[None]) -> None:
        self._status = status
        self.started_already = False

    def started(self, value: None = None) -> None:
        self.started_already = True
        self._status.started(value)
