"""Events on their way to the URLs of callbacks."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from tunesmith.records.base import Record
from tunesmith.records.runs import CallbackEvent


class DeliveryState(StrEnum):
    PENDING = "pending"  # to be sent at next_at, or once those of its subject before it are out of the way
    DELIVERED = "delivered"  # the receiver answered 2xx
    FAILED = "failed"  # every try of the schedule failed; given up
    GONE = "gone"  # the receiver answered 410: it wants nothing more of this subject
    DROPPED = "dropped"  # not sent, because an earlier one of the subject got the 410


class Endpoint(StrEnum):
    """Who asked for a delivery. Of one subject, what goes to one endpoint does not wait for what goes to the other."""

    CALLBACK = "callback"  # the request that made the run
    WEBHOOK = "webhook_url"  # the settings


class DeliveryAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try to send a delivery: it has a status, or an error when no whole answer came."""

    number: int
    at: datetime
    seconds: float
    status: int | None = None
    answer: str = ""
    """The beginning of what the receiver said."""
    error: str | None = None
    next_at: datetime | None = None
    """When the next try was due from then on."""


class Uptime(msgspec.Struct, frozen=True, kw_only=True):
    """A moment by the machine's own clock, which nobody sets: seconds since it was booted, sleep included."""

    boot_id: str
    seconds: float


class BodySource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a body is made of each time it is sent: it may be long, and then a copy for each delivery is too much."""

    fields: dict[str, Any]
    """Those of the body that are on record as they are."""
    result_file: str | None = None
    """The others are in this file below the run's folder."""
    log_upto: int | None = None
    """The others are drawn from what was measured up to this byte of run.log."""


class Delivery(Record, frozen=True, kw_only=True):
    """One event on its way to one URL."""

    subject_id: str
    """What it tells of: a run, or a batch."""
    endpoint: Endpoint = Endpoint.CALLBACK
    key: str
    """Names the occurrence within its subject, such as ``metrics@4096``; the id is made from both."""
    kind: CallbackEvent
    url: str
    body: str = ""
    """Exactly what is sent, every time; empty for one that has a ``source``."""
    source: BodySource | None = None
    created_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    next_at: datetime | None = None
    due_uptime: Uptime | None = None
    """The same moment as ``next_at``: what counts, until the machine is booted again."""
    failures: int = 0
    """Tries that failed since it was last taken up: its place in the schedule."""
    attempts: tuple[DeliveryAttempt, ...] = ()
    """The latest, oldest first."""

    @classmethod
    def upgraded(cls, data: dict[str, Any]) -> dict[str, Any]:
        """0.1.0 before webhooks: only runs had deliveries, and the subject was called ``run_id``."""
        upgraded = dict(data)
        if "run_id" in upgraded:
            upgraded["subject_id"] = upgraded.pop("run_id")
        return upgraded
