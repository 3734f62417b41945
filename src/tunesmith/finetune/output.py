"""What a training function prints goes to run.log and to finetune.log; events go to run.log, each on a line of its own.

Works below Python, on the file descriptors, so that libraries in C and child processes are heard as well.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunesmith.contract.events import Kind, event_line

_CHUNK = 64 * 1024
_LONGEST_PIECE = 16 * 1024
_DRAIN_SECONDS = 2.0


class Output:
    """Doubles standard output and standard error while it is entered."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._flush()
        self._kept = (os.dup(1), os.dup(2))
        self._file = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        readable, writable = os.pipe()
        for standard in (1, 2):
            os.dup2(writable, standard)
        os.close(writable)
        self._thread = threading.Thread(target=self._carry, args=(readable,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._flush()
        for standard, kept in zip((1, 2), self._kept, strict=True):
            os.dup2(kept, standard)
        # A child that the function left running may hold the pipe open for ever.
        self._thread.join(_DRAIN_SECONDS)

    def emit(self, event: Kind, /, **fields: Any) -> None:
        """Print one event, past finetune.log."""
        self._forward(event_line(event, fields))

    def _carry(self, readable: int) -> None:
        rest = b""
        while content := os.read(readable, _CHUNK):
            _write(self._file, content)
            whole, newline, rest = (rest + content).rpartition(b"\n")
            if newline:
                self._forward(whole + newline)
            if len(rest) > _LONGEST_PIECE:
                # A bar that only ever rewinds its line: an event must not be glued to its end.
                self._forward(rest + b"\n")
                rest = b""
        if rest:
            self._forward(rest + b"\n")
        os.close(readable)

    def _forward(self, lines: bytes) -> None:
        with self._lock:
            _write(self._kept[0], lines)

    def _flush(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
