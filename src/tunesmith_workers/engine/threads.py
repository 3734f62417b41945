"""How many threads compute: as many as there are processors that nobody else uses.

Threads of one operation wait for each other. Where other programs are busy, such as a training on the same machine, one of them is
always not running, and a step of two threads takes ten times as long as one of a single thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

_SECONDS = 0.05
"""Between two looks."""
_WEIGHT = 0.05
"""Of the newest look, against those before: about a second of them counts."""
_SURELY = 0.25
"""So much more than half a processor has to be gained or lost: what goes back and forth is worse than either."""


class Threads:
    """Sets torch's number of threads between steps. How busy the machine is, is looked at beside them: right after a step,
    those who are answered are always awake.
    """

    def __init__(
        self,
        most: int,
        *,
        processors: int | None = None,
        proc: Path = Path("/proc"),
        use: Callable[[int], object] = torch.set_num_threads,
    ) -> None:
        self._most, self._processors = most, processors or os.cpu_count() or most
        self._proc, self._use = proc, use
        self._now, self._others = most, 0.0

    def watch(self) -> None:
        """Look from now on, in a thread of its own."""
        if self._most > 1:
            threading.Thread(target=self._watch, name="threads", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(_SECONDS)
            self.look()

    def look(self) -> None:
        """See who else runs at this moment."""
        others = self._running_elsewhere()
        if others is not None:
            self._others += _WEIGHT * (others - self._others)

    def apply(self) -> None:
        """Compute with as many threads as are of use. Called between steps, by the thread that computes."""
        idle = self._processors - self._others
        if abs(idle - self._now) <= 0.5 + _SURELY and self._now < self._most:
            return
        wanted = max(1, min(self._most, round(idle - _SURELY if idle > self._now else idle + _SURELY)))
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
