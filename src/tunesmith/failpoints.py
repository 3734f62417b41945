"""Places where the crash tests may kill this process; nothing happens unless ``TUNESMITH_FAILPOINT`` is set.

``TUNESMITH_FAILPOINT=7`` sends SIGKILL to the process at the seventh failpoint it passes. This is how the tests prove
that a crash before, inside or after any write, fsync, rename or spawn loses nothing that was acknowledged.
"""

from __future__ import annotations

import os
import signal
import threading


class Failpoints:
    """Counts the failpoints passed and kills the process at a chosen one."""

    def __init__(self, fire_at: int | None) -> None:
        self._fire_at = fire_at
        self._passed = 0
        self._lock = threading.Lock()

    @property
    def armed(self) -> bool:
        return self._fire_at is not None

    def hit(self, name: str) -> None:  # noqa: ARG002  # the name is read by people, in the source and in tracebacks
        if self._fire_at is None:
            return
        with self._lock:
            self._passed += 1
            if self._passed == self._fire_at:
                os.kill(os.getpid(), signal.SIGKILL)


_armed_by = os.environ.get("TUNESMITH_FAILPOINT")
# The one piece of module state in the control plane: passing it through every writer would put a test
# instrument into every constructor.
FAILPOINTS = Failpoints(int(_armed_by) if _armed_by else None)
