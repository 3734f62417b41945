"""What a worker prints: events in the line format and lines for people, from the first process of a group only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from tunesmith.contract import events
from tunesmith.contract.events import Kind


def emit(kind: Kind, /, **fields: Any) -> None:
    """Print one event; fields that are None are left out. Every process may report an error."""
    if is_first_process() or fields.get("level") == "error":
        events.emit(kind, **{name: value for name, value in fields.items() if value is not None})


def log(text: str) -> None:
    """Print one line for people."""
    if is_first_process():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def emit_message(text: str, *, level: str = "info", where: str | None = None, mend: str | None = None) -> None:
    """Print a message that the run's event history keeps."""
    emit("message", level=level, text=text, where=where, mend=mend)


def is_first_process() -> bool:
    # accelerate and torchrun number the processes of a group.
    return os.environ.get("RANK", "0") == "0"


class Paced:
    """Reports progress at most once a second, so that a fast loop does not fill the log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, seconds: float = 1.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._last = clock()

    def emit(self, kind: Kind, /, **fields: Any) -> None:
        if self._clock() - self._last >= self._seconds:
            self.restart()
            emit(kind, **fields)

    def restart(self) -> None:
        self._last = self._clock()
