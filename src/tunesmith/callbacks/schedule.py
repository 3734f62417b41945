"""What follows from one try: done, again and when, or given up. Pure, but for the jitter.

Times and meanings are those that the Standard Webhooks text recommends.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import msgspec

from tunesmith.records import DeliveryState

_MINUTE, _HOUR = 60.0, 3600.0
STANDARD_SCHEDULE: tuple[float, ...] = (
    0.0,
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
"""Seconds to wait before each try, counted from the one before: about 75 hours in all."""

_JITTER = 0.05
_GONE = 410
_ASK_FOR_TIME = frozenset({429, 503})
_LONGEST_RETRY_AFTER = 24 * _HOUR


class Step(msgspec.Struct, frozen=True):
    """The state of a delivery after a try, and when the next one is due."""

    state: DeliveryState
    next_at: datetime | None = None


def after_try(
    status: int | None,
    *,
    retry_after: str | None = None,
    failures: int,
    now: datetime,
    schedule: Sequence[float] = STANDARD_SCHEDULE,
) -> Step:
    """Judge a try that ended ``now``; ``status`` is None when no whole answer came.

    ``failures`` counts the failed tries of this round with this one, should it have failed.
    """
    if status is not None and 200 <= status < 300:
        return Step(DeliveryState.DELIVERED)
    if status == _GONE:
        return Step(DeliveryState.GONE)
    if failures >= len(schedule):
        return Step(DeliveryState.FAILED)
    wait = schedule[failures] * random.uniform(1 - _JITTER, 1 + _JITTER)
    if status in _ASK_FOR_TIME:
        wait = max(wait, _seconds(retry_after, now))
    return Step(DeliveryState.PENDING, now + timedelta(seconds=wait))


def _seconds(retry_after: str | None, now: datetime) -> float:
    """How long a Retry-After header asks to wait: a number of seconds, or a date; 0 for anything else."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), _LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER)
