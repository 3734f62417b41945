"""SIGTERM, understood as a request: finish the step, write a checkpoint, leave with 143.

Before training there is nothing to keep, and the process leaves at once. Python hears a signal only between two
operations, and one operation of torch may take minutes: a thread hears it at once, and ends the process when the main
thread does not come to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from tunesmith_workers.process.events import emit_message
from tunesmith_workers.process.faults import STOPPED

_TO_LEAVE = 0.5
"""Seconds that the main thread has to hear the request."""
_TO_CLEAN_UP = 5.0
"""Seconds that it has to end once it has heard it."""
_NOTHING_KEPT = "stopped on request; there was nothing to keep yet"


class StepDropped(Exception):
    """The process was asked to stop in the middle of a step that cannot be finished soon; the steps before it stand."""


class StopRequest:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._may_wait = False
        self._leaving = False
        self._scratch: set[Path] = set()

    def listen(self) -> StopRequest:
        """Take SIGTERM from now on."""
        heard, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=self._leave_in_time, args=(heard,), name="stop", daemon=True).start()
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
        self._leaving = True
        emit_message(text)
        sys.exit(STOPPED)

    @contextlib.contextmanager
    def removing(self, folder: Path) -> Iterator[None]:
        """A folder that is not left behind if the process has to leave, or fails, while it is written."""
        self._scratch.add(folder)
        try:
            yield
        except BaseException:  # SystemExit, if the request was heard between two operations
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._scratch.discard(folder)

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the signature of a handler
        self.asked = True
        if not self._may_wait and not self._leaving:
            self.leave(_NOTHING_KEPT)

    def _leave_in_time(self, heard: int) -> None:
        """In a thread of its own, which runs while an operation of torch does."""
        while number := os.read(heard, 1):
            if number[0] != signal.SIGTERM:
                continue
            time.sleep(_TO_LEAVE)
            if self._leaving:
                time.sleep(_TO_CLEAN_UP)
            elif not self._may_wait:
                emit_message(_NOTHING_KEPT)
            if self._leaving or not self._may_wait:
                self._end()

    def _end(self) -> None:
        for folder in self._scratch:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(STOPPED)
