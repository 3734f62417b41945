"""A limit on how long a piece of work may compute, for work that some input makes endless.

It counts the processor's time of this process, so that a busy machine is no reason to give up. It stops Python code, and
searches of ``re`` and ``regex``, but no library that never looks for signals. In the main thread only; elsewhere it does not limit.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_SECONDS = 0.05
"""Until it is stopped anew, should what is stopped lose the exception: Python drops those of ``__del__`` and of callbacks."""
_NOT_STOPPED = frozenset({__name__, contextlib.__name__})
"""Modules between whose lines it is not stopped, so that the exception is always caught here; a moment later it is."""


class TookTooLong(Exception):
    """The time was up."""


class _TimeIsUp(BaseException):
    """Not an Exception: what is stopped must not take it for one of its own."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Stop what is in the block once it has computed for so many seconds.

    Raises:
        TookTooLong: it was stopped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_running = True

    def stop(_signal: int, frame: FrameType | None) -> None:
        if is_running and frame is not None and frame.f_globals.get("__name__") not in _NOT_STOPPED:
            raise _TimeIsUp

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    except _TimeIsUp:
        raise TookTooLong from None
    finally:
        is_running = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
