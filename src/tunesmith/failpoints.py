"""Places where the crash tests may kill this process; nothing happens unless ``TUNESMITH_FAILPOINT`` is set.

``TUNESMITH_FAILPOINT=7`` sends SIGKILL to the process at the seventh failpoint it passes, and a name such as
``attempt.after_spawn`` when it first passes that one; ``attempt.after_spawn#3`` waits for the third time. This is how the
tests prove that a crash before, inside or after any write, fsync, rename or spawn loses nothing that was acknowledged.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter


class Failpoints:
    """Counts the failpoints passed and kills the process at a chosen one."""

    def __init__(self, fire_at: str | None) -> None:
        self._fire_at = fire_at
        self._passed = 0
        self._passed_by_name: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def armed(self) -> bool:
        return self._fire_at is not None

    def hit(self, name: str) -> None:
        if self._fire_at is None:
            return
        with self._lock:
            self._passed += 1
            self._passed_by_name[name] += 1
            if self._fire_at in (name, str(self._passed), f"{name}#{self._passed_by_name[name]}"):
                os.kill(os.getpid(), signal.SIGKILL)


# The one piece of module state in the control plane: passing it through every writer would put a test
# instrument into every constructor.
FAILPOINTS = Failpoints(os.environ.get("TUNESMITH_FAILPOINT"))
