"""SIGTERM, understood as a request: finish the step, write a checkpoint, leave with 143.

Before training there is nothing to keep, and the process leaves at once.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

from tunesmith_workers.faults import STOPPED
from tunesmith_workers.telling import note


class StopRequest:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._may_wait = False

    def listen(self) -> StopRequest:
        """Take SIGTERM from now on."""
        signal.signal(signal.SIGTERM, self._take)
        return self

    def wait_for_checkpoint(self) -> None:
        """From now on the request is only noted, and whoever trains looks at ``asked`` after each step."""
        self._may_wait = True

    def leave_at_once(self) -> None:
        """The reverse of ``wait_for_checkpoint``, for work that is not worth finishing."""
        self._may_wait = False

    def leave(self, text: str) -> None:
        """Say what was kept, and end the process."""
        note(text)
        sys.exit(STOPPED)

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the signature of a handler
        self.asked = True
        if not self._may_wait:
            self.leave("stopped on request; there was nothing to keep yet")
