"""What an executor is: the place where attempts run. ``local`` is one; a cluster's queue would be another.

An executor starts, finds again, waits and stops. It knows nothing of runs, journals or recipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from tunesmith.paths import AttemptPaths
from tunesmith.records import Exit, Handle


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What to start."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """Added to the environment that the program inherits. It is written to disk: no secrets in here.

    ``TUNESMITH_RUN_ID`` in it is the mark by which everything that belongs to the run is found.
    """
    cwd: str
    log: str
    """Standard output and error are appended here by the process itself."""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt whose process exists or existed."""

    program: Handle | None
    """None when the program could not be started at all; its exit says so."""
    at: datetime | None = None
    """When it began, which may be long before anybody looked; None when that is not known."""


class Executor(Protocol):
    """Where attempts run."""

    async def start(self, attempt: AttemptPaths, launch: Launch) -> None:
        """Ask for the process. The caller has journaled the intent before. What an earlier attempt left is ended first.

        Raises:
            OSError: nothing was started, for instance because the disk is full or an earlier attempt does not end.
        """
        ...

    async def started(self, attempt: AttemptPaths, run_id: str) -> Started | None:
        """Wait until the process is known; None when it had not begun by the deadline and now never will."""
        ...

    async def abandon(self, attempt: AttemptPaths, run_id: str) -> bool:
        """Make sure that an attempt which has not begun never does; False when it has begun."""
        ...

    async def wait(self, attempt: AttemptPaths, run_id: str) -> Exit | None:
        """Wait for the end; None when nothing of it is left and nobody can know how it ended."""
        ...

    async def stop(self, attempt: AttemptPaths, run_id: str, *, grace_seconds: float) -> None:
        """Ask, wait the grace period, then kill everything that belongs to the attempt. Returns when it is gone."""
        ...
