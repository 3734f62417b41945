"""What a door may still say of an upload when all of its bytes are here: what it is for, or that it is here already."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from tunesmith.records import Upload


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that is whole, and not on record yet."""

    name: str
    bytes: int
    sha256: str
    at: datetime
    """When the last of it came."""


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on record with it."""

    purpose: str = ""
    keep_seconds: int | None = None
    """From when it is on record; then it is removed by itself. None: it is kept."""
    caller: str = ""
    """The id of the API key that it came with, where its door asks that."""
    instead: Upload | None = None
    """Not this one: it is the same as this upload, which is on record."""


Judge = Callable[[Arrived], Details]
"""Asked once, when an upload is whole; whatever it raises refuses the upload."""


def no_details(_arrived: Arrived) -> Details:
    """For doors that have nothing to say."""
    return Details()
