"""How the programs of this package run: behind the server and its trainings, with as little ado about memory as possible."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from tunesmith_workers.process.allocator import keep_freed_memory
from tunesmith_workers.process.calls import answer_and_exit

_NICENESS = 5
_Request = TypeVar("_Request", bound=msgspec.Struct)


def serve(kind: type[_Request], work: Callable[[_Request], dict[str, Any]]) -> None:
    """Answer the one request of this process and end."""

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        os.nice(_NICENESS)
        # Rows are many small objects without cycles: the default would go through them all the time.
        gc.set_threshold(100_000, 50, 100)
        keep_freed_memory()
        return work(msgspec.convert(request, kind))

    answer_and_exit(answer)
