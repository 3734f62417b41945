"""How many threads compute: as many as there are processors that nobody else uses.

Threads of one operation wait for each other. Where other programs are busy, such as a training on the same machine, one of them is
always not running, and a step of two threads takes ten times as long as one of a single thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

_SECONDS = 0.25
"""Between two looks."""
_WEIGHT = 0.3
"""Of the newest look, against those before."""


class Threads:
    """Sets torch's number of threads between steps."""

    def __init__(
        self,
        most: int,
        *,
        processors: int | None = None,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
        use: Callable[[int], object] = torch.set_num_threads,
    ) -> None:
        self._most, self._processors = most, processors or os.cpu_count() or most
        self._proc, self._clock, self._use = proc, clock, use
        self._now, self._others, self._next = most, 0.0, clock()

    def look(self) -> None:
        """Look how busy the machine is, if it is time to."""
        if self._most == 1 or self._clock() < self._next:
            return
        self._next = self._clock() + _SECONDS
        others = self._running_elsewhere()
        if others is None:
            return
        self._others += _WEIGHT * (others - self._others)
        wanted = max(1, min(self._most, round(self._processors - self._others)))
        if wanted != self._now:
            self._now = wanted
            self._use(wanted)

    def _running_elsewhere(self) -> int | None:
        """Threads of other programs that run, or would if there were a processor; None where the system denies to say."""
        try:
            running = int((self._proc / "loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
            tasks = list((self._proc / "self" / "task").iterdir())
        except (OSError, ValueError, IndexError):
            return None
        return max(0, running - sum(map(_runs, tasks)))


def _runs(task: Path) -> bool:
    try:
        return (task / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] == "R"
    except (OSError, IndexError):
        return False
