"""Batches: files of requests that are answered one by one, and the states they pass through."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from tunesmith.records.base import Record


class BatchStatus(StrEnum):
    VALIDATING = "validating"  # its input file is to be read, or is being read
    FAILED = "failed"  # its input file cannot be used
    IN_PROGRESS = "in_progress"  # its requests are being answered
    FINALIZING = "finalizing"  # all of them have their line; the lines become files
    COMPLETED = "completed"
    EXPIRED = "expired"  # its window was over before all of them were answered
    CANCELLING = "cancelling"  # somebody asked for its end; what was answered becomes a file
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)

    @property
    def asks(self) -> bool:
        """Whether requests of it are still to be asked."""
        return self in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)


class BatchFault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing that is wrong with an input file."""

    code: str
    message: str
    line: int | None = None
    """From 1; None: it is about all of the file."""
    param: str | None = None


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Tokens that the answers of a batch took."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the input."""
    reasoning_tokens: int = 0
    """Of the output."""


class BatchCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What became of the requests of a batch."""

    completed: int = 0
    failed: int = 0
    usage: BatchUsage = BatchUsage()


class Batch(Record, frozen=True, kw_only=True):
    """A file of requests to be answered. What their lines hold is in the files; here is only how many there are."""

    input_upload: str
    """The id of the upload with the requests."""
    endpoint: str
    completion_window: str
    created_at: datetime
    expires_at: datetime
    metadata: dict[str, str] | None = None
    output_seconds: int | None = None
    """How long its files are kept; None: until they are deleted."""
    caller: str = ""
    """The id of the API key that it came with; empty: there was none."""
    status: BatchStatus = BatchStatus.VALIDATING
    model: str | None = None
    """The model of its requests; None: not known yet, or there are several."""
    total: int = 0
    """How many requests there are; 0 until they were counted."""
    counts: BatchCounts = BatchCounts()
    """As they were when its status last changed."""
    faults: tuple[BatchFault, ...] = ()
    output_upload: str | None = None
    error_upload: str | None = None
    in_progress_at: datetime | None = None
    finalizing_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    expired_at: datetime | None = None
    cancelling_at: datetime | None = None
    cancelled_at: datetime | None = None
    told_at: datetime | None = None
    """When whoever wants to know of its end was told."""

    @property
    def ended_at(self) -> datetime:
        """When it ended; until then, when it was made."""
        ends = (self.completed_at, self.failed_at, self.expired_at, self.cancelled_at)
        return next((at for at in ends if at is not None), self.created_at)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to be done about it."""
        return self.status.final and self.told_at is not None
