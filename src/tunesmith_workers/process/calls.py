"""The worker's side of a call: reads requests from standard input and prints their answers as events; see ``contract.calls``.

The caller keeps the input open; when it closes, the caller is gone and so is the reason to go on.
"""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tunesmith.contract.calls import CALL, read_request
from tunesmith.contract.events import Kind, event_line
from tunesmith_workers.process.events import emit
from tunesmith_workers.process.faults import STOPPED, Unexpected, WorkerFault, error_of, run_and_exit

Answer = Callable[[dict[str, Any]], Mapping[str, Any]]


def answer_and_exit(answer: Answer) -> None:
    """Answer the one request of this process; faults become the message that the caller passes on."""

    def main() -> None:
        emit("result", **answer(read_request(_requests().get()).fields))

    run_and_exit(main)


def keep_answering(answer: Answer) -> NoReturn:
    """Answer one request after the other, for as long as the caller is there.

    Nothing but answers is printed, and an exception that nobody has foreseen is told by its type and place only: its own words
    may quote what was asked.
    """
    own, requests = _own_output(), _requests()
    while True:
        request = read_request(requests.get())
        kind, fields = _outcome(answer, request.fields)
        own.write(event_line(kind, {CALL: request.call, **fields}))
        own.flush()


def _outcome(answer: Answer, request: dict[str, Any]) -> tuple[Kind, Mapping[str, Any]]:
    try:
        return "result", answer(request)
    except WorkerFault as fault:
        return "message", error_of(fault)
    except Exception as error:  # noqa: BLE001  # the edge of the process
        return "message", error_of(Unexpected(f"{type(error).__name__} at {_place(error)}"))


def _requests() -> queue.SimpleQueue[bytes]:
    """Lines of standard input, read beside the work, so that the end of the caller is seen in the middle of it."""
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    return requests


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    # Not through sys.stdin: its lock, held by a thread that waits, is fatal to an interpreter that wants to end.
    begun: list[bytes] = []
    while chunk := os.read(0, 1024 * 1024):
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            requests.put(b"".join([*begun, line]))
            begun = []
        begun.append(rest)
    os._exit(STOPPED)


def _own_output() -> BinaryIO:
    """Standard output for answers alone: what a library prints goes to standard error."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
