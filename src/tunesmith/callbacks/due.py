"""When a delivery is to be sent, by a clock that nobody sets: the wall clock may jump, and no schedule with it.

What is recorded for people is wall time. Beside it is the uptime of the machine, which goes on while it sleeps and begins
anew when it boots; across a boot the wall clock decides, within what had been decided to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from tunesmith.records import Delivery, Uptime

UptimeClock = Callable[[], Uptime]


def uptime() -> Uptime:
    return Uptime(boot_id=_boot_id(), seconds=time.clock_gettime(time.CLOCK_BOOTTIME))


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def after(start: Uptime, wait: timedelta) -> Uptime:
    return Uptime(boot_id=start.boot_id, seconds=start.seconds + wait.total_seconds())


def seconds_until_due(delivery: Delivery, *, now: datetime, up: Uptime) -> float:
    """How long it still has to wait; negative once it is due."""
    due = delivery.due_uptime
    if due is not None and due.boot_id == up.boot_id:
        return due.seconds - up.seconds
    if delivery.next_at is None:
        return 0.0
    decided_at = delivery.attempts[-1].at if delivery.attempts else delivery.created_at
    return min((delivery.next_at - now).total_seconds(), (delivery.next_at - decided_at).total_seconds())
