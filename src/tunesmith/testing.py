"""Shipped fakes, for tests of this service and of what is built on it: real behaviour, no processes.

``ScriptedExecutor`` goes into ``app.open_services(executor=...)``. Journals need no fake: a real one on a temporary folder
takes microseconds.
"""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from datetime import UTC, datetime

from tunesmith.paths import AttemptPaths
from tunesmith.records import Exit, ProcessIdentity
from tunesmith.runner import Launch, Started


class ScriptedExecutor:
    """An executor whose attempts begin at once and end when the test says so.

    Runs are named by their ids. Which attempts have begun is remembered here, so the same executor given to a second
    server plays the processes that outlived the first.
    """

    def __init__(self) -> None:
        self.launched: list[tuple[str, Launch]] = []
        """What was started, in order."""
        self.refusal: OSError | None = None
        """Raised by the next starts instead of starting anything, until it is None again."""
        self.refused = 0
        """How many starts were refused."""
        self.stumbles: dict[str, Exception] = {}
        """By the name of a method: raised by it once, for whichever run comes next."""
        self.stopped: list[str] = []
        """Runs that were asked to stop, in order."""
        self._begun: set[AttemptPaths] = set()
        self._exits: defaultdict[str, asyncio.Future[Exit | None]] = defaultdict(_future)

    @property
    def order(self) -> list[str]:
        """The ids of the runs that were started, in order."""
        return [run_id for run_id, _ in self.launched]

    def end(self, run_id: str, exit_: Exit | None = Exit(code=0)) -> None:  # noqa: B008  # frozen: sharing it is safe
        """Let the run's process end like this; None: nobody knows how."""
        future = self._exits[run_id]
        if not future.done():
            future.set_result(exit_)

    def _stumble(self, method: str) -> None:
        if method in self.stumbles:
            raise self.stumbles.pop(method)

    async def start(self, attempt: AttemptPaths, launch: Launch) -> None:
        self._stumble("start")
        if self.refusal is not None:
            self.refused += 1
            raise self.refusal
        self.launched.append((_run_id(attempt), launch))
        self._begun.add(attempt)

    async def started(self, attempt: AttemptPaths, run_id: str) -> Started | None:
        del run_id
        self._stumble("started")
        if attempt not in self._begun:
            return None
        return Started(program=ProcessIdentity(pid=0, start_ticks=0, boot_id="scripted"))

    async def abandon(self, attempt: AttemptPaths, run_id: str) -> bool:
        del run_id
        return attempt not in self._begun

    async def wait(self, attempt: AttemptPaths, run_id: str) -> Exit | None:
        del attempt
        self._stumble("wait")
        return await asyncio.shield(self._exits[run_id])

    async def stop(self, attempt: AttemptPaths, run_id: str, *, grace_seconds: float) -> None:
        """End as a program without a handler does."""
        del attempt, grace_seconds
        self._stumble("stop")
        self.stopped.append(run_id)
        self.end(run_id, Exit(signal=signal.SIGTERM, at=datetime.now(UTC)))


def _run_id(attempt: AttemptPaths) -> str:
    return attempt.folder.parent.parent.name


def _future() -> asyncio.Future[Exit | None]:
    return asyncio.get_running_loop().create_future()
