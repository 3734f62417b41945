"""The worker's side of a call: reads one JSON request from standard input, prints the answer as a ``result`` event.

The caller keeps the input open; when it closes, the caller is gone and so is the reason to go on.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tunesmith_workers.process.events import emit
from tunesmith_workers.process.faults import STOPPED, run_and_exit

Answer = Callable[[dict[str, Any]], Mapping[str, Any]]


def answer_and_exit(answer: Answer) -> None:
    """Answer the one request of this process; faults become the message that the caller passes on."""

    def main() -> None:
        request = msgspec.json.decode(sys.stdin.buffer.readline(), type=dict[str, Any])
        threading.Thread(target=_leave_with_the_caller, daemon=True).start()
        emit("result", **answer(request))

    run_and_exit(main)


def _leave_with_the_caller() -> None:
    # Not through sys.stdin: its lock, held by a thread that waits, is fatal to an interpreter that wants to end.
    while os.read(0, 4096):
        pass
    os._exit(STOPPED)
