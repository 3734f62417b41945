"""Large files that come in parts, which are put together when all of them are here."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from tunesmith.records.base import Record


class UploadInPartsStatus(StrEnum):
    PENDING = "pending"  # parts may come, and may be put together
    COMPLETED = "completed"  # they were put together: there is a file
    CANCELLED = "cancelled"  # somebody asked; its parts are gone
    EXPIRED = "expired"  # nobody put them together in time; they are gone


class UploadInParts(Record, frozen=True, kw_only=True):
    """A file that is announced, and comes in parts. The parts themselves are files in a folder named by its id."""

    name: str
    """As the client called the file; never used as a path."""
    bytes: int
    """As announced."""
    mime_type: str
    purpose: str
    keep_seconds: int | None = None
    """How long the file is kept once it is whole; None: until it is deleted."""
    created_at: datetime
    expires_at: datetime
    """When what has not been put together by then is removed."""
    status: UploadInPartsStatus = UploadInPartsStatus.PENDING
    part_ids: tuple[str, ...] = ()
    """In the order in which they are, or were last to be, put together."""
    upload_id: str | None = None
    """The upload that becomes, or was last to become, of them; on record only once it is whole."""
