"""Ctrl-C that is certain to be heard by whoever waits for it.

Python raises KeyboardInterrupt wherever the program happens to be, and there are places where it is lost: in a finalizer,
or just before a read that then blocks. So it is raised again every second until somebody says that it was heard.
"""

from __future__ import annotations

import signal
from types import FrameType

_AGAIN_SECONDS = 1.0
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen() -> None:
    """From now on, whoever ends this process or closes its terminal gets the same clean end as with Ctrl-C."""
    for asked in (*_ENDS, signal.SIGALRM):
        signal.signal(asked, _interrupt)


def heard() -> None:
    """The interrupt has arrived where it is dealt with: it is not raised again."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    raise KeyboardInterrupt
